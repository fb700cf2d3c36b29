"""What the demo says of a run: each thing that must not be is named, and nothing else."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace

import pytest

from examples.python.demo.crew import Fault
from examples.python.demo.ledger import Entries
from examples.python.demo.verdict import complaints, fates
from jobwire.v1.job_pb2 import Attempt, AttemptOutcome, Lease
from jobwire_client import Job, JobState, state_name


def job(id: str, type: str, state: str, *attempts: str, fence: int = 7) -> Job:
    """Each attempt as OUTCOME or OUTCOME@worker."""
    made = Job(id=id, type=type, state=JobState.Value(f"JOB_STATE_{state}"), fence=fence, attempt=len(attempts))
    for number, attempt in enumerate(attempts, start=1):
        outcome, _, worker = attempt.partition("@")
        made.attempts.append(
            Attempt(number=number, worker_id=worker or "w1", outcome=AttemptOutcome.Value(f"ATTEMPT_OUTCOME_{outcome}"))
        )
    return made


def held(id: str, fence: int, *, acknowledged: bool = True) -> Job:
    return Job(id=id, attempt=1, fence=fence, lease=Lease(acknowledged=acknowledged))


KILLED = Fault("kill -9", "w1", [held("c", 8)], 3, -9)
REDEPLOYED = Fault("redeployed", "w2", [held("a", 7)], 3, 0)


@dataclass(frozen=True)
class Run:
    """A run in which all is well; a test changes one thing in it."""

    created: dict[str, str] = field(
        default_factory=lambda: {"a": "email", "b": "broken", "c": "resize", "d": "unwanted", "e": "missed"}
    )
    found: tuple[Job, ...] = (
        job("a", "email", "COMPLETED", "COMPLETED"),
        job("b", "broken", "FAILED", "FAILED"),
        job("c", "resize", "COMPLETED", "INTERRUPTED@w1", "COMPLETED@w2", fence=9),
        job("d", "unwanted", "CANCELED"),
        job("e", "missed", "EXPIRED"),
    )
    counted: Counter[str] | None = None
    noted: tuple[str, ...] = ("ran a 7", "accepted a 7", "ran c 8", "ran c 9", "accepted c 9")
    faults: tuple[Fault, ...] = (KILLED, REDEPLOYED)

    def complaints(self) -> list[str]:
        counted = self.counted or Counter(state_name(job.state) for job in self.found)
        return complaints(self.created, self.found, counted, Entries(self.noted), self.faults)

    def with_job(self, other: Job) -> Run:
        return replace(self, found=tuple(other if job.id == other.id else job for job in self.found))

    def without(self, line: str) -> Run:
        return replace(self, noted=tuple(each for each in self.noted if each != line))

    def noting(self, line: str) -> Run:
        return replace(self, noted=(*self.noted, line))


WELL = Run()


def test_a_run_in_which_all_is_well_has_no_complaint() -> None:
    assert WELL.complaints() == []


def test_a_completion_that_its_killed_worker_never_heard_of_is_well() -> None:
    assert WELL.without("accepted a 7").complaints() == []


@pytest.mark.parametrize(
    ("run", "says"),
    [
        (replace(WELL, found=WELL.found[1:]), "a (email) is lost: the server does not know it"),
        (replace(WELL, created={"b": "broken"}), "a is there, and nobody has created it"),
        (replace(WELL, counted=Counter(COMPLETED=3, FAILED=1, CANCELED=1, EXPIRED=1)), "CountJobs says"),
        (replace(WELL, found=(*WELL.found, WELL.found[0])), "names 5 jobs and has 6 lines"),
        (WELL.with_job(job("a", "email", "QUEUED")), "a (email) is lost: it never ended, it is QUEUED"),
        (WELL.with_job(job("b", "broken", "COMPLETED", "COMPLETED")), "b (broken) ended COMPLETED, not FAILED"),
        (WELL.with_job(job("a", "email", "COMPLETED", "COMPLETED", "COMPLETED")), "a (email) was completed twice"),
        (WELL.noting("accepted a 6"), "a (email) was completed twice"),
        (WELL.with_job(job("a", "email", "COMPLETED", "FAILED")), "is COMPLETED with 0 completed attempts"),
        (WELL.noting("accepted b 7"), "a worker was told that it is completed"),
        (WELL.with_job(job("a", "email", "COMPLETED", "COMPLETED", fence=8)), "told that it is completed under 7"),
        (WELL.noting("ran c 8"), "c (resize) ran twice under one fence"),
        (WELL.without("ran a 7"), "its handler ran under []"),
        (WELL.noting("ran a 6"), "which no killed worker explains"),
        (WELL.noting("ran d 7"), "d (unwanted) ran 1 times to the end"),
        (replace(WELL, faults=(replace(KILLED, held=()),)), "w1 held no job when it was to be kill -9"),
        (replace(WELL, faults=(replace(REDEPLOYED, exit_code=1),)), "ended with exit code 1"),
        (replace(WELL, faults=(replace(REDEPLOYED, worker_id="w1"),)), "which interrupted 1 jobs"),
    ],
)
def test_what_must_not_be_is_named(run: Run, says: str) -> None:
    assert any(says in complaint for complaint in run.complaints()), run.complaints()


def test_the_jobs_that_a_worker_held_are_followed_to_their_end() -> None:
    assert fates(KILLED, WELL.found) == {"ran again elsewhere": 1}
    assert fates(REDEPLOYED, WELL.found) == {"finished there": 1}
    assert fates(KILLED, []) == {"lost": 1}
    on_its_way = replace(KILLED, held=[held("c", 8, acknowledged=False)])
    assert fates(on_its_way, WELL.found) == {"on their way, ran elsewhere": 1}
