"""One connected stream socket as a Transport: batched reads into a shared buffer, bounded close.

Reads go into one buffer per event loop, not per connection: a selector loop fills it and calls us back in one go, so
no two connections ever use it at a time, and a thousand idle sessions hold no buffers.

A read takes less when what came with the last one took long, so that whoever sends many messages that cost us more than
their sender gets its turns like everybody.

Closing lingers. A socket that is closed while bytes of the peer lie unread makes the kernel send a reset, and a reset
may overtake what we sent last: the ERROR frame or the TLS alert that tells the peer why. So we send, shut down our
direction, and read on (throwing all of it away) until the peer closes too or the deadline passes.
"""

import asyncio
import fcntl
import socket
import struct
import sys
import termios
import weakref
from collections.abc import Callable
from time import perf_counter, thread_time
from typing import cast

from rsocket_broker.transports.base import Channel, Peer, Receiver

READ_SIZE = 256 * 1024
"""The most that one read takes: a burst of small frames costs one callback."""
FIRST_READ = 16 * 1024
"""What a newcomer's reads take, until it turns out that they cost little."""
LEAST_READ = 1024
SHARE = 0.01
"""Seconds of our time that a read may take, less where many do: after one that took longer the next ones are smaller,
down to LEAST_READ bytes. In READ_SIZE bytes there are 40,000 of the smallest messages, and to refuse so many takes
seconds, for which nobody else would be served."""
REST = 0.001
"""Seconds after which a read that has taken all it may is the last of its turn: libuv makes 32 of them otherwise, as
long as there is more, before it looks at anybody else."""
HIGH_WATER = 512 * 1024
"""Queued bytes at which the writer is asked to pause: two full reads' worth of answers."""
LOW_WATER = 128 * 1024
CLOSE_TIMEOUT = 2.0
"""Seconds for a closed connection to flush and for its peer to close too; shorter than the broker's five to stop in."""

_AT_ONCE = struct.pack("ii", 1, 0)
"""SO_LINGER on, for 0 seconds: closing resets the connection."""


class _Reading:
    """What the connections of one event loop share."""

    def __init__(self) -> None:
        self.buffer = memoryview(bytearray(READ_SIZE))
        self.resting = 0
        """Connections that have had their turn, and have more to read. Together they may take little more than one."""


_reading: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Reading] = weakref.WeakKeyDictionary()


def _reading_on(loop: asyncio.AbstractEventLoop) -> _Reading:
    found = _reading.get(loop)
    if found is None:
        found = _reading[loop] = _Reading()
    return found


def _nobody(_transport: "SocketTransport") -> None:
    """Stands where no listener counts."""


