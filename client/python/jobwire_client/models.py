"""What callers say in Python, as messages of the contract."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, TypeAlias, TypedDict, TypeVar, Unpack

from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message

from jobwire.v1.job_pb2 import Job, JobFilter, JobState, RetryPolicy, Webhook, WebhookEvent
from jobwire.v1.job_service_pb2 import CreateJobRequest, EditJob
from jobwire.v1.queue_pb2 import Queue
from jobwire.v1.queue_service_pb2 import UpdateQueueRequest
from jobwire.v1.worker_pb2 import WorkerDirective, WorkerState
from jobwire_client._convert import Body, fill_payload, to_duration, to_timestamp
from jobwire_client._tracing import traceparent

BATCH_ITEMS: Final = 1_000
BATCH_BYTES: Final = 8 * 1024 * 1024
"""Half of what the server takes in one message."""

State: TypeAlias = "JobState.ValueType | str"
"""`JobState.JOB_STATE_FAILED`, or `"FAILED"`."""

AnyWorkerState: TypeAlias = "WorkerState.ValueType | str"
"""`WorkerState.WORKER_STATE_LOST`, or `"LOST"`."""

Directive: TypeAlias = "WorkerDirective.ValueType | str"
"""`WorkerDirective.WORKER_DIRECTIVE_QUIET`, or `"QUIET"`."""

Told: TypeAlias = "Callable[[int], object]"
"""What long work tells how many jobs it has done so far."""

_PREFIX: Final = "JOB_STATE_"
_WORKER_PREFIX: Final = "WORKER_STATE_"
_EVENT_PREFIX: Final = "WEBHOOK_EVENT_"
_DIRECTIVE_PREFIX: Final = "WORKER_DIRECTIVE_"

Request = TypeVar("Request", bound=Message)

_SCALARS: Final = frozenset({"type", "id", "queue", "user_id", "priority"})
_MESSAGES: Final[Mapping[str, Callable[[Any], Message]]] = {
    "retry_policy": lambda policy: policy,
    "webhook": lambda hook: hook,
    "schedule_time": to_timestamp,
    "expire_time": to_timestamp,
    "execution_timeout": to_duration,
    "retention": to_duration,
}


class JobFields(TypedDict, total=False):
    """What may be said of a new job beside its type and payload; `job.proto` says what each means."""

    id: str
    queue: str
    user_id: str
    labels: Mapping[str, str]
    priority: int
    schedule_time: datetime
    expire_time: datetime
    execution_timeout: float | timedelta
    retention: float | timedelta
    retry_policy: RetryPolicy
    webhook: Webhook
    """Made by `webhook`."""


class EditFields(TypedDict, total=False):
    """What may be changed of a job. None puts a field back to its default."""

    payload: Body
    priority: int | None
    schedule_time: datetime | None
    labels: Mapping[str, str] | None
    retry_policy: RetryPolicy | None
    expire_time: datetime | None
    retention: float | timedelta | None


class FilterFields(TypedDict, total=False):
    """Which jobs: each field that is given must match, within a list any one is enough."""

    queues: Sequence[str]
    states: Sequence[State]
    user_id: str
    types: Sequence[str]
    labels: Mapping[str, str]
    create_time_after: datetime
    """At or after it."""
    create_time_before: datetime
    """And not at it."""


class QueueSettings(TypedDict, total=False):
    """What may be set of a queue. None puts a setting back to its default."""

    paused: bool | None
    ageing: float | timedelta | None
    retention: float | timedelta | None
    max_in_flight: int | None


def new_job(type: str = "", payload: Body = None, **fields: Unpack[JobFields]) -> Job:
    """A job to be created. Durations are seconds or timedeltas; times need a zone.

    >>> job = new_job("email.send", {"to": "ann@example.org"}, queue="mail", priority=2, retention=3600)
    >>> job.payload.text
    '{"to": "ann@example.org"}'
    """
    job = Job()
    _fill_new(job, {"type": type, "payload": payload, **fields})
    return job


def webhook(url: str, *, events: Sequence[str] = (), secret_ref: str = "") -> Webhook:
    """A callback for `create`: a POST of the job, when it has ended in one of these ways, or in any.

    events: COMPLETED, FAILED, CANCELED, EXPIRED. secret_ref: the name of a signing secret of the server's.

    >>> job = new_job("report", webhook=webhook("https://example.org/hook", events=["FAILED"], secret_ref="mine"))
    >>> job.webhook.secret_ref
    'mine'
    """
    return Webhook(
        url=url, events=[WebhookEvent.Value(_EVENT_PREFIX + event) for event in events], secret_ref=secret_ref
    )


def create_request(type: str, payload: Body, request_id: str, fields: JobFields) -> CreateJobRequest:
    """The same within its request, built in one go."""
    request = CreateJobRequest(request_id=request_id)
    _fill_new(request.job, {"type": type, "payload": payload, **fields})
    return request


def job_edit(etag: str, fields: EditFields) -> EditJob:
    """Every field that is named goes into the mask, so that None can reset it. ValueError when none is."""
    if not fields:
        raise ValueError("nothing to change: name a field")
    edit = EditJob(update_mask=FieldMask(paths=list(fields)), etag=etag)
    _fill(edit.job, fields)
    return edit


def _fill_new(job: Job, fields: Mapping[str, Any]) -> None:
    _fill(job, fields)
    if told := traceparent():
        job.traceparent = told


def _fill(job: Job, fields: Mapping[str, Any]) -> None:
    for name, value in fields.items():
        if value is None:
            continue
        if name in _SCALARS:
            setattr(job, name, value)
        elif name == "payload":
            fill_payload(job.payload, value)
        elif name == "labels":
            job.labels.update(value)
        elif name in _MESSAGES:
            getattr(job, name).CopyFrom(_MESSAGES[name](value))
        else:
            raise TypeError(f"a job has no {name!r} that can be set here")


def job_filter(fields: FilterFields) -> JobFilter:
    """ValueError for a state that there is not."""
    made = JobFilter(
        queues=fields.get("queues"),
        states=[to_state(state) for state in fields.get("states", ())],
        user_id=fields.get("user_id", ""),
        types=fields.get("types"),
        labels=fields.get("labels"),
    )
    if (after := fields.get("create_time_after")) is not None:
        made.create_time_after.CopyFrom(to_timestamp(after))
    if (before := fields.get("create_time_before")) is not None:
        made.create_time_before.CopyFrom(to_timestamp(before))
    return made


def queue_update(name: str, etag: str, allow_missing: bool, settings: QueueSettings) -> UpdateQueueRequest:
    """Every setting that is named goes into the mask. ValueError when none is."""
    if not settings:
        raise ValueError("nothing to change: name a setting")
    queue = Queue(name=name, paused=bool(settings.get("paused")), max_in_flight=settings.get("max_in_flight"))
    if (ageing := settings.get("ageing")) is not None:
        queue.ageing.CopyFrom(to_duration(ageing))
    if (retention := settings.get("retention")) is not None:
        queue.retention.CopyFrom(to_duration(retention))
    mask = FieldMask(paths=list(settings))
    return UpdateQueueRequest(queue=queue, update_mask=mask, etag=etag, allow_missing=allow_missing)


def to_state(state: State) -> JobState.ValueType:
    """ValueError for a state that there is not."""
    return JobState.Value(_PREFIX + state.removeprefix(_PREFIX)) if isinstance(state, str) else state


def state_name(state: JobState.ValueType) -> str:
    """As the documentation has it.

    >>> state_name(JobState.JOB_STATE_IN_PROGRESS)
    'IN_PROGRESS'
    """
    return JobState.Name(state).removeprefix(_PREFIX)


def to_worker_state(state: AnyWorkerState) -> WorkerState.ValueType:
    """ValueError for a state that there is not."""
    return WorkerState.Value(_WORKER_PREFIX + state.removeprefix(_WORKER_PREFIX)) if isinstance(state, str) else state


def worker_state_name(state: WorkerState.ValueType) -> str:
    """As the documentation has it.

    >>> worker_state_name(WorkerState.WORKER_STATE_IDLE)
    'IDLE'
    """
    return WorkerState.Name(state).removeprefix(_WORKER_PREFIX)


def to_directive(directive: Directive) -> WorkerDirective.ValueType:
    """ValueError for one that there is not."""
    if isinstance(directive, str):
        return WorkerDirective.Value(_DIRECTIVE_PREFIX + directive.removeprefix(_DIRECTIVE_PREFIX))
    return directive


def in_batches(requests: Iterable[Request]) -> Iterator[list[Request]]:
    """As many to a batch as the server takes in one call."""
    batch: list[Request] = []
    size = 0
    for request in requests:
        bytes_more = request.ByteSize()
        if batch and (len(batch) == BATCH_ITEMS or size + bytes_more > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(request)
        size += bytes_more
    if batch:
        yield batch
