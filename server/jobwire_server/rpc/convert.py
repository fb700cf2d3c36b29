"""Requests as the domain means them: checked, measured, defaults filled in. The other way is `answers`.

The one place that knows which field of a request becomes what. Every refusal is a JobwireError that names its field.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence, Set
from typing import Any, Final

from jobwire.v1 import job_pb2, job_service_pb2, worker_pb2, worker_service_pb2
from jobwire_server.domain import policy
from jobwire_server.domain.change import Change, Edit, Fail, Release, Report
from jobwire_server.domain.errors import invalid
from jobwire_server.domain.job import DEFAULT_PRIORITY, DEFAULT_QUEUE, SECOND, JobError, NewJob, RetryPolicy
from jobwire_server.domain.limits import Limits
from jobwire_server.domain.move import JobChanges
from jobwire_server.domain.policy import Recovery
from jobwire_server.domain.queue import MAX_PRIORITY, MIN_PRIORITY
from jobwire_server.domain.worker import WorkerInfo
from jobwire_server.rpc import validate
from jobwire_server.rpc.ids import JobIds, worker_id
from jobwire_server.rpc.webhooks import WebhookReader
from jobwire_server.service.claim_events import ClaimSpec
from jobwire_server.service.jobs import RecoverRequest
from jobwire_server.service.receivers import Receivers
from jobwire_server.service.signing import Secrets
from jobwire_server.store.base import Renewal
from jobwire_server.telemetry.logs import principal_name

_DEFAULT_RETRY: Final = RetryPolicy()
DEFAULT_LEASE: Final = 30 * SECOND
DEFAULT_DELIVERY_TIMEOUT: Final = 10 * SECOND
DEFAULT_GRACE: Final = 30 * SECOND
DEFAULT_WAIT: Final = 30 * SECOND

EDITABLE: Final = (
    "priority",
    "schedule_time",
    "labels",
    "retry_policy",
    "expire_time",
    "retention",
    "payload",
)
SUBMISSION: Final = frozenset({"payload", "http", "labels", "traceparent"})
"""Fields of Job that are stored as they come."""
STORED: Final = SUBMISSION | {"webhook"}
"""The same, and that of which the store has to know as well."""
SUBMITTED: Final = SUBMISSION | {*EDITABLE, "id", "queue", "type", "user_id", "webhook", "execution_timeout"}
"""Fields of Job that a create may set; all others are output only."""


class Reader:
    """Reads requests. `now` tells the microseconds since 1970: what a create's times are compared with."""

    def __init__(self, limits: Limits, *, now: Callable[[], int], webhooks: WebhookReader | None = None) -> None:
        """`webhooks`: by default there are no signing secrets, and public addresses only."""
        self.limits = limits
        self.now = now
        self._webhooks = webhooks or WebhookReader(Secrets(), Receivers())
        self._ids = JobIds()

    def new_job(self, request: job_service_pb2.CreateJobRequest) -> NewJob:
        """Takes the request apart: afterwards `request.job` holds no more than what is stored of it as it came."""
        limits, job = self.limits, request.job
        given = {field.name for field, _ in job.ListFields()}
        if not given <= SUBMITTED:
            raise invalid(f"job.{min(given - SUBMITTED)}", "is output only: the server sets it")
        # Of the request as it came: what this server does not know yet belongs to it, but is not stored. Who gave it no
        # name cannot send it again, so that it is like no other.
        digest = b""
        if request.request_id or "id" in given:
            digest = _digest(job)
        job.DiscardUnknownFields()  # they would count against no limit
        request_key = None
        if request.request_id:
            request_id = validate.text("request_id", request.request_id, limits.text)
            request_key = hashlib.sha256(f"{principal_name.get()}\0{request_id}".encode()).digest()
        # Most requests hold two or three fields: asking for each of the others would cost more than all the rest.
        asked = {} if given <= SUBMISSION else self._asked(job, given)
        return NewJob(
            asked.pop("id", None) or self._ids.make(),
            id_given="id" in given,
            submission=self._submission(job, given),
            digest=digest,
            request_key=request_key,
            **asked,
        )

    def _asked(self, job: job_pb2.Job, given: Set[str]) -> dict[str, Any]:
        """The fields of NewJob that these fields of `job` say; those of the submission stand elsewhere."""
        limits = self.limits
        asked: dict[str, Any] = {}
        if "id" in given:
            asked["id"] = validate.job_id("job.id", job.id)
        if "queue" in given:
            asked["queue"] = validate.free_name("job.queue", job.queue)
        if "type" in given:
            asked["type"] = validate.text("job.type", job.type, limits.text)
        if "user_id" in given:
            asked["user_id"] = validate.text("job.user_id", job.user_id, limits.text)
        if "priority" in given:
            asked["priority"] = _priority("job", job)
        if "retry_policy" in given:
            asked["retry"] = self._retry("job", job)
        if "execution_timeout" in given:
            asked["execution_timeout"] = validate.duration(
                "job.execution_timeout", job.execution_timeout, 1, limits.max_delay
            )
        if "retention" in given:
            asked["retention"] = self._retention("job", job)
        if "schedule_time" in given or "expire_time" in given:
            asked["schedule_time"], expire_time = self._times("job", job)
            if expire_time is not None and expire_time <= self.now():
                raise invalid("job.expire_time", "must lie in the future")
            asked["expire_time"] = expire_time
        if "webhook" in given:
            asked["webhook_events"] = self._webhooks.events("job.webhook", job.webhook)
        return asked

    def change(self, request: job_service_pb2.UpdateJobRequest) -> Change:
        job_id = validate.job_id("job_id", request.job_id)
        limits = self.limits
        match request.WhichOneof("change"):
            case "complete":
                token = validate.token("token", request.token)
                return policy.complete(job_id, token, self._result(request.complete))
            case "fail":
                fail = request.fail
                return Fail(
                    job_id=job_id,
                    token=validate.token("token", request.token),
                    error=self._error("fail.error", fail.error),
                    permanent=fail.permanent,
                    retry_delay=(
                        validate.duration("fail.retry_delay", fail.retry_delay, 0, limits.max_delay)
                        if fail.HasField("retry_delay")
                        else None
                    ),
                )
            case "progress":
                token = validate.token("token", request.token)
                fraction, message = self._progress("progress", request.progress)
                return Report(job_id=job_id, token=token, fraction=fraction, message=message)
            case "release":
                token = validate.token("token", request.token)
                delay = validate.duration("release.delay", request.release.delay, 0, limits.max_delay)
                return Release(job_id=job_id, token=token, delay=delay)
            case "edit":
                return self._edit(job_id, request)
            case _:
                raise invalid("change", "one of complete, fail, progress, release, edit is required")

    def claim(self, request: job_service_pb2.ClaimJobRequest) -> ClaimSpec:
        limits = self.limits
        if len(request.queues) > limits.queues_per_stream:
            raise invalid("queues", f"must hold at most {limits.queues_per_stream} names")
        named = (validate.free_name(f"queues[{i}]", name) for i, name in enumerate(request.queues))
        queues = tuple(dict.fromkeys(named)) or (DEFAULT_QUEUE,)
        if request.HasField("delivery_timeout"):
            delivery_timeout = validate.duration(
                "delivery_timeout", request.delivery_timeout, 0, limits.max_delivery_timeout
            )
        else:
            delivery_timeout = 0 if request.max_jobs else DEFAULT_DELIVERY_TIMEOUT
        wait_timeout = validate.duration("wait_timeout", request.wait_timeout, 0, limits.max_delay)
        given = request.worker
        return ClaimSpec(
            worker=self._worker(given, worker_id(given.host, given.pid), session=given.session, queues=queues),
            queues=queues,
            max_in_flight=(
                validate.whole("max_in_flight", request.max_in_flight, 1, limits.max_in_flight)
                if request.HasField("max_in_flight")
                else 1
            ),
            lease_duration=(
                validate.duration("lease_duration", request.lease_duration, limits.min_lease, limits.max_lease)
                if request.HasField("lease_duration")
                else DEFAULT_LEASE
            ),
            delivery_timeout=delivery_timeout,
            max_jobs=request.max_jobs,
            wait_timeout=wait_timeout or None,
        )

    def heartbeat(self, request: worker_service_pb2.HeartbeatRequest) -> tuple[WorkerInfo, list[Renewal]]:
        if len(request.leases) > self.limits.batch:
            raise invalid("leases", f"must hold at most {self.limits.batch}")
        # Session 0 tells the store that this is a beat, not the opening of a stream.
        worker = self._worker(request.worker, "", session=0, queues=())
        renewals: dict[str, Renewal] = {}
        for i, lease in enumerate(request.leases):
            job_id = validate.job_id(f"leases[{i}].job_id", lease.job_id)
            if job_id in renewals:
                raise invalid(f"leases[{i}].job_id", "stands in the list twice")
            fraction, message = self._progress(f"leases[{i}].progress", lease.progress)
            token = validate.token(f"leases[{i}].token", lease.token)
            renewals[job_id] = Renewal(job_id=job_id, token=token, fraction=fraction, message=message)
        return worker, list(renewals.values())

    def recover(self, request: job_service_pb2.RecoverStuckJobsRequest) -> RecoverRequest:
        limits = self.limits
        return RecoverRequest(
            queues=self.names("queues", request.queues),
            stuck_for=(
                validate.duration("stuck_for", request.stuck_for, SECOND, limits.max_delay)
                if request.HasField("stuck_for")
                else None
            ),
            recovery=Recovery(
                max_interruptions=(
                    validate.whole("max_retries", request.max_retries, 0, validate.MAX_RETRIES)
                    if request.HasField("max_retries")
                    else None
                ),
                initial_delay=(
                    validate.duration("initial_delay", request.initial_delay, 0, limits.max_delay)
                    if request.HasField("initial_delay")
                    else None
                ),
            ),
            max_jobs=validate.whole("max_jobs", request.max_jobs, 0, limits.batch) or limits.batch,
            validate_only=request.validate_only,
        )

    def grace(self, request: job_service_pb2.CancelJobRequest | job_service_pb2.CancelJobsRequest) -> int:
        if not request.HasField("grace"):
            return DEFAULT_GRACE
        return validate.duration("grace", request.grace, 0, self.limits.max_delay)

    def wait_timeout(self, request: job_service_pb2.WaitJobRequest) -> int:
        if not request.HasField("timeout"):
            return DEFAULT_WAIT
        return validate.duration("timeout", request.timeout, 0, self.limits.max_wait)

    def names(self, path: str, given: Sequence[str]) -> tuple[str, ...]:
        """Names of queues or workers."""
        if len(given) > self.limits.batch:
            raise invalid(path, f"must hold at most {self.limits.batch} names")
        return tuple(validate.name(f"{path}[{i}]", name) for i, name in enumerate(given))

    def _submission(self, job: job_pb2.Job, given: Set[str]) -> bytes:
        """STORED, checked, as the fragment of a Job that is stored; all else goes from `job`."""
        if "payload" in given:
            validate.payload("job.payload", job.payload, self.limits)
        if "http" in given:
            validate.http("job.http", job.http, self.limits)
        if "labels" in given:
            validate.labels("job.labels", job.labels, self.limits)
        if "traceparent" in given:
            validate.traceparent("job.traceparent", job.traceparent)
        for field in given - STORED:
            job.ClearField(field)  # type: ignore[arg-type]  # the stubs want each name as a literal
        return job.SerializeToString(deterministic=True)

    def _times(self, path: str, job: job_pb2.Job) -> tuple[int | None, int | None]:
        """`schedule_time` and `expire_time`, of which the second must be the later."""
        schedule_time = expire_time = None
        if job.HasField("schedule_time"):
            latest = self.now() + self.limits.max_schedule
            schedule_time = validate.timestamp(f"{path}.schedule_time", job.schedule_time, latest)
        if job.HasField("expire_time"):
            latest = self.now() + self.limits.max_schedule
            expire_time = validate.timestamp(f"{path}.expire_time", job.expire_time, latest)
            if schedule_time is not None and expire_time <= schedule_time:
                raise invalid(f"{path}.expire_time", "must be later than schedule_time")
        return schedule_time, expire_time

    def _retry(self, path: str, job: job_pb2.Job) -> RetryPolicy:
        if not job.HasField("retry_policy"):
            return _DEFAULT_RETRY
        return validate.retry_policy(f"{path}.retry_policy", job.retry_policy, self.limits)

    def _retention(self, path: str, job: job_pb2.Job) -> int | None:
        if not job.HasField("retention"):
            return None
        return validate.duration(f"{path}.retention", job.retention, 0, self.limits.max_retention)

    def _result(self, complete: job_service_pb2.CompleteJob) -> bytes | None:
        if not complete.HasField("result"):
            return None
        result = validate.payload("complete.result", complete.result, self.limits)
        result.DiscardUnknownFields()
        return result.SerializeToString(deterministic=True)

    def _error(self, path: str, given: job_pb2.JobError) -> JobError:
        """Cut to size, never refused for it: a failure must not get lost. Message and details share the room; the
        message gives way down to half of it, then the details are cut from the last key on."""
        if given.worker_id:
            raise invalid(f"{path}.worker_id", "is output only: the server sets it")
        room = self.limits.error_text
        wanted = sum(len(key.encode()) + len(value.encode()) for key, value in given.details.items())
        message = validate.cut(given.message, max(room // 2, room - wanted))
        room -= len(message.encode())
        details = []
        for key, value in sorted(given.details.items()):
            kept_key = validate.cut(key, room)
            room -= len(kept_key.encode())
            kept_value = validate.cut(value, room)
            room -= len(kept_value.encode())
            if kept_key == validate.cut(key, len(key) * 4):
                details.append((kept_key, kept_value))
        return JobError(validate.cut(given.code, self.limits.text), message, tuple(details))

    def _progress(self, path: str, given: job_service_pb2.ReportProgress) -> tuple[float | None, str]:
        has_fraction = given.HasField("fraction")
        fraction = validate.real(f"{path}.fraction", given.fraction, 0.0, 1.0) if has_fraction else None
        return fraction, validate.text(f"{path}.message", given.message, self.limits.text)

    def _worker(
        self, given: worker_pb2.WorkerIdentity, fallback: str, *, session: int, queues: tuple[str, ...]
    ) -> WorkerInfo:
        limits = self.limits
        if session < 0:
            raise invalid("worker.session", "must not be negative")
        return WorkerInfo(
            id=validate.free_name("worker.id", given.id or fallback),
            session=session,
            host=validate.text("worker.host", given.host, limits.text),
            pid=given.pid,
            runtime=validate.text("worker.runtime", given.runtime, limits.text),
            version=validate.text("worker.version", given.version, limits.text),
            labels=validate.labels("worker.labels", given.labels, limits),
            queues=queues,
        )

    def _edit(self, job_id: str, request: job_service_pb2.UpdateJobRequest) -> Edit:
        job = request.edit.job
        if request.token:
            raise invalid("token", "is refused with an edit, which needs no lease")
        if job.id not in ("", job_id):
            raise invalid("edit.job.id", "is another job's than job_id")
        names = _edited(request.edit)
        job.DiscardUnknownFields()
        schedule_time, expire_time = self._times("edit.job", job)
        changes: JobChanges = {}
        if "priority" in names:
            changes["priority"] = _priority("edit.job", job)
        if "schedule_time" in names:
            changes["schedule_time"] = schedule_time
        if "expire_time" in names:
            changes["expire_time"] = expire_time
        if "retry_policy" in names:
            changes["retry"] = self._retry("edit.job", job)
        if "retention" in names:
            changes["retention"] = self._retention("edit.job", job)
        if job.HasField("payload"):
            validate.payload("edit.job.payload", job.payload, self.limits)
        validate.labels("edit.job.labels", job.labels, self.limits)
        inside = names & {"labels", "payload"}
        return Edit(
            job_id=job_id,
            changes=changes,
            rewrite=(lambda stored: _rewritten(stored, job, inside)) if inside else None,
            payload="payload" in names,
            etag=validate.etag("edit.etag", request.edit.etag),
        )


def _edited(edit: job_service_pb2.EditJob) -> frozenset[str]:
    """The fields to write. Whatever is set must be meant: nothing that was sent is passed over in silence."""
    given = {field.name for field, _ in edit.job.ListFields()} - {"id"}
    for name in sorted(given.difference(EDITABLE)):
        raise invalid(f"edit.job.{name}", "cannot be edited")
    masked = frozenset(edit.update_mask.paths)
    if not masked.issubset(EDITABLE):
        raise invalid("edit.update_mask", f"may name {', '.join(EDITABLE)}, each as a whole, and nothing else")
    if not masked and not given:
        raise invalid("edit.update_mask", "there is nothing to change: it is empty, and so is job")
    for name in sorted(given - masked if masked else ()):
        raise invalid(f"edit.job.{name}", "is set, but not named in update_mask")
    return masked or frozenset(given)


def _digest(job: job_pb2.Job) -> bytes:
    """What makes two creates the same. Who repeats one may do so in another trace."""
    traceparent = job.traceparent
    if traceparent:
        job.ClearField("traceparent")
    digest = hashlib.sha256(job.SerializeToString(deterministic=True)).digest()
    if traceparent:
        job.traceparent = traceparent
    return digest


def _rewritten(stored: bytes, job: job_pb2.Job, names: frozenset[str]) -> bytes:
    """A stored submission with the payload or the labels of `job` in place of its own."""
    fragment = job_pb2.Job.FromString(stored)
    if "labels" in names:
        fragment.labels.clear()
        fragment.labels.update(job.labels)
    if "payload" in names:
        fragment.ClearField("payload")
        if job.HasField("payload"):
            fragment.payload.CopyFrom(job.payload)
    return fragment.SerializeToString(deterministic=True)


def _priority(path: str, job: job_pb2.Job) -> int:
    if not job.HasField("priority"):
        return DEFAULT_PRIORITY
    return validate.whole(f"{path}.priority", job.priority, MIN_PRIORITY, MAX_PRIORITY)
