"""What a byte transport offers and what it expects of the one who uses it. No transport knows what the bytes mean.

The order of calls to a Receiver, all on the event loop and none of them re-entered:

    transport_ready(transport)
    ( data_received(data) | writing_paused() | writing_resumed() )*
    eof_received()?                      the peer will send no more; writing still works
    ( writing_paused() | writing_resumed() )*
    transport_lost(error)                exactly once, always; after it `write` and `close` do nothing
"""

import enum
from typing import Protocol, runtime_checkable

import attrs

from rsocket_broker.quota import Holding


class Channel(enum.Enum):
    """How the bytes travel."""

    TCP = "tcp"
    TLS = "tls"
    UNIX = "unix"
    MEMORY = "memory"
    WS = "ws"
    WSS = "wss"


@attrs.frozen(slots=True)
class Peer:
    """The other end of one transport, known before its first byte of data.

    `address` is for people and logs: `127.0.0.1:40112`, `[::1]:40112`, `unix:/path`, `memory`.
    `certificate` is the peer's DER leaf, whose chain was verified in the handshake; None where none was asked for.
    `tls_version` is `TLSv1.2` or `TLSv1.3`; `alpn` the application protocol agreed on in the handshake.
    """

    address: str
    channel: Channel
    certificate: bytes | None = attrs.field(default=None, repr=False)
    tls_version: str | None = None
    alpn: str | None = None


class Transport(Protocol):
    """An open line to one peer."""

    @property
    def peer(self) -> Peer: ...

    @property
    def queued(self) -> int:
        """Bytes written here that the kernel (or the other half of a memory pair) has not yet taken."""

    def write(self, chunks: list[bytes]) -> None:
        """Sends the chunks in order, as one write. Never blocks; does nothing once closed or lost."""

    def pause_reading(self) -> None:
        """Asks for no more data until `resume_reading`. Data already on its way may still be delivered."""

    def resume_reading(self) -> None: ...

    def close(self) -> None:
        """Sends what is queued, then closes; a peer that does not read is dropped at a deadline.

        No more data is delivered from now on. Ends in `transport_lost`, never from inside this call.
        """

    def abort(self) -> None:
        """Closes at once and drops what is queued. Ends in `transport_lost`, never from inside this call."""

    def hand_over(self, receiver: "Receiver") -> None:
        """Whatever comes from now on goes to `receiver`, which is not told that the line is ready.

        May be called from inside `data_received`: what is left of the data in hand goes to the new one.
        """


@runtime_checkable
class MessageTransport(Transport, Protocol):
    """A line that holds each message of the peer until it is whole, and bounds it for that reason."""

    def expect(self, size: int) -> None:
        """Messages of the peer may have this many bytes from now on."""

    def count_in(self, holding: Holding) -> None:
        """What is held of a message counts there from now on."""


class Receiver(Protocol):
    """The one who uses a transport."""

    def transport_ready(self, transport: Transport) -> None:
        """The line is open; over TLS, the handshake is done and the peer's certificate verified."""

    def data_received(self, data: bytes | memoryview) -> None:
        """Bytes from the peer, never empty. A memoryview is lent for the length of this call only."""

    def eof_received(self) -> None:
        """The peer has finished sending. The line stays open for writing until it is closed."""

    def writing_paused(self) -> None:
        """Too much is queued: write no more than you must."""

    def writing_resumed(self) -> None: ...

    def transport_lost(self, error: Exception | None) -> None:
        """The line has gone. `error` is None for an orderly end (either side closed), else what broke it."""


class TextTransport(Protocol):
    """An open line to one peer that carries whole messages of text, in order, as UTF-8."""

    @property
    def peer(self) -> Peer: ...

    @property
    def queued(self) -> int:
        """Bytes sent here that the kernel has not yet taken."""

    def send(self, text: bytes) -> None:
        """Sends one message. Never blocks; does nothing once closed or lost."""

    def count_in(self, holding: Holding) -> None:
        """As `MessageTransport.count_in`."""

    def ping(self) -> None:
        """Asks the peer for a sign of life that is no message."""

    def pause_reading(self) -> None:
        """Asks for no more until `resume_reading`. What is on its way may still be delivered."""

    def resume_reading(self) -> None: ...

    def close(self, code: int, reason: str) -> None:
        """Sends what is queued, then closes with a WebSocket close code (RFC 6455 7.4) and a reason for people.

        No more is delivered from now on. Ends in `transport_lost`, never from inside this call.
        """

    def abort(self) -> None:
        """As `Transport.abort`."""


class TextReceiver(Protocol):
    """The one who uses a line of messages."""

    def transport_ready(self, transport: TextTransport) -> None:
        """The line is open."""

    def heard(self, size: int) -> None:
        """The peer has sent `size` bytes, of a message or of anything else."""

    def message_received(self, text: bytes) -> None:
        """A whole message, valid UTF-8."""

    def eof_received(self) -> None:
        """The peer has said goodbye: it sends no more, and takes no more."""

    def writing_paused(self) -> None:
        """As `Receiver.writing_paused`."""

    def writing_resumed(self) -> None: ...

    def transport_lost(self, error: Exception | None) -> None:
        """As `Receiver.transport_lost`."""
