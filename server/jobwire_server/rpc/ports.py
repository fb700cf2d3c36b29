"""The port to listen on: asked for before gRPC tries it, and held for processes that share it. Imports no gRPC."""

from __future__ import annotations

import errno
import socket


class CannotListen(Exception):
    """The address is taken, or not one of this machine."""


def check_free(address: str, *, setting: str = "--listen") -> None:
    """Raises CannotListen. Asks the kernel first: grpc says why in a line for C programmers, and not to us."""
    # As grpc does: a port that only lingers from a server that has just ended is free.
    bind(address, socket.SO_REUSEADDR, setting=setting).close()


def hold(address: str, *, setting: str = "--listen") -> tuple[socket.socket, str]:
    """Takes the port for processes that share it, and for nobody else as long as the socket is open.

    Answers the address with the port that was taken. It does not listen, so it is given no connection. CannotListen.
    """
    check_free(address, setting=setting)  # sharing would let us in beside any other server that shares
    held = bind(address, socket.SO_REUSEPORT, setting=setting)
    host, _, _ = address.rpartition(":")
    return held, f"{host}:{held.getsockname()[1]}"


def bind(address: str, option: int, *, setting: str) -> socket.socket:
    """A socket at the address, with an option of its own. CannotListen, which names the setting that would help."""
    host, _, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    try:
        [(family, kind, protocol, _, where), *_] = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)
        bound = socket.socket(family, kind, protocol)
        try:
            bound.setsockopt(socket.SOL_SOCKET, option, 1)
            bound.bind(where)
        except BaseException:
            bound.close()
            raise
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise CannotListen(
                f"{address} is in use by another process; {setting} {host}:0 takes a free port"
            ) from error
        raise CannotListen(f"cannot listen on {address}: {error.strerror or error}") from error
    return bound
