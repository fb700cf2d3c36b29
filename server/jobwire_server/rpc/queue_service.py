"""`jobwire.v1.QueueService`: nothing of it is built yet; queues make themselves with their first job."""

from __future__ import annotations

from typing import ClassVar


class QueueServicer:
    """One coroutine an RPC; what is missing is not built."""

    SERVICE: ClassVar[str] = "jobwire.v1.QueueService"
