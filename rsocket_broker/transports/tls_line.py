"""TLS between two transports: ciphertext below, plaintext above, OpenSSL over memory buffers in between.

A `TlsLine` is OpenSSL's state of one connection; a `TlsTransport` carries data over it once the handshake is done.
"""

import asyncio
import ssl
import weakref
from collections.abc import Callable, Iterator
from typing import Protocol

from rsocket_broker.transports.base import Channel, Peer, Receiver, Transport
from rsocket_broker.transports.tls_refusals import tls_refused

PLAINTEXT_SIZE = 256 * 1024
"""The most plaintext that goes up in one call; as much as one read of ciphertext brings."""
RECORD_SIZE = 16 * 1024
"""The most that one TLS record carries, and so what one SSL_write takes and one SSL_read gives."""
SLICE = 64 * 1024
"""Ciphertext handed to OpenSSL at a time: its memory buffers never shrink, and each connection has two of them."""

FEW = 64
"""Chunks of one write that are looked at for their size, which for many small ones would cost more than it saves."""

_buffers: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, memoryview] = weakref.WeakKeyDictionary()


class Lower(Transport, Protocol):
    """A transport whose receiver can be exchanged, and which delivers nothing at all while reading is paused."""

    receiver: Receiver


class TlsLine:
    """OpenSSL's side of one connection. Used by one thread at a time: a worker in the handshake, then the loop."""

    def __init__(self, context: ssl.SSLContext, *, server_side: bool, server_name: str | None = None) -> None:
        self.incoming = ssl.MemoryBIO()
        self.outgoing = ssl.MemoryBIO()
        self.object = context.wrap_bio(self.incoming, self.outgoing, server_side, server_name)

    def handshake(self, received: bytes) -> bool:
        """Takes the peer's bytes and goes as far as they reach; True when the handshake is done.

        What is to be sent (an alert too) is in `outgoing` after it. Raises ssl.SSLError when either side refuses.
        """
        self.incoming.write(received)
        try:
            self.object.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    def flush(self, lower: Transport) -> None:
        if self.outgoing.pending:
            lower.write([self.outgoing.read()])

    def say_goodbye(self) -> None:
        """Queues the end of TLS. OpenSSL forgets the session of a line that was freed without it, and one whose network
        was lost is the one that is resumed."""
        try:
            self.object.unwrap()
        except ssl.SSLError:
            return  # the peer's goodbye has not come, or data came instead of it

    def peer(self, address: str) -> Peer:
        return Peer(
            address,
            Channel.TLS,
            self.object.getpeercert(binary_form=True),
            self.object.version(),
            self.object.selected_alpn_protocol(),
        )


