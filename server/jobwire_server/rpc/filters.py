"""Requests that choose jobs by a filter, or go through a listing page by page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp

from jobwire.v1 import job_pb2, job_service_pb2, queue_service_pb2
from jobwire_server.domain.errors import JobwireError, Reason, invalid
from jobwire_server.domain.filter import JobFilter, Position
from jobwire_server.domain.job import SECOND, WAITING, JobState
from jobwire_server.domain.limits import Limits
from jobwire_server.rpc import page_token, validate
from jobwire_server.service.by_filter import Changed, Selection

MAX_NAMED: Final = 100
"""Entries of one list of a filter."""
DEFAULT_PAGE: Final = 100

_STATES: Final = {job_pb2.JobState.Value(f"JOB_STATE_{state.name}"): state for state in JobState}
_LATEST: Final = 253_402_300_799 * SECOND
"""The end of the year 9999, where a Timestamp ends."""

ByFilterRequest = (
    job_service_pb2.CancelJobsRequest | job_service_pb2.RetryJobsRequest | job_service_pb2.DeleteJobsRequest
)
Paged = ByFilterRequest | job_service_pb2.ListJobsRequest


def job_filter(path: str, given: job_pb2.JobFilter, limits: Limits) -> JobFilter:
    _refuse_unknown(path, given)
    for field in ("queues", "states", "types"):
        if len(getattr(given, field)) > MAX_NAMED:
            raise invalid(f"{path}.{field}", f"must hold at most {MAX_NAMED} entries")
    labels = validate.labels(f"{path}.labels", given.labels, limits)
    return JobFilter(
        queues=frozenset(validate.name(f"{path}.queues[{i}]", name) for i, name in enumerate(given.queues)),
        states=states(f"{path}.states", given.states),
        user_id=validate.text(f"{path}.user_id", given.user_id, limits.text),
        types=frozenset(validate.text(f"{path}.types[{i}]", kind, limits.text) for i, kind in enumerate(given.types)),
        created_from=_bound(path, given, "create_time_after"),
        created_before=_bound(path, given, "create_time_before"),
        submission_matches=_labelled(dict(labels)) if labels else None,
    )


def states(path: str, given: Sequence[job_pb2.JobState.ValueType]) -> frozenset[JobState]:
    for i, state in enumerate(given):
        if state not in _STATES:
            raise invalid(f"{path}[{i}]", "is no state of a job")
    return frozenset(_STATES[state] for state in given)


def page_size(given: int, limits: Limits) -> int:
    return validate.whole("page_size", given, 0, limits.batch) or DEFAULT_PAGE


def listing_start(request: job_service_pb2.ListJobsRequest) -> Position | None:
    """Where this page begins; None = at the start."""
    if not request.page_token:
        return None
    return page_token.position_of(
        "page_token", page_token.unseal("page_token", request.page_token, listing_of(request))
    )


def listing_token(request: job_service_pb2.ListJobsRequest, end: Position | None) -> str:
    return "" if end is None else page_token.seal(listing_of(request), page_token.place_of(end))


def selection(request: ByFilterRequest, limits: Limits) -> Selection:
    wanted = job_filter("filter", request.filter, limits)
    if wanted.is_empty:
        raise invalid("filter", "is required: an empty one would mean every job there is")
    after, began = _row(request)
    return Selection(
        wanted=wanted,
        max_jobs=max_jobs(request.max_jobs, limits),
        validate_only=request.validate_only,
        after=after,
        began=began,
    )


def _row(request: ByFilterRequest) -> tuple[Position | None, int | None]:
    """How far the calls before came, and when the first of them looked."""
    if not request.page_token:
        return None, None
    match page_token.unseal("page_token", request.page_token, listing_of(request)):
        case [*place, int(began)]:
            return page_token.position_of("page_token", place), began
    raise page_token.refused("page_token")


def selection_token(request: ByFilterRequest, changed: Changed) -> str:
    if changed.end is None:
        return ""
    return page_token.seal(listing_of(request), (*page_token.place_of(changed.end), changed.began))


def purge_selection(request: queue_service_pb2.PurgeQueueRequest, limits: Limits) -> Selection:
    chosen = states("states", request.states) or WAITING
    if JobState.IN_PROGRESS in chosen:
        raise invalid("states", "must not name JOB_STATE_IN_PROGRESS: running jobs are never purged")
    wanted = JobFilter(queues=frozenset({validate.name("name", request.name)}), states=chosen)
    return Selection(wanted=wanted, max_jobs=max_jobs(request.max_jobs, limits), validate_only=request.validate_only)


def max_jobs(given: int, limits: Limits) -> int:
    return validate.whole("max_jobs", given, 0, limits.batch) or limits.batch


def listing_of(request: Paged) -> bytes:
    """What a page token belongs to: the same for requests that mean the same jobs, however their lists are sorted."""
    same = job_pb2.JobFilter()
    same.CopyFrom(request.filter)
    for field in ("queues", "states", "types"):
        entries = getattr(same, field)
        entries[:] = sorted(set(entries))
    return request.DESCRIPTOR.full_name.encode() + b"\0" + same.SerializeToString(deterministic=True)


def _refuse_unknown(path: str, given: job_pb2.JobFilter) -> None:
    """A field of a later contract would narrow the filter: without it a DeleteJobs would take more than was meant."""
    known = job_pb2.JobFilter()
    known.CopyFrom(given)
    known.DiscardUnknownFields()
    if known.ByteSize() != given.ByteSize():
        raise JobwireError(Reason.NOT_BUILT, f"{path}: holds a field that this server does not know", field=path)


def _bound(path: str, given: job_pb2.JobFilter, field: str) -> int | None:
    if not given.HasField(field):  # type: ignore[arg-type]  # the stub wants a literal
        return None
    time: Timestamp = getattr(given, field)
    # Jobs are made at whole microseconds: the first one at or after the bound decides for both ends.
    return validate.timestamp(f"{path}.{field}", time, _LATEST) + (time.nanos % 1000 > 0)


def _labelled(labels: dict[str, str]) -> Callable[[bytes], bool]:
    def matches(submission: bytes) -> bool:
        try:
            stored = job_pb2.Job.FromString(submission).labels
        except DecodeError:
            return False
        return all(stored.get(key) == value for key, value in labels.items())

    return matches
