"""The one place where everything is put together: store, services, wire; and started and stopped in that order."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from jobwire_server.config import Config, ConfigError, is_loopback
from jobwire_server.files import read_files
from jobwire_server.rpc.access import Access
from jobwire_server.rpc.admin_service import AdminServicer
from jobwire_server.rpc.convert import Reader
from jobwire_server.rpc.job_service import JobServicer
from jobwire_server.rpc.queue_service import QueueServicer
from jobwire_server.rpc.server import Server
from jobwire_server.rpc.webhooks import WebhookReader, read_word, word_submission
from jobwire_server.rpc.worker_service import WorkerServicer
from jobwire_server.service.admission import Streams
from jobwire_server.service.backups import BackupService
from jobwire_server.service.by_filter import JobsByFilter
from jobwire_server.service.claims import ClaimService
from jobwire_server.service.jobs import JobService
from jobwire_server.service.listings import Listings
from jobwire_server.service.load import Load
from jobwire_server.service.maintenance import Maintenance
from jobwire_server.service.queues import QueueService
from jobwire_server.service.receivers import Receivers
from jobwire_server.service.stats import StatsService
from jobwire_server.service.watches import WatchService
from jobwire_server.service.webhooks import Webhooks
from jobwire_server.service.words import words
from jobwire_server.service.workers import WorkerService
from jobwire_server.store.base import CannotOpen
from jobwire_server.store.copying import Copied, Source, Target, copy
from jobwire_server.store.examination import Inspection, Progress, Repair
from jobwire_server.store.measured import measured, step_timer
from jobwire_server.store.redis.inspection import RedisInspection
from jobwire_server.store.redis.repair import RedisRepair
from jobwire_server.store.redis.source import RedisSource
from jobwire_server.store.redis.store import RedisStore
from jobwire_server.store.redis.target import RedisTarget
from jobwire_server.store.redis.topology import SCHEMES
from jobwire_server.store.sqlite import backup as sqlite_backup
from jobwire_server.store.sqlite.inspection import SqliteInspection
from jobwire_server.store.sqlite.repair import SqliteRepair
from jobwire_server.store.sqlite.source import SqliteSource
from jobwire_server.store.sqlite.store import SqliteStore
from jobwire_server.store.sqlite.target import SqliteTarget
from jobwire_server.store.whole_file import whole_file
from jobwire_server.telemetry.metrics import Registry
from jobwire_server.telemetry.traces import Traces

if TYPE_CHECKING:
    from jobwire_server.web.server import WebServer

log = logging.getLogger("jobwire")

FromFile = TypeVar("FromFile")
FromRedis = TypeVar("FromRedis")

_COUNTED = 1001
_MORE_THAN_A_FILE = "on Redis or Valkey several processes share the work, as docs/operations.md says"
_MORE_PROCESSES = "start more of them on the same store, or give this one a higher --processes"
_STORES = (
    "sqlite:///FILE (four slashes for an absolute path), redis://HOST:PORT, redis+sentinel://HOST:PORT,…/SERVICE,"
    " redis+cluster://HOST:PORT,…, the same with rediss, and memory://"
)


class App:
    """One server: `start`, and `stop` in any case."""

    def __init__(self, config: Config, metrics: Registry | None = None, traces: Traces | None = None) -> None:
        """`metrics` where they are shared with other processes."""
        metrics = metrics or Registry()
        self._config = config
        self._store = open_store(config.store)
        self._store.timed = step_timer(self._store.steps, metrics)
        self.store = store = measured(self._store, metrics)
        receivers = Receivers(config.webhook_networks)
        files = read_files(config)
        secrets = files.secrets
        certificates = files.certificates
        access = Access(files.principals) if config.has_login else None
        bring = words(word_submission)
        self._maintenance = Maintenance(store, bring=bring)
        streams = Streams(config.limits, metrics)
        self._claims = ClaimService(
            store, streams=streams, expired_seen=self._maintenance.ring, bring=bring, metrics=metrics
        )
        self._watches = WatchService(store, streams=streams)
        self._stats = StatsService(store, streams=streams)
        self._backups = _backups_of(config.store, self._store, streams)
        self._load = Load(metrics, advice=_MORE_PROCESSES if isinstance(self._store, RedisStore) else _MORE_THAN_A_FILE)
        jobs = JobService(store, acknowledged=self._claims.acknowledged, bring=bring, metrics=metrics)
        by_filter = JobsByFilter(store, bring=bring)
        self._webhooks = Webhooks(store, jobs, read=read_word, secrets=secrets, receivers=receivers)
        workers = WorkerService(store, acknowledged=self._claims.acknowledged, metrics=metrics)
        reader = Reader(config.limits, now=lambda: time.time_ns() // 1000, webhooks=WebhookReader(secrets, receivers))
        self._server = Server(
            [
                JobServicer(
                    jobs,
                    Listings(store),
                    by_filter,
                    self._claims,
                    self._watches,
                    reader,
                    traceparent=None if traces is None else traces.traceparent,
                ),
                WorkerServicer(workers, reader),
                QueueServicer(QueueService(store), by_filter, config.limits),
                AdminServicer(store, self._stats, self._backups, self._load, config.limits),
            ],
            limits=config.limits,
            reflection=config.serves_reflection,
            shares_port=config.processes > 1,
            access=access,
            certificates=certificates,
            metrics=metrics,
            traces=traces,
        )
        self._traces = traces
        self._web: WebServer | None = None
        if config.http_address is not None:
            from jobwire_server.web.server import WebServer  # 60 ms and 4 MB that nobody needs without HTTP

            self._web = WebServer(
                self._server.methods,
                self._server.gate,
                store,
                self._stats,
                metrics,
                limits=config.limits,
                only_loopback=is_loopback(config.http_address),
                shares_port=config.processes > 1,
                access=access,
                certificates=certificates,
            )
        self.address = ""
        """Where gRPC is served, with the port that was taken; empty until then."""
        self.http_address: str | None = None
        """Where HTTP is served, with the port that was taken; None = nowhere, or not yet."""
        self._background: list[asyncio.Task[None]] = []

    @property
    def failure(self) -> str:
        """Why the store can go on no longer; empty while it can."""
        return self._store.failure

    async def start(self) -> str:
        """Serves when it returns; answers the address with the port that was taken."""
        await self._store.open()
        try:
            await self._tell_what_was_left()
            port = await self._server.start(self._config.listen)
            if self._web is not None and self._config.http_address is not None:
                http_port = await self._web.start(self._config.http_address)
                self.http_address = _with_port(self._config.http_address, http_port)
        except BaseException:
            await self._server.stop(0)
            await self._store.close()
            raise
        self._background = [
            asyncio.create_task(part.run())
            for part in (self._claims, self._watches, self._maintenance, self._webhooks, self._load)
        ]
        self.address = _with_port(self._config.listen, port)
        return self.address

    async def _tell_what_was_left(self) -> None:
        held = len((await self._store.leased(longer_than=0, limit=_COUNTED)).jobs)
        if held:
            number = f"{held - 1}+" if held == _COUNTED else str(held)
            log.info("%s jobs are with workers; each has its lease time to be heard before it is taken back", number)

    async def stop(self) -> None:
        """Drains: no new streams, the open ones are told and given a moment, calls under way are finished. All of it
        within `drain_timeout`; then what is left is cut off."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._config.drain_timeout
        await self._server.begin_drain()
        if self._web is not None:
            self._web.begin_drain()
        try:
            async with asyncio.timeout_at(deadline):
                parts = (self._claims, self._watches, self._stats, self._backups, self._webhooks)
                await asyncio.gather(*(part.drain() for part in parts))
        except TimeoutError:
            log.warning("some streams did not end within %g s: cut off", self._config.drain_timeout)
        await self._server.stop(max(deadline - loop.time(), 0))
        if self._web is not None:
            await self._web.stop(max(deadline - loop.time(), 0))
        await self._claims.finish()
        await self._backups.drain()  # of one that was cut off, too, no file may stay
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        await self._webhooks.finish()
        await self._store.close()
        if self._traces is not None:
            await asyncio.to_thread(self._traces.end)

    async def broken(self) -> None:
        """Returns when this server can go on no longer: its store or one of its own tasks has failed."""
        failed = asyncio.create_task(self._store.failed.wait())
        try:
            await asyncio.wait([failed, *self._background], return_when=asyncio.FIRST_COMPLETED)
        finally:
            failed.cancel()
        for task in self._background:
            if task.done() and not task.cancelled():
                log.critical("a part of the server has ended by itself", exc_info=task.exception())