class TlsTransport:
    """A Transport for plaintext above, and the Receiver of the ciphertext below."""

    def __init__(
        self, lower: Lower, line: TlsLine, receiver: Receiver, leave: Callable[[], None] | None = None
    ) -> None:
        self.peer = line.peer(lower.peer.address)
        self._lower = lower
        self._line = line
        self._receiver = receiver
        self._leave = leave
        self._incoming = line.incoming
        self._outgoing = line.outgoing
        self._object = line.object
        self._plaintext = _plaintext_buffer(asyncio.get_running_loop())
        self._closing = False
        self._notified = False
        self._broken: ssl.SSLError | None = None
        self._peer_finished = False
        self._error: Exception | None = None

    def start(self) -> None:
        """Takes the line over from the handshake, with what the peer sent right behind it."""
        self._lower.receiver = self
        self._receiver.transport_ready(self)
        self._decrypted(b"")

    # What the user of the plaintext calls.

    @property
    def queued(self) -> int:
        return self._lower.queued

    def write(self, chunks: list[bytes]) -> None:
        if self._closing:
            return
        try:
            if len(chunks) <= FEW and sum(map(len, chunks)) > SLICE:
                for portion in _portions(chunks):
                    self._send(portion)
            else:
                self._send(chunks[0] if len(chunks) == 1 else b"".join(chunks))
        except ssl.SSLError as error:
            self._fail(error)

    def _send(self, data: bytes) -> None:
        if len(data) > RECORD_SIZE:
            self._encrypt(memoryview(data))
        elif data:
            self._object.write(data)
            self._lower.write([self._outgoing.read()])

    def pause_reading(self) -> None:
        self._lower.pause_reading()

    def resume_reading(self) -> None:
        self._lower.resume_reading()

    def close(self) -> None:
        if self._closing:
            return
        self._closing = True
        self._line.say_goodbye()
        self._line.flush(self._lower)
        self._lower.close()

    def abort(self) -> None:
        self._closing = True
        self._lower.abort()

    def hand_over(self, receiver: Receiver) -> None:
        self._receiver = receiver

    # What the transport below calls.

    def transport_ready(self, transport: Transport) -> None:
        raise AssertionError("the transport below was ready before the handshake")

    def data_received(self, data: bytes | memoryview) -> None:
        self._decrypted(data)

    def eof_received(self) -> None:
        self._finished()

    def writing_paused(self) -> None:
        if not self._closing:
            self._receiver.writing_paused()

    def writing_resumed(self) -> None:
        if not self._closing:
            self._receiver.writing_resumed()

    def transport_lost(self, error: Exception | None) -> None:
        if not self._closing:
            self._closing = True
            self._line.say_goodbye()
        # Who uses this may live in cycles: OpenSSL's part, and the context that it keeps, are let go now.
        del self._line, self._object, self._incoming, self._outgoing
        if self._leave is not None:
            self._leave()
        self._receiver.transport_lost(self._error or error)

    # Records.

    def _encrypt(self, data: memoryview) -> None:
        """Writes record by record (OpenSSL takes no more at a time), emptying the memory buffer as it fills."""
        while data:
            data = data[self._object.write(data[:RECORD_SIZE]) :]
            if not data or self._outgoing.pending >= SLICE:
                self._lower.write([self._outgoing.read()])

    def _decrypted(self, data: bytes | memoryview) -> None:
        """Decrypts and delivers what `data` completes."""
        filled = 0
        for start in range(0, len(data) or 1, SLICE):
            self._incoming.write(data[start : start + SLICE] if len(data) > SLICE else data)
            filled = self._read(filled)
        self._deliver(filled)
        if self._broken is not None:
            self._fail(self._broken)
        elif not self._closing and self._outgoing.pending:  # OpenSSL answers a key update by itself
            self._line.flush(self._lower)
        if self._notified:
            self._finished()

    def _read(self, filled: int) -> int:
        """Decrypts every complete record that OpenSSL holds, behind what is `filled`; returns the new fill."""
        read, pending, incoming, plaintext = self._object.read, self._object.pending, self._incoming, self._plaintext
        while not self._closing and self._broken is None:
            if filled > PLAINTEXT_SIZE - RECORD_SIZE:
                self._deliver(filled)
                filled = 0
            try:
                size = int(read(PLAINTEXT_SIZE - filled, plaintext[filled:] if filled else plaintext))
            except ssl.SSLWantReadError:
                break
            except ssl.SSLError as error:  # told after the data that came before it
                self._broken = error
                break
            if not size:
                self._notified = True
                break
            filled += size
            if not incoming.pending and not pending():
                break  # nothing left: spares the exception, which costs more than a small read
        return filled

    def _deliver(self, size: int) -> None:
        if size and not self._closing:
            self._receiver.data_received(self._plaintext[:size])

    def _finished(self) -> None:
        """The peer sends no more: it said so in TLS, or its end of the stream did. Told once."""
        if not self._peer_finished and not self._closing:
            self._peer_finished = True
            self._receiver.eof_received()

    def _fail(self, error: ssl.SSLError) -> None:
        """Either side ended TLS: the alert, if it is ours, goes out before the close."""
        if not self._closing:
            self._closing = True
            self._error = tls_refused(error)
            self._line.flush(self._lower)
            self._lower.close()


def _plaintext_buffer(loop: asyncio.AbstractEventLoop) -> memoryview:
    """Shared by all connections of a loop, like the read buffer below, and for the same reason."""
    buffer = _buffers.get(loop)
    if buffer is None:
        buffer = _buffers[loop] = memoryview(bytearray(PLAINTEXT_SIZE))
    return buffer


def _portions(chunks: list[bytes]) -> Iterator[bytes]:
    """The chunks joined into portions of about SLICE: large copies cost fresh pages of memory, small ones none."""
    first = size = 0
    for at, chunk in enumerate(chunks, 1):
        size += len(chunk)
        if size >= SLICE - RECORD_SIZE or at == len(chunks):
            yield chunks[first] if at == first + 1 else b"".join(chunks[first:at])
            first, size = at, 0
