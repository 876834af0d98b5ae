"""Plain streams: TCP and Unix sockets, listening and connecting."""

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

from rsocket_broker.transports.base import Channel, Receiver
from rsocket_broker.transports.binding import BACKLOG, Options, bind_tcp, bind_unix
from rsocket_broker.transports.listener import MAX_CONNECTIONS, Listener
from rsocket_broker.transports.sockets import SocketTransport

CONNECT_TIMEOUT = 10.0
"""Seconds for a TCP connection to come about: three tries of the kernel on a line that loses packets."""


async def listen_tcp(
    host: str,
    port: int,
    receiver_factory: Callable[[], Receiver],
    *,
    backlog: int = BACKLOG,
    max_connections: int = MAX_CONNECTIONS,
    displace: bool = False,
    options: Options | None = None,
) -> Listener:
    """Accepts TCP connections on one port number at every address of `host`; see `bind_tcp` for hosts and errors.

    `receiver_factory` is called once for each connection accepted; over `max_connections` they are closed at once, or
    with `displace` take the place of the oldest.
    """

    def bind(number: int) -> Awaitable[list[socket.socket]]:
        return bind_tcp(host, number, backlog, options)

    sockets = await bind(port)
    listener = Listener(sockets, Channel.TCP, receiver_factory, cap=max_connections, displace=displace, rebind=bind)
    listener.start()
    return listener


async def listen_unix(
    path: Path,
    receiver_factory: Callable[[], Receiver],
    *,
    backlog: int = BACKLOG,
    max_connections: int = MAX_CONNECTIONS,
) -> Listener:
    """Accepts connections of this user's processes at `path` (mode 0600), which is removed on close.

    Raises ConfigurationError when the path is in use, is something else, or is too long for a socket.
    """
    bound = bind_unix(path, backlog)
    listener = Listener([bound], Channel.UNIX, receiver_factory, cap=max_connections)
    listener.on_close(_remover(path))
    listener.start()
    return listener


async def connect_tcp(host: str, port: int, receiver: Receiver, *, timeout: float = CONNECT_TIMEOUT) -> SocketTransport:
    """A connection; `receiver` has had `transport_ready` when it returns. Raises OSError (TimeoutError is one)."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(timeout):
        _, transport = await loop.create_connection(lambda: SocketTransport(receiver, Channel.TCP), host, port)
    return transport


async def connect_unix(path: Path, receiver: Receiver) -> SocketTransport:
    """A connection to the socket at `path`. Raises OSError."""
    loop = asyncio.get_running_loop()
    _, transport = await loop.create_unix_connection(lambda: SocketTransport(receiver, Channel.UNIX), str(path))
    return transport


def _remover(path: Path) -> Callable[[], None]:
    """Removes the socket that stands at `path` now, and not one that another process has put there since."""
    made = path.lstat().st_ino

    def remove() -> None:
        with contextlib.suppress(FileNotFoundError):
            if path.lstat().st_ino == made:
                path.unlink()

    return remove