class SocketTransport(asyncio.BufferedProtocol):
    """A Transport over asyncio's. `receiver` may be exchanged, which is how TLS puts itself in between."""

    def __init__(
        self, receiver: Receiver, channel: Channel, forget: Callable[["SocketTransport"], None] = _nobody
    ) -> None:
        self.receiver = receiver
        self.peer = Peer("not connected", channel)
        self._forget = forget
        self._loop = asyncio.get_running_loop()
        self._shared = _reading_on(self._loop)
        self._buffer = self._shared.buffer
        self._most = FIRST_READ
        self._part = self._buffer[:FIRST_READ]
        """`_part` of it is what the next read may fill, `_most` bytes."""
        self._clock = perf_counter
        """What reads are measured by: at first the time of day, which costs least; once one took long, our own time
        alone, since on a busy machine any read may take long."""
        self._transport: asyncio.Transport
        self._connected = False
        self._closing = False
        self._aborting = False
        self._lost = False
        self._peer_finished = False
        self._wanted = True
        """Whether our user wants to read."""
        self._rests = False
        """Whether we do not, until others had their turn."""
        self._deadline: asyncio.TimerHandle | None = None

    # What the user of the transport calls.

    @property
    def queued(self) -> int:
        return 0 if self._lost else self._transport.get_write_buffer_size()

    def write(self, chunks: list[bytes]) -> None:
        if not self._closing:
            self._transport.write(chunks[0] if len(chunks) == 1 else b"".join(chunks))

    def pause_reading(self) -> None:
        self._wanted = False
        if not self._closing and not self._peer_finished:
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        self._wanted = True
        if not self._closing and not self._peer_finished and not self._rests:
            self._transport.resume_reading()

    def close(self) -> None:
        if self._closing:
            return
        self._closing = True
        self._deadline = self._loop.call_later(CLOSE_TIMEOUT, self._transport.abort)
        if self._peer_finished:
            self._transport.close()
            return
        self._transport.resume_reading()
        self._transport.set_write_buffer_limits(0)  # from now on "resume writing" means that all is flushed
        if not self._transport.get_write_buffer_size():
            self._finish()

    def abort(self) -> None:
        """May come from a listener before the connection is even made; its receiver then never hears of it."""
        if not self._aborting:
            self._closing = self._aborting = True
            if self._connected and not self._lost:
                _drop_queue(self._transport)
            if self._connected:
                self._transport.abort()

    def hand_over(self, receiver: Receiver) -> None:
        self.receiver = receiver

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's have its methods, not its class
        if self._aborting:
            self._transport.abort()
            return
        self._connected = True
        self.peer = Peer(_address(self._transport), self.peer.channel)
        self._transport.set_write_buffer_limits(HIGH_WATER, LOW_WATER)
        self.receiver.transport_ready(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._part

    def buffer_updated(self, nbytes: int) -> None:
        if self._closing:
            return
        clock = self._clock
        began = clock()
        self.receiver.data_received(self._buffer[:nbytes])
        took = clock() - began
        if took > REST or nbytes == self._most:
            self._make_room(nbytes, took)

    def _make_room(self, nbytes: int, took: float) -> None:
        """Leaves others their turn, and chooses how much the next read may take, by what the last one has cost."""
        share, full = max(REST, SHARE / (1 + self._shared.resting)), nbytes == self._most
        if took > REST and full and not self._rests and not self._closing:
            self._rests = True
            self._shared.resting += 1
            self._transport.pause_reading()
            self._loop.call_soon(self._go_on)
        if self._clock is perf_counter and took > share / 4:
            self._clock = thread_time
        elif took > share:
            self._read_at_most(max(LEAST_READ, int(nbytes * share / took)))
        elif full and took < share / 4 and self._most < READ_SIZE:
            self._read_at_most(min(READ_SIZE, 2 * self._most))

    def _read_at_most(self, size: int) -> None:
        self._most, self._part = size, self._buffer[:size]

    def _go_on(self) -> None:
        self._rests = False
        self._shared.resting -= 1
        if self._wanted and not self._lost:
            self.resume_reading()

    def eof_received(self) -> bool:
        """True keeps our direction open."""
        self._peer_finished = True
        if self._closing:
            return False
        self.receiver.eof_received()
        return not self._closing

    def pause_writing(self) -> None:
        if not self._closing:
            self.receiver.writing_paused()

    def resume_writing(self) -> None:
        if self._closing:
            self._finish()
        else:
            self.receiver.writing_resumed()

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        if self._deadline is not None:
            self._deadline.cancel()
        error = None if self._closing else exc
        self._closing = True
        self._forget(self)
        if self._connected:
            self.receiver.transport_lost(error)

    def _finish(self) -> None:
        """All is flushed: say that no more comes, and leave the rest to the peer or the deadline."""
        try:
            if not self._transport.is_closing():
                self._transport.write_eof()
        except OSError:  # the peer has gone already
            self._transport.abort()


def _drop_queue(transport: asyncio.Transport) -> None:
    """Lets the kernel throw away what the peer has not taken, once the socket is closed: else it goes on sending, and
    a peer that was cut off for good reasons reads on for as long as it likes."""
    connection = transport.get_extra_info("socket")
    if connection.fileno() < 0:
        return  # closed, and the news of it is on its way
    try:
        if _unsent(connection) or transport.get_write_buffer_size():
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
    except OSError:  # the peer has gone already
        return


def _unsent(connection: socket.socket) -> int:
    """Bytes that the kernel holds and the peer has not confirmed; 1 where the system does not say."""
    try:
        answer = fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, bytes(4))
    except OSError:
        return 1
    return int.from_bytes(answer, sys.byteorder)


def _address(transport: asyncio.Transport) -> str:
    """The peer's address as people write it; a Unix peer has none, so it is known by the path of the socket."""
    name = transport.get_extra_info("peername") or transport.get_extra_info("sockname")
    if not isinstance(name, tuple):
        return f"unix:{name}"
    host, port = name[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
