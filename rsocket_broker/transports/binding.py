"""Listening sockets: which addresses a host name stands for, one port number for all of them, and who is in the way."""

import asyncio
import contextlib
import errno
import os
import socket
import stat
from pathlib import Path

import attrs

from rsocket_broker.errors import ConfigurationError
from rsocket_broker.transports.port_holder import port_holder

LOCALHOST = "localhost"
BACKLOG = 4096
"""Connections that the kernel may complete before we accept them: Android's SDK gives up on a connect after 30 ms, and
after a restart everybody comes at once. Linux takes no more than this (`somaxconn`) unless told to."""
SAME_PORT_ATTEMPTS = 64
"""With port 0, how often to draw until the number is free on both loopback addresses; the first nearly always is."""

_LOOPBACK = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))
_NO_SUCH_FAMILY = {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT}
_PRIVATE = 0o600


@attrs.frozen(slots=True)
class Options:
    """What the operator calls the settings of one listener, for error messages that say what to change."""

    host: str = "--host"
    port: str = "--port"


async def bind_tcp(host: str, port: int, backlog: int = BACKLOG, options: Options | None = None) -> list[socket.socket]:
    """Sockets that listen on one port number at every address of `host`; port 0 draws a free number.

    `localhost` means 127.0.0.1 and ::1 whatever the resolver says, ::1 being left out where there is no IPv6.
    Raises ConfigurationError when the port is taken (naming the holder if it can be seen), forbidden, or the host
    is no address of this machine.
    """
    options = options or Options()
    addresses = await _addresses(host, options)
    for attempt in range(1, SAME_PORT_ATTEMPTS + 1):
        try:
            return _bind_all(addresses, port, backlog, optional_ipv6=host == LOCALHOST)
        except OSError as error:
            if port or error.errno != errno.EADDRINUSE or attempt == SAME_PORT_ATTEMPTS:
                raise _explained(error, host, port, options) from error
    raise AssertionError("the last attempt returns or raises")


def bind_unix(path: Path, backlog: int = BACKLOG) -> socket.socket:
    """A Unix socket that listens at `path`, for this user only; a dead socket left by a crash is replaced.

    Raises ConfigurationError when the path is too long, is something else, or another process listens there.
    """
    _remove_dead_socket(path)
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        # On Linux the file takes its mode from the socket, so that it is never open to others, not even for a moment.
        # Elsewhere a socket has no mode of its own, and the folder around it has to do for that moment.
        with contextlib.suppress(OSError):
            os.fchmod(bound.fileno(), _PRIVATE)
        bound.bind(os.fspath(path))
        path.chmod(_PRIVATE)
        bound.listen(backlog)
    except OSError as error:
        bound.close()
        raise ConfigurationError(f"Cannot listen at {path}: {error.strerror or error}.") from error
    return bound


async def _addresses(host: str, options: Options) -> list[tuple[socket.AddressFamily, str]]:
    if host == LOCALHOST:
        return list(_LOOPBACK)
    if not host:
        raise ConfigurationError(f"{options.host} is empty. Use 0.0.0.0 or :: to listen on every address.")
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise ConfigurationError(
            f"{options.host} {host}: no such host. Give a name or address of this machine."
        ) from error
    return list(dict.fromkeys((family, str(address[0])) for family, _, _, _, address in found))


def _bind_all(
    addresses: list[tuple[socket.AddressFamily, str]], port: int, backlog: int, *, optional_ipv6: bool
) -> list[socket.socket]:
    bound: list[socket.socket] = []
    with contextlib.ExitStack() as undo:
        for family, address in addresses:
            try:
                opened = _bind_one(family, address, port, backlog)
            except OSError as error:
                if optional_ipv6 and family == socket.AF_INET6 and error.errno in _NO_SUCH_FAMILY:
                    continue
                raise
            undo.callback(opened.close)
            bound.append(opened)
            port = opened.getsockname()[1]
        undo.pop_all()
    return bound


def _bind_one(family: socket.AddressFamily, address: str, port: int, backlog: int) -> socket.socket:
    # The protocol is named because asyncio turns Nagle's delay off only on sockets whose protocol says TCP.
    opened = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        opened.setblocking(False)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        opened.bind((address, port))
        opened.listen(backlog)
    except OSError:
        opened.close()
        raise
    return opened


def _explained(error: OSError, host: str, port: int, options: Options) -> ConfigurationError:
    if error.errno == errno.EADDRINUSE:
        holder = port_holder(port)
        by = f"by {holder}" if holder else "by another process"
        return ConfigurationError(
            f"Port {port} on {host} is taken {by}. Free it, or choose another with {options.port}."
        )
    if error.errno == errno.EACCES:
        return ConfigurationError(
            f"Port {port} needs privileges that we lack. Choose one above 1023 with {options.port}."
        )
    if error.errno in _NO_SUCH_FAMILY:
        return ConfigurationError(f"{host} is not an address of this machine. Choose another with {options.host}.")
    return ConfigurationError(f"Cannot listen on {host} port {port}: {error.strerror or error}.")


def _remove_dead_socket(path: Path) -> None:
    try:
        status = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(status.st_mode):
        raise ConfigurationError(f"{path} is in the way and is not a socket. Move it.")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except FileNotFoundError:
            return
        except OSError:
            pass
    raise ConfigurationError(f"Another process listens at {path}. Stop it first.")
