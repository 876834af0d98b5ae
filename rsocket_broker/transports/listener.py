"""Accepting: a listener owns its sockets and knows how many of the connections it accepted are still there."""

import asyncio
import logging
import socket
from collections import Counter
from collections.abc import Awaitable, Callable

import attrs

from rsocket_broker.histogram import Histogram
from rsocket_broker.quiet_log import QuietLog
from rsocket_broker.transports.base import Channel, Receiver
from rsocket_broker.transports.sockets import SocketTransport

MAX_CONNECTIONS = 2048
"""Open connections of one listener. Far above what one host's apps open, far below what a process can afford."""
ACCEPT_BATCH = 64
"""Connections accepted in one turn of the loop; more would let a flood of connects hold up everyone else."""
ACCEPT_PAUSE = 1.0
"""Seconds without accepting when the system has no descriptor left: trying at once again would only burn its time."""

Rebind = Callable[[int], Awaitable[list[socket.socket]]]
"""Sockets that listen on a number again, where they did before. Raises ConfigurationError when it has been taken."""

_logger = logging.getLogger(__name__)


@attrs.define(slots=True)
class Counters:
    """What has happened on a listener since it opened."""

    accepted: int = 0
    turned_away: int = 0
    """Closed at once, since the cap was reached."""
    handshakes: int = 0
    refused: int = 0
    """Handshakes that one side refused with an alert, or bytes that were no TLS."""
    reasons: Counter[str] = attrs.field(factory=Counter)
    """Those refused, by the alert (`peer:` in front of it where the other side sent it) or what came instead of TLS."""
    failed: int = 0
    """Handshakes that came to nothing through a fault of ours."""
    timed_out: int = 0
    displaced: int = 0
    """Dropped to make room for newcomers, the oldest first: unfinished handshakes, or strangers on the plain port."""
    handshake_seconds: Histogram = attrs.field(factory=Histogram)
    """From accept to the end of each handshake that succeeded: the peer's part and the way there and back included."""


