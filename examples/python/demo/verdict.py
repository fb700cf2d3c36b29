"""Was anything lost, was anything completed twice? From what the server says, and what the workers have noted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from examples.python.demo.crew import Fault
from examples.python.demo.kinds import ENDS
from examples.python.demo.ledger import Entries
from examples.python.demo.watch import ENDED
from jobwire.v1.job_pb2 import AttemptOutcome
from jobwire_client import Job, state_name


def complaints(
    created: Mapping[str, str],
    found: Sequence[Job],
    counted: Mapping[str, int],
    noted: Entries,
    faults: Sequence[Fault],
) -> list[str]:
    """What must not be, a line each; nothing when all is well.

    `created`: the type of each job whose creation the server has acknowledged. `found` and `counted`: what ListJobs and
    CountJobs say at the end.
    """
    wrong = []
    jobs = {job.id: job for job in found}
    for job_id, type in created.items():
        if (job := jobs.get(job_id)) is None:
            wrong.append(f"{job_id} ({type}) is lost: the server does not know it")
        else:
            wrong += [f"{job_id} ({type}) {what}" for what in _of_job(job, type, noted)]
    wrong += [f"{job_id} is there, and nobody has created it" for job_id in jobs.keys() - created.keys()]
    if len(found) != len(jobs):
        wrong.append(f"ListJobs names {len(jobs)} jobs and has {len(found)} lines")
    if (listed := Counter(state_name(job.state) for job in jobs.values())) != Counter(counted):
        wrong.append(f"CountJobs says {_by_state(counted)}, ListJobs {_by_state(listed)}")
    for fault in faults:
        wrong += _of_fault(fault, jobs)
    return wrong


def outcomes(job: Job, worker_id: str = "") -> Counter[str]:
    """How its attempts have ended, those on one worker or all."""
    return Counter(
        AttemptOutcome.Name(attempt.outcome).removeprefix("ATTEMPT_OUTCOME_")
        for attempt in job.attempts
        if worker_id in ("", attempt.worker_id)
    )


def _of_job(job: Job, type: str, noted: Entries) -> Iterator[str]:
    state, attempts = state_name(job.state), outcomes(job)
    ran, accepted = noted.ran[job.id], noted.accepted[job.id]
    if state not in ENDED:
        yield f"is lost: it never ended, it is {state}"
    elif state != ENDS[type]:
        yield f"ended {state}, not {ENDS[type]}"
    if attempts["COMPLETED"] > 1 or len(accepted) > 1:
        yield f"was completed twice: {attempts['COMPLETED']} completed attempts, accepted under the fences {accepted}"
    elif attempts["COMPLETED"] != (state == "COMPLETED"):
        yield f"is {state} with {attempts['COMPLETED']} completed attempts"
    elif accepted and (state, accepted) != ("COMPLETED", [job.fence]):
        yield f"is {state} under fence {job.fence}, and a worker was told that it is completed under {accepted[0]}"
    if len(set(ran)) < len(ran):
        yield f"ran twice under one fence: {ran}"
    if state == "COMPLETED" and job.fence not in ran:
        yield f"is completed under fence {job.fence}, and its handler ran under {ran}"
    if len(ran) > attempts["COMPLETED"] + attempts["INTERRUPTED"]:
        yield f"ran {len(ran)} times to the end, which no killed worker explains"


def _of_fault(fault: Fault, jobs: Mapping[str, Job]) -> Iterator[str]:
    if not fault.held:
        yield f"{fault.worker_id} held no job when it was to be {fault.how}: that proves nothing"
    if fault.how == "redeployed":
        if fault.exit_code != 0:
            yield f"{fault.worker_id} was told to drain and ended with exit code {fault.exit_code}"
        if cost := sum(outcomes(job, fault.worker_id)["INTERRUPTED"] for job in jobs.values()):
            yield f"{fault.worker_id} was told to drain, which interrupted {cost} jobs"


def fates(fault: Fault, found: Iterable[Job]) -> Counter[str]:
    """What became of the jobs that the worker held."""
    jobs = {job.id: job for job in found}
    return Counter(_fate(fault, before, jobs.get(before.id)) for before in fault.held)


def _fate(fault: Fault, before: Job, after: Job | None) -> str:
    if after is None:
        return "lost"
    if not before.lease.acknowledged:  # which costs no attempt, so there is none to look at
        return "on their way, ran elsewhere" if after.fence > before.fence else "finished there"
    there = next((attempt for attempt in after.attempts if attempt.number == before.attempt), None)
    outcome = "" if there is None else AttemptOutcome.Name(there.outcome).removeprefix("ATTEMPT_OUTCOME_")
    match outcome:
        case "INTERRUPTED":
            return "ran again elsewhere"
        case "RELEASED":
            return "given back"
        case "CANCELED":
            return "cancelled"
        case "COMPLETED" | "FAILED":
            return "finished there"
        case _:
            return "not accounted for"


def _by_state(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{state} {counts[state]}" for state in sorted(counts) if counts[state])
