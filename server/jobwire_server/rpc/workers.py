"""Workers on the wire, both ways."""

from __future__ import annotations

from typing import Final

from jobwire.v1 import worker_pb2, worker_service_pb2
from jobwire_server.domain.errors import invalid
from jobwire_server.domain.limits import NAME
from jobwire_server.domain.worker import Directive, WorkerRecord, WorkerState
from jobwire_server.rpc import page_token
from jobwire_server.rpc.answers import set_time

DIRECTIVES: Final = {
    directive: worker_pb2.WorkerDirective.Value(f"WORKER_DIRECTIVE_{directive.name}") for directive in Directive
}
_DIRECTIVES: Final = {value: directive for directive, value in DIRECTIVES.items()}
_STATES: Final = {state: worker_pb2.WorkerState.Value(f"WORKER_STATE_{state.name}") for state in WorkerState}
_STATES_ASKED: Final = {value: state for state, value in _STATES.items()}
_LISTING: Final = b"jobwire.v1.ListWorkersRequest"


def worker_message(record: WorkerRecord, state: WorkerState) -> worker_pb2.Worker:
    info = record.info
    message = worker_pb2.Worker(
        identity=worker_pb2.WorkerIdentity(
            id=info.id,
            session=info.session,
            labels=dict(info.labels),
            host=info.host,
            pid=info.pid,
            runtime=info.runtime,
            version=info.version,
        ),
        state=_STATES[state],
        queues=info.queues,
        max_in_flight=info.max_in_flight,
        held_count=record.held,
        held_job_ids=record.held_job_ids,
        directive=DIRECTIVES[record.directive],
    )
    set_time(message.beat_time, record.last_beat)
    set_time(message.register_time, record.register_time)
    return message


def directive_of(request: worker_service_pb2.DrainWorkerRequest) -> Directive:
    if not request.directive:
        return Directive.QUIET
    if request.directive not in _DIRECTIVES:
        raise invalid("directive", "must be QUIET, TERMINATE or NONE")
    return _DIRECTIVES[request.directive]


def worker_states(request: worker_service_pb2.ListWorkersRequest) -> frozenset[WorkerState]:
    """Those that are asked for; none = all."""
    for i, state in enumerate(request.states):
        if state not in _STATES_ASKED:
            raise invalid(f"states[{i}]", "must be IDLE, BUSY, QUIET or LOST")
    return frozenset(_STATES_ASKED[state] for state in request.states)


def workers_start(request: worker_service_pb2.ListWorkersRequest) -> str:
    """The id behind which this page begins."""
    if not request.page_token:
        return ""
    match page_token.unseal("page_token", request.page_token, _listing(request)):
        case [str(worker_id)] if NAME.fullmatch(worker_id):
            return worker_id
    raise page_token.refused("page_token")


def workers_token(request: worker_service_pb2.ListWorkersRequest, last: str) -> str:
    return page_token.seal(_listing(request), [last])


def _listing(request: worker_service_pb2.ListWorkersRequest) -> bytes:
    return _LISTING + bytes(sorted(set(request.states)))
