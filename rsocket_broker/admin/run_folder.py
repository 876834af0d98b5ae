"""HOME/run: what a running broker leaves for others on this machine to find, and takes away when it stops.

lock          held (flock) for as long as the broker lives; holds its pid for messages
ports.json    written when every listener accepts: what listens where, and where the admin line is
admin.sock    the admin line, a Unix socket; or, where that cannot be,
admin.token   the secret for an admin line over loopback TCP
"""

import contextlib
import fcntl
import os
import secrets
import socket
import time
from pathlib import Path

import attrs

from rsocket_broker import jsontext
from rsocket_broker.errors import HomeError
from rsocket_broker.files import ensure_private_directory, read_private, remove_leftovers, write_private

SOCKET_PATH_LIMIT = 107
"""Bytes of a Unix socket's path: `sockaddr_un` holds 108, the last of which is NUL."""
TOKEN_BYTES = 32
LOCK_PATIENCE_S = 0.25
"""A command that asks who holds the lock (`holder`) holds it itself for an instant; a broker outlasts this."""


@attrs.frozen(slots=True, kw_only=True)
class Ports:
    """The content of ports.json. A port is None while its listener is closed.

    `started` is in seconds since the epoch; `admin` is the path of a Unix socket or `127.0.0.1:PORT`.
    """

    pid: int
    started: float
    host: str
    admin: str
    insecure_port: int | None = None
    secure_port: int | None = None
    http_port: int | None = None
    ws_insecure_port: int | None = None
    ws_secure_port: int | None = None
    browser_port: int | None = None

    def to_json(self) -> bytes:
        return jsontext.dump({name: getattr(self, name) for name in _ORDER}) + b"\n"

    @classmethod
    def from_json(cls, data: bytes) -> "Ports":
        """Raises ValueError for anything but what `to_json` writes."""
        value = jsontext.parse_object(data)
        if set(value) != set(_ORDER):
            raise ValueError("other keys than a broker writes")
        for name, item in value.items():
            if not isinstance(item, _TYPES[name]) or isinstance(item, bool):
                raise ValueError(f"{name} is of a wrong type")
        return cls(**value)  # type: ignore[arg-type]  # checked above


_ORDER: tuple[str, ...] = ("pid", "started", "host", "insecure_port", "secure_port", "http_port")
_ORDER += ("ws_insecure_port", "ws_secure_port", "browser_port", "admin")
_TYPES: dict[str, type | tuple[type, ...]] = {name: (int, type(None)) for name in _ORDER}
_TYPES |= {"pid": int, "started": (int, float), "host": str, "admin": str}


class RunFolder:
    """HOME/run of one home."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.path = home / "run"
        self.ports_path = self.path / "ports.json"
        self.token_path = self.path / "admin.token"
        self.lock_path = self.path / "lock"
        self._lock: int | None = None

    def socket_path(self) -> Path | None:
        """Where the admin line's Unix socket belongs; None where the platform or the path's length forbids one."""
        path = self.path / "admin.sock"
        fits = len(os.fsencode(path)) <= SOCKET_PATH_LIMIT
        return path if fits and hasattr(socket, "AF_UNIX") else None

    def acquire(self) -> None:
        """Makes this process the only broker of the home, and clears what a killed one left behind.

        The lock ends with the process however it ends. Raises HomeError naming the pid of a broker that runs.
        """
        ensure_private_directory(self.home)
        ensure_private_directory(self.path)
        while self._lock is None:
            descriptor = os.open(self.lock_path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                self._lock = self._try(descriptor)
            finally:
                if self._lock is None:
                    os.close(descriptor)
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, f"{os.getpid()}\n".encode(), 0)
        self._clear()

    def _try(self, descriptor: int) -> int | None:
        """The descriptor once it is locked; None when the file was removed meanwhile by a broker that stopped."""
        deadline = time.monotonic() + LOCK_PATIENCE_S
        while not _flock(descriptor, fcntl.LOCK_EX):
            if time.monotonic() >= deadline:
                pid = _written_pid(descriptor)
                raise HomeError(
                    f"a broker{f' (pid {pid})' if pid else ''} already runs on {self.home}. "
                    "Stop it first, or choose another home with --home."
                )
            time.sleep(0.01)
        try:
            same = os.path.samestat(os.fstat(descriptor), self.lock_path.lstat())
        except FileNotFoundError:
            same = False
        return descriptor if same else None

    def make_token(self) -> str:
        """A new secret for the admin line over TCP, kept in a file that only this user can read."""
        token = secrets.token_urlsafe(TOKEN_BYTES)
        write_private(self.token_path, token.encode())
        return token

    def token(self) -> str:
        """The secret of the broker that runs. Raises HomeError when there is none, or others could read it."""
        return read_private(self.token_path, 1024).decode("ascii", "replace")

    def publish(self, ports: Ports) -> None:
        """Writes ports.json. Call it when, and only when, everything in it accepts connections."""
        write_private(self.ports_path, ports.to_json())

    def retract(self) -> None:
        """Takes ports.json away: whoever looks for a broker finds none here. Does nothing unless the lock is held."""
        if self._lock is not None:
            self.ports_path.unlink(missing_ok=True)

    def ports(self) -> Ports | None:
        """What a broker published here, dead or alive; None where there is nothing. Raises HomeError when unsafe."""
        if not os.path.lexists(self.ports_path):
            return None
        try:
            return Ports.from_json(read_private(self.ports_path))
        except ValueError as error:
            raise HomeError(f"{self.ports_path} is not what a broker writes. Remove it and start again.") from error

    def holder(self) -> int | None:
        """The pid of the broker that runs on this home (0 where it has not written it yet), None where none does."""
        try:
            descriptor = os.open(self.lock_path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            return None if _flock(descriptor, fcntl.LOCK_SH) else _written_pid(descriptor)
        finally:
            os.close(descriptor)

    def leftovers(self) -> list[Path]:
        """Files of a broker that was killed; the next start clears them. Ask only where `holder` is None."""
        named = (self.lock_path, self.ports_path, self.token_path, self.path / "admin.sock")
        return [path for path in named if os.path.lexists(path)]

    def release(self) -> None:
        """Takes everything away, the lock last. Calling it again does nothing."""
        if self._lock is None:
            return
        self._clear()
        with contextlib.suppress(FileNotFoundError):
            self.lock_path.unlink()
        os.close(self._lock)
        self._lock = None

    def _clear(self) -> None:
        for path in (self.ports_path, self.token_path, self.path / "admin.sock"):
            path.unlink(missing_ok=True)
        remove_leftovers(self.path)


def _flock(descriptor: int, operation: int) -> bool:
    try:
        fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _written_pid(descriptor: int) -> int:
    """The pid in a lock file, 0 where its holder has not written it yet."""
    text = os.pread(descriptor, 32, 0).strip()
    return int(text) if text.isdigit() else 0