def _with_port(address: str, port: int) -> str:
    host, _, _ = address.rpartition(":")
    return f"{host}:{port}"


def open_store(url: str) -> SqliteStore | RedisStore:
    """The store a URL names, not opened yet. Raises ConfigError."""
    return _named(url, SqliteStore, RedisStore)


def inspection_of(url: str) -> Inspection:
    """What reads the store a URL names as it stands, at work or not. Raises ConfigError."""
    return _named(url, lambda path: SqliteInspection(_seen_from_outside(path)), RedisInspection)


def repair_of(url: str) -> Repair:
    """What mends the store a URL names, as far as that is safe. Raises ConfigError."""
    return _named(url, lambda path: SqliteRepair(_seen_from_outside(path)), RedisRepair)


def _seen_from_outside(path: str | None) -> str:
    if path is None:
        raise ConfigError("--store: what memory:// keeps is seen by its own server only")
    return path


def source_of(url: str, *, at_rest: bool) -> Source:
    """What a whole store is copied from: `at_rest` = nobody may be at work on it meanwhile. Raises ConfigError."""
    return _named(
        url,
        lambda path: SqliteSource(_in_a_file(path), at_rest=at_rest),
        lambda url: RedisSource(url, at_rest=at_rest),
    )


def target_of(url: str) -> Target:
    """What a whole store is copied into. Raises ConfigError."""
    return _named(url, lambda path: SqliteTarget(_in_a_file(path)), RedisTarget)


