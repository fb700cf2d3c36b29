"""A receiver of webhooks: a server of HTTP in a thread, which keeps what it was sent and answers what it is told to."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

PATIENCE: Final = 30.0


@dataclass(frozen=True, slots=True)
class Received:
    """One POST."""

    path: str
    headers: dict[str, str]
    """By their names in lower case."""
    body: bytes
    at: float
    """Of `time.monotonic`."""

    @property
    def job(self) -> Any:
        return json.loads(self.body)


class Receiver:
    """`answer` decides what each POST is told: a status, perhaps after a while."""

    def __init__(self, port: int = 0) -> None:
        self.received: list[Received] = []
        self.answer: Callable[[Received], int] = lambda _: 204
        self.location = ""
        """Told with every answer."""
        self._changed = threading.Condition()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                received = Received(self.path, headers, body, time.monotonic())
                with receiver._changed:
                    receiver.received.append(received)
                    receiver._changed.notify_all()
                self.send_response(receiver.answer(received))
                if receiver.location:
                    self.send_header("location", receiver.location)
                self.send_header("content-length", "0")
                self.end_headers()

            def do_GET(self) -> None:
                raise AssertionError("a webhook is a POST")

            def log_message(self, *_: object) -> None:
                """Says nothing."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128  # of 5, the default, SYNs are dropped and sent again a second later

            def handle_error(self, request: object, client_address: object) -> None:
                """Whoever was posting has gone away."""

        self._server = Server(("127.0.0.1", port), Handler)
        self.port: Final[int] = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    def until(self, number: int) -> list[Received]:
        """So many were received; blocks, so call it in a thread."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.received) >= number, PATIENCE), self.received
            return list(self.received)

    def close(self) -> None:
        """Nobody listens there from now on."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextmanager
def receiving(port: int = 0) -> Iterator[Receiver]:
    receiver = Receiver(port)
    try:
        yield receiver
    finally:
        receiver.close()
