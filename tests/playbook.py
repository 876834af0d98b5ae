"""Traces of a Protocol that read like the specification: `play >> bytes in`, `play << event or frame out`.

    play = Playbook.server()
    play >> wire(FrameType.SETUP, 0, body) << SetupReceived(...)
    play.protocol.accept_setup(play.now)
    play >> wire(FrameType.CANCEL, 7)
    play.quiet()

Frames are written and cut here without the engine's own code, so that the two can disagree.
"""

from collections import deque
from typing import NamedTuple, Self

from rsocket_broker.protocol.codes import ErrorCode, FrameType
from rsocket_broker.protocol.events import Event, SetupAccepted, SetupReceived
from rsocket_broker.protocol.frames import Setup
from rsocket_broker.protocol.limits import SECURE, Limits
from rsocket_broker.protocol.protocol import Protocol

IGNORE, M, F, C, N = 0x200, 0x100, 0x80, 0x40, 0x20
"""The flag bits under the letters of the specification."""
SETUP_RESUME, SETUP_LEASE, KEEPALIVE_RESPOND = 0x80, 0x40, 0x80

SETUP_BODY = (
    (1).to_bytes(2, "big")
    + (0).to_bytes(2, "big")
    + (10_000).to_bytes(4, "big")
    + (0x7FFF_FFFF).to_bytes(4, "big")
    + b"\x0atext/plain\x0atext/plain"
)
"""What Flipper's mobile SDK sends, up to its payload."""


class Frame(NamedTuple):
    """A frame on the wire."""

    kind: int
    stream_id: int
    flags: int
    body: bytes

    @property
    def error_code(self) -> int:
        assert self.kind == FrameType.ERROR
        return int.from_bytes(self.body[:4], "big")


def wire(kind: int, stream_id: int, body: bytes = b"", flags: int = 0) -> bytes:
    """A frame with its length, as TCP carries it."""
    inner = stream_id.to_bytes(4, "big") + (kind << 10 | flags).to_bytes(2, "big") + body
    return len(inner).to_bytes(3, "big") + inner


def cut(data: bytes) -> list[Frame]:
    """The frames in `data`, which ends with one."""
    found = []
    while data:
        size = int.from_bytes(data[:3], "big")
        inner, data = data[3 : 3 + size], data[3 + size :]
        assert len(inner) == size >= 6
        kind = int.from_bytes(inner[4:6], "big")
        found.append(Frame(kind >> 10, int.from_bytes(inner[:4], "big"), kind & 0x3FF, inner[6:]))
    return found


def with_metadata(metadata: bytes, data: bytes) -> bytes:
    return len(metadata).to_bytes(3, "big") + metadata + data


def u32(value: int) -> bytes:
    return value.to_bytes(4, "big")


class Playbook:
    """One Protocol and what it has given so far."""

    def __init__(self, protocol: Protocol) -> None:
        self.protocol = protocol
        self.now = 100.0
        self._events: deque[Event] = deque()
        self._frames: deque[Frame] = deque()

    @classmethod
    def new_server(cls, limits: Limits = SECURE) -> Self:
        """A server that has heard nothing yet."""
        return cls(Protocol.server(limits, 100.0))

    @classmethod
    def server(cls, limits: Limits = SECURE) -> Self:
        """A server that has accepted a SETUP."""
        play = cls.new_server(limits)
        play >> wire(FrameType.SETUP, 0, SETUP_BODY)
        play << SetupReceived(10_000, 0x7FFF_FFFF, "text/plain", "text/plain", b"", None)
        play.take(play.protocol.accept_setup(play.now))
        play.quiet()
        return play

    @classmethod
    def client(cls, limits: Limits = SECURE, setup: Setup | None = None, *, joined: bool = True) -> Self:
        """A client whose SETUP was sent, and with `joined` seen to be accepted."""
        play = cls(Protocol.client(setup or Setup(), limits, 100.0))
        assert [frame.kind for frame in play.sent()] == [FrameType.SETUP]
        if joined:
            play >> wire(FrameType.KEEPALIVE, 0, bytes(8))
            play << SetupAccepted()
        return play

    def __rshift__(self, data: bytes) -> Self:
        self.take(self.protocol.receive_data(data, self.now))
        return self

    def __lshift__(self, expected: Event | Frame | bytes) -> Self:
        """The next event, or the next frame out, is this."""
        if isinstance(expected, bytes):
            (expected,) = cut(expected)
        if isinstance(expected, Frame):
            self._collect()
            assert self._frames, f"nothing was sent, expected {expected}"
            given: object = self._frames.popleft()
        else:
            assert self._events, f"nothing happened, expected {expected}"
            given = self._events.popleft()
        assert given == expected
        assert type(given) is type(expected)
        return self

    def take(self, events: list[Event]) -> None:
        self._events.extend(events)

    def tick(self, seconds: float) -> Self:
        """Time passes, in steps as a timer would make them."""
        end = self.now + seconds
        while (when := self.protocol.next_timer()) is not None and when <= end:
            self.now = max(self.now, when)
            self.take(self.protocol.handle_timer(self.now))
        self.now = end
        return self

    def sent(self) -> list[Frame]:
        """All frames out that were not looked at yet."""
        self._collect()
        frames, self._frames = list(self._frames), deque()
        return frames

    def events(self) -> list[Event]:
        events, self._events = list(self._events), deque()
        return events

    def quiet(self) -> None:
        """Nothing more happened and nothing more was sent."""
        self._collect()
        assert not self._events
        assert not self._frames

    def ends_with(self, code: int, text: str = "") -> None:
        """An ERROR on stream 0 went out as the last thing, and the connection is over."""
        frames = self.sent()
        assert frames, "nothing was sent"
        assert (frames[-1].kind, frames[-1].stream_id) == (FrameType.ERROR, 0)
        assert ErrorCode(frames[-1].error_code) is ErrorCode(code)
        assert text in frames[-1].body[4:].decode()
        assert self.protocol.closed
        assert self.protocol.ended is not None
        assert self.protocol.ended.code == code
        assert not self.protocol.ended.by_peer

    def _collect(self) -> None:
        self._frames.extend(cut(b"".join(self.protocol.data_to_send())))
