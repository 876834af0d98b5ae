"""The one module that imports adbutils (200 ms: import it where it is used, not at the top).

Two habits of adbutils are changed here. When no server answers it starts one, which must never happen: a server
started by a broker would run with the broker's rights and keys, and outlive it. And it waits for each read anew, so
that a device which answers one byte at a time holds a thread for ever: here a whole piece of work has one deadline.
"""

import contextlib
import socket
import time

from adbutils import AdbClient, AdbConnection


class Leash:
    """The deadline of one piece of work on a thread, and the means to end it from another thread.

    `deadline` is in seconds of `time.monotonic`; None waits for ever, until `cut`.
    """

    def __init__(self, deadline: float | None) -> None:
        self.deadline = deadline
        self._cut = False
        self._lines: list[socket.socket] = []

    def remaining(self) -> float | None:
        """Seconds left for the next step; None when there is no limit. Raises TimeoutError when there are none."""
        left = None if self.deadline is None else self.deadline - time.monotonic()
        if self._cut or (left is not None and left <= 0):
            raise TimeoutError
        return left

    def hold(self, line: socket.socket) -> None:
        self._lines.append(line)
        if self._cut:
            self.cut()

    def cut(self) -> None:
        """Ends whatever is being waited for. Any thread may call it, at any time, more than once."""
        self._cut = True
        for line in self._lines:
            with contextlib.suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Closes every line, those too that adbutils forgot when something failed. For the thread that used them."""
        for line in self._lines:
            line.close()


class LeashedSocket:
    """The part of a socket that adbutils uses, with every step bounded by the leash and not by `settimeout`."""

    def __init__(self, address: tuple[str, int], leash: Leash) -> None:
        self._leash = leash
        self._line = socket.create_connection(address, timeout=leash.remaining())
        leash.hold(self._line)

    def recv(self, limit: int) -> bytes:
        self._line.settimeout(self._leash.remaining())
        data = self._line.recv(limit)
        if not data:
            self._leash.remaining()  # a line that was cut looks like one that ended
        return data

    def sendall(self, data: bytes) -> None:
        self._line.settimeout(self._leash.remaining())
        self._line.sendall(data)

    def send(self, data: bytes) -> int:
        """As `socket.send`, but never in part: adbutils does not look at the answer."""
        self.sendall(data)
        return len(data)

    def settimeout(self, _seconds: float | None) -> None:
        """The leash decides."""

    def shutdown(self, how: int) -> None:
        self._line.shutdown(how)

    def close(self) -> None:
        self._line.close()


class DirectConnection(AdbConnection):
    """A connection to the adb server's socket, and to nothing else. Raises OSError when no server answers there."""

    def __init__(self, host: str, port: int, leash: Leash) -> None:
        self._address, self._leash = (host, port), leash
        super().__init__(host, port)

    def _safe_connect(self) -> LeashedSocket:
        """Takes the place of the method that starts a server when it cannot connect."""
        return LeashedSocket(self._address, self._leash)

    def close(self) -> None:
        """Without the pause of the original, which lets a device see the end of input: here a packet says so."""
        if not self.closed:
            self.conn.close()


class DirectClient(AdbClient):
    """adbutils' client, all of whose connections are direct and share one leash."""

    def __init__(self, address: tuple[str, int], leash: Leash) -> None:
        super().__init__(*address)
        self.leash = leash

    def make_connection(self, timeout: float | None = None) -> DirectConnection:
        """`timeout` is not used: the leash decides."""
        return DirectConnection(self.host, self.port, self.leash)