class Listener:
    """Listening sockets and the connections accepted through them.

    `port` is the number on every host in `hosts` (0 and the path for a Unix socket). `open` counts the connections
    accepted here that have not ended yet. `shut` and `reopen` switch it off and on; `close` is its end.

    It accepts by itself, not through asyncio's Server: that one loses a connection that it has accepted when it is
    closed in the same moment, and has a transport built even for those who are turned away.
    """

    def __init__(
        self,
        sockets: list[socket.socket],
        channel: Channel,
        receiver_factory: Callable[[], Receiver],
        *,
        cap: int,
        displace: bool = False,
        counters: Counters | None = None,
        rebind: Rebind | None = None,
    ) -> None:
        """Over `cap` connections newcomers are closed at once, or with `displace` take the place of the oldest.

        Without `rebind` it cannot be opened again.
        """
        names = [listening.getsockname() for listening in sockets]
        self.port: int = 0 if channel is Channel.UNIX else names[0][1]
        self.hosts: tuple[str, ...] = tuple(name if channel is Channel.UNIX else name[0] for name in names)
        self.counters = counters or Counters()
        self._loop = asyncio.get_running_loop()
        self._sockets = sockets
        self._channel = channel
        self._receiver_factory = receiver_factory
        self._cap = cap
        self._displace = displace
        self._rebind = rebind
        self._connections: dict[SocketTransport, None] = {}
        """Oldest first."""
        self._starting: set[asyncio.Task[object]] = set()
        self._closed = False
        self._held = False
        self._all_gone = asyncio.Event()
        self._shutting_callbacks: list[Callable[[], None]] = []
        self._closing_callbacks: list[Callable[[], None]] = []
        self._log = QuietLog(_logger)

    @property
    def open(self) -> int:
        return len(self._connections)

    @property
    def listening(self) -> bool:
        """Whether the kernel takes connections for it; else it refuses them."""
        return bool(self._sockets)

    def start(self) -> None:
        """Begins to accept, or begins again after a pause."""
        if not self._closed and not self._held:
            for listening in self._sockets:
                self._loop.add_reader(listening, self._accept, listening)

    def hold(self) -> None:
        """Accepts nobody until `release`; whoever connects waits in the kernel's queue."""
        self._held = True
        self._stop_accepting()

    def release(self) -> None:
        self._held = False
        self.start()

    def on_shut(self, callback: Callable[[], None]) -> None:
        """Runs `callback` whenever the listener is shut, and not when it closes."""
        self._shutting_callbacks.append(callback)

    def on_close(self, callback: Callable[[], None]) -> None:
        """Runs `callback` when the listener closes."""
        self._closing_callbacks.append(callback)

    def close(self) -> None:
        """Stops accepting at once: whoever connects now is refused by the kernel. Accepted connections live on."""
        if self._closed:
            return
        self._closed = True
        self._close_sockets()
        for callback in self._closing_callbacks:
            callback()
        self._check_all_gone()

    def shut(self) -> None:
        """Like `close`, until `reopen`: limits and counters go on, and so do the connections."""
        if self.listening:
            self._close_sockets()
            for callback in self._shutting_callbacks:
                callback()

    async def reopen(self) -> None:
        """Accepts again, on the same number. Does nothing while it listens, or after `close`.

        Raises ConfigurationError when the number has been taken meanwhile.
        """
        if not self._may_open():
            return
        assert self._rebind is not None
        sockets = await self._rebind(self.port)
        if self._may_open():
            self._sockets = sockets
            self.start()
        else:  # switched by somebody else meanwhile
            for each in sockets:
                each.close()

    def _may_open(self) -> bool:
        return not self._closed and not self._sockets

    def _close_sockets(self) -> None:
        """Whoever waits in the kernel's queue is reset."""
        for listening in self._sockets:
            self._loop.remove_reader(listening)
            listening.close()
        self._sockets = []

    def abort(self) -> None:
        """Closes, and drops every connection accepted here."""
        self.close()
        for connection in list(self._connections):
            connection.abort()

    async def wait_closed(self) -> None:
        """Waits until the listener is closed and every connection accepted here has ended."""
        await self._all_gone.wait()

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(ACCEPT_BATCH):
            if self._held or listening not in self._sockets:
                return
            try:
                accepted, _ = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._pause(error)
                return
            self._welcome(accepted)

    def _welcome(self, accepted: socket.socket) -> None:
        if len(self._connections) >= self._cap:
            if not self._displace:
                self.counters.turned_away += 1
                accepted.close()
                return
            self._drop_oldest()
        self.counters.accepted += 1
        accepted.setblocking(False)
        connection = SocketTransport(self._receiver_factory(), self._channel, self._forget)
        self._connections[connection] = None
        task: asyncio.Task[object] = self._loop.create_task(
            self._loop.connect_accepted_socket(lambda: connection, accepted)
        )
        self._starting.add(task)  # or it might be collected as garbage
        task.add_done_callback(lambda task: self._started(task, connection, accepted))

    def _drop_oldest(self) -> None:
        oldest = next(iter(self._connections))
        del self._connections[oldest]
        self.counters.displaced += 1
        self._log.write(
            logging.WARNING,
            "crowds",
            "port %d has %d connections, so %s gives way to a new one",
            self.port,
            self._cap,
            oldest.peer.address,
        )
        oldest.abort()

    def _started(self, task: asyncio.Task[object], connection: SocketTransport, accepted: socket.socket) -> None:
        self._starting.discard(task)
        if task.cancelled() or task.exception() is not None:  # it never began, so it will not end by itself
            accepted.close()
            self._forget(connection)

    def _pause(self, error: OSError) -> None:
        """The system has no descriptor or memory for one more; those who wait stay in the kernel's queue."""
        self._log.write(logging.ERROR, "full system", "cannot accept connections on port %d: %s", self.port, error)
        self._stop_accepting()
        self._loop.call_later(ACCEPT_PAUSE, self.start)

    def _stop_accepting(self) -> None:
        if not self._closed:
            for listening in self._sockets:
                self._loop.remove_reader(listening)

    def _forget(self, connection: SocketTransport) -> None:
        self._connections.pop(connection, None)
        self._check_all_gone()

    def _check_all_gone(self) -> None:
        if self._closed and not self._connections:
            self._all_gone.set()