def back_up(url: str, file: Path, progress: Progress) -> Copied:
    """Makes the file a store that holds what is in this one now, whoever is at work on it. Raises ConfigError,
    CannotOpen and StoreUnavailable."""
    make = _backup_of(url)
    with whole_file(file.resolve()) as part:
        return make(part, progress)


def _backup_of(url: str) -> Callable[[Path, Progress], Copied]:
    """What makes an empty file a backup of the store. Raises ConfigError."""

    def of_file(path: str | None) -> Callable[[Path, Progress], Copied]:
        return partial(sqlite_backup.back_up, Path(_in_a_file(path)).resolve())

    def of_redis(url: str) -> Callable[[Path, Progress], Copied]:
        source = RedisSource(url, at_rest=False)
        return lambda file, progress: copy(source, SqliteTarget(str(file)), progress).checked()

    return _named(url, of_file, of_redis)


def _backups_of(url: str, store: SqliteStore | RedisStore, streams: Streams) -> BackupService:
    """Those that the server of this store makes."""
    if isinstance(store, SqliteStore):
        return BackupService(store.back_up, streams=streams, folder=store.folder)
    make = _backup_of(url)
    return BackupService(lambda file, progress: asyncio.to_thread(make, file, progress), streams=streams)


def contents_of(file: Path) -> Copied:
    """What a backup holds. Raises CannotOpen when it is none, or not all of one."""
    return sqlite_backup.contents(file)


def backup_in(file: Path) -> tuple[Inspection, Source]:
    """What reads a backup: to judge it, and to copy it. Nothing is written beside it."""
    return SqliteInspection(str(file)), SqliteSource(str(file), at_rest=False)


def _in_a_file(path: str | None) -> str:
    if path is None:
        raise ConfigError("memory:// lives within its own server only: `jobwire backup` can ask it by --address")
    return path


def _named(
    url: str, in_file: Callable[[str | None], FromFile], in_redis: Callable[[str], FromRedis]
) -> FromFile | FromRedis:
    """One of these, made of where the URL points: a path, None for memory, or the URL itself. Raises ConfigError."""
    scheme, separator, rest = url.partition("://")
    match scheme:
        case "memory" if rest in ("", "/"):
            return in_file(None)
        case "sqlite" if separator and len(rest) > 1:
            # sqlite:///jobs.db is a file of this folder, sqlite:////data/jobs.db one of the root: as SQLAlchemy has it.
            # Whatever else a URL may carry would be dropped or read as part of the name: refused instead.
            path = rest.removeprefix("/")
            if rest.startswith("/") and not path.endswith("/") and path != ":memory:" and not set(path) & set("?#%"):
                return in_file(path)
            raise ConfigError(
                "--store: a sqlite URL is sqlite:///FILE, four slashes for an absolute path, and nothing more:"
                " no options, none of ?, # and % in the name; memory:// keeps nothing"
            )
        case "auto" if not separator:
            raise ConfigError("--store: `jobwire serve` alone decides what auto is, and says so; name the store here")
        case _ if scheme in SCHEMES:
            try:
                return in_redis(url)
            except CannotOpen as error:
                raise ConfigError(f"--store: {error}") from error
    # Not the URL itself: it may carry a password.
    what = f"{scheme} is no store of jobwire's" if separator else "that is no URL"
    raise ConfigError(f"--store: {what}; there are {_STORES}")
