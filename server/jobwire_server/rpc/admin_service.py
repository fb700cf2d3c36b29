"""`jobwire.v1.AdminService`: what this server is, and how its work goes."""

from __future__ import annotations

import time
import uuid
from importlib.metadata import PackageNotFoundError, version
from typing import ClassVar, Final, Protocol

from jobwire.v1 import admin_service_pb2
from jobwire_server.domain.limits import KIB, Limits
from jobwire_server.rpc.answers import set_duration, set_time
from jobwire_server.rpc.interceptors import Context, written
from jobwire_server.rpc.queues import state_counts
from jobwire_server.rpc.stats import interval_asked, queues_asked, stats_message
from jobwire_server.service.backups import BackupService
from jobwire_server.service.load import Load, look
from jobwire_server.service.stats import StatsService
from jobwire_server.store.base import StoreUnavailable
from jobwire_server.store.copying import Copied
from jobwire_server.store.info import StoreInfo

_BESIDE_BODIES: Final = 1536 * KIB
"""What the limits of a job's parts other than payload and result add up to at most, the highest that can be set."""

_UNREADABLE_NAMED: Final = 100
_UNREADABLE_LENGTH: Final = 500
"""Characters of what is said of each."""

_KINDS: Final = {
    "sqlite": admin_service_pb2.STORE_KIND_SQLITE,
    "memory": admin_service_pb2.STORE_KIND_MEMORY,
    "redis": admin_service_pb2.STORE_KIND_REDIS,
}
_DURABILITIES: Final = {
    "none": admin_service_pb2.DURABILITY_VOLATILE,
    "everysec": admin_service_pb2.DURABILITY_EVERYSEC,
    "fsynced": admin_service_pb2.DURABILITY_SYNCED,
    "replicated": admin_service_pb2.DURABILITY_REPLICATED,
}


class StoreFacts(Protocol):
    """The part of a store that can be asked about the store itself."""

    async def ping(self) -> None: ...

    async def info(self) -> StoreInfo: ...


class AdminServicer:
    """One coroutine an RPC."""

    SERVICE: ClassVar[str] = "jobwire.v1.AdminService"

    def __init__(
        self, store: StoreFacts, stats: StatsService, backups: BackupService, load: Load, limits: Limits
    ) -> None:
        self._store = store
        self._stats = stats
        self._backups = backups
        self._load = load
        self._limits = limits
        self._instance_id = str(uuid.uuid4())
        self._start_time = _now()
        self._last: StoreInfo | None = None

    async def get_stats(
        self, request: admin_service_pb2.GetStatsRequest, _: Context
    ) -> admin_service_pb2.GetStatsResponse:
        stats = await self._stats.read(queues_asked(request, self._limits), minutes=request.minutes)
        return admin_service_pb2.GetStatsResponse(stats=stats_message(stats))

    async def watch_stats(self, request: admin_service_pb2.WatchStatsRequest, context: Context) -> None:
        watch = await self._stats.open(queues_asked(request, self._limits), interval=interval_asked(request))
        try:
            await written(context.send_initial_metadata(()))
            while True:
                message = admin_service_pb2.WatchStatsResponse(stats=stats_message(await watch.next()))
                await written(context.write(message.SerializeToString()))
        finally:
            watch.close()

    async def get_server_info(
        self, _: admin_service_pb2.GetServerInfoRequest, __: Context
    ) -> admin_service_pb2.GetServerInfoResponse:
        """Answers without the store, too: with what was known of it, and `connected` false."""
        answer = admin_service_pb2.GetServerInfoResponse(
            version=_version(),
            instance_id=self._instance_id,
            limits=_limits_message(self._limits),
            load=self._load.share(look()),
        )
        set_time(answer.start_time, self._start_time)
        try:
            begin = time.perf_counter_ns()
            await self._store.ping()
            round_trip = (time.perf_counter_ns() - begin) // 1000
            self._last = info = await self._store.info()
        except StoreUnavailable:
            set_time(answer.server_time, _now())
            if self._last is not None:
                _describe(answer.store, self._last)
            answer.store.connected = False
        else:
            set_time(answer.server_time, info.now)
            _describe(answer.store, info)
            answer.store.connected = True
            set_duration(answer.store.round_trip, round_trip)
        return answer

    async def backup(self, _: admin_service_pb2.BackupRequest, context: Context) -> None:
        backup = await self._backups.open()
        try:
            await written(context.send_initial_metadata(()))
            size = 0
            while piece := await backup.read():
                size += len(piece)
                await written(context.write(admin_service_pb2.BackupResponse(data=piece).SerializeToString()))
            contents = _contents_message(await backup.contents(), size)
            await written(context.write(admin_service_pb2.BackupResponse(contents=contents).SerializeToString()))
        finally:
            backup.close()


def _describe(message: admin_service_pb2.StoreInfo, info: StoreInfo) -> None:
    engine, _, engine_version = info.engine.partition(" ")
    message.kind = _KINDS.get(info.kind, admin_service_pb2.STORE_KIND_UNSPECIFIED)
    message.engine = engine.lower()
    message.engine_version = engine_version
    message.url = info.url
    message.schema_version = info.schema_version
    message.used_bytes = info.used_bytes
    message.client_count = info.client_count
    message.operations_per_second = info.operations_per_second
    message.durability = _DURABILITIES.get(info.durability, admin_service_pb2.DURABILITY_UNSPECIFIED)


def _contents_message(copied: Copied, size: int) -> admin_service_pb2.BackupContents:
    return admin_service_pb2.BackupContents(
        size_bytes=size,
        counts=state_counts(copied.counted.states),
        queue_count=copied.counted.queues,
        worker_count=copied.counted.workers,
        request_id_count=copied.requests,
        unreadable_count=copied.unreadable_count,
        unreadable=[text[:_UNREADABLE_LENGTH] for text in copied.unreadable[:_UNREADABLE_NAMED]],
    )


def _limits_message(limits: Limits) -> admin_service_pb2.ServerLimits:
    return admin_service_pb2.ServerLimits(
        max_receive_bytes=limits.receive,
        max_send_bytes=limits.send,
        max_job_bytes=2 * limits.payload + _BESIDE_BODIES,
        max_payload_bytes=limits.payload,
        max_result_bytes=limits.payload,
        max_http_bytes=limits.headers,
        max_error_bytes=limits.error_text,
        max_labels=limits.labels,
        max_label_bytes=limits.label_size,
        max_batch_items=limits.batch,
        max_page_size=limits.batch,
        max_in_flight=limits.max_in_flight,
        max_streams_per_principal=limits.streams_per_principal,
        max_concurrent_calls=limits.calls_in_flight,
    )


def _version() -> str:
    try:
        return version("jobwire")
    except PackageNotFoundError:  # run from a checkout that was never installed
        return "unknown"


def _now() -> int:
    return time.time_ns() // 1000
