"""The connection as a whole: cutting bytes into frames, SETUP, keepalive, errors on stream 0, and the end."""

from collections.abc import Callable
from typing import Any, ClassVar, Final

from rsocket_broker.errors import ProtocolViolation
from rsocket_broker.protocol.codes import (
    CONNECTION_CLOSE,
    FLAGS_MASK,
    IGNORE,
    RESPOND,
    RESUME,
    SETUP_ERRORS,
    TYPE_SHIFT,
    ErrorCode,
)
from rsocket_broker.protocol.events import (
    ConnectionEnded,
    Event,
    MetadataPushReceived,
    SetupAccepted,
    SetupReceived,
)
from rsocket_broker.protocol.frames import (
    HEADER,
    PREFIX,
    error,
    keepalive,
    read_error,
    read_keepalive,
    read_resume,
    read_setup,
    read_start,
)
from rsocket_broker.protocol.keepalive import Heartbeat, patience
from rsocket_broker.protocol.limits import Limits
from rsocket_broker.protocol.resume import Ledger
from rsocket_broker.protocol.states import ConnectionState, StreamState
from rsocket_broker.quota import FULL, STEP, Holding, Kind

HELD_BEHIND_SETUP: Final = 1 << 20
"""What may be read behind a SETUP that is being decided on, beyond one frame: a few reads that were on their way."""

Handler = Callable[[Any, int, int, bytes, int, int], int | None]
"""(protocol, stream id, flags, buffer, begin of body, end of body) -> None, MOVED, AGAIN or where to go on."""

MOVED: Final = -1
"""The connection has changed its state with this frame; the next one is looked up there."""
AGAIN: Final = -2
"""The connection has changed its state before this frame, which is looked up again there."""

_TOO_SLOW: Final[dict[ConnectionState, tuple[int, str]]] = {
    ConnectionState.EXPECTING: (ErrorCode.INVALID_SETUP, "no SETUP came in time"),
    ConnectionState.DECIDING: (ErrorCode.REJECTED_SETUP, "the setup was not decided on in time"),
}


class Line:
    """Everything that concerns stream 0. `Protocol` is the class to use; this is its lowest storey."""

    DISPATCH: ClassVar[dict[ConnectionState, tuple[Handler, ...]]]
    """For each state that reads frames, the handler of each of the 64 frame types."""

    def __init__(self, limits: Limits, state: ConnectionState, now: float) -> None:
        self.limits = limits
        self.holding = Holding()
        """What the peer makes us hold; its owner may set another one before anything is received."""
        self.queued = 0
        """Bytes in `data_to_send`."""
        self.frames_in = 0
        self.frames_out = 0
        self.ended: ConnectionEnded | None = None
        """Set when `closed`: how it ended."""
        self.is_server = state is ConnectionState.EXPECTING
        self._states: dict[int, StreamState] = {}
        self._state = state
        self._dispatch = self.DISPATCH[state]
        self._now = now
        self._deadline = now + limits.setup_deadline
        self._patience: float | None = None
        self._heartbeat: Heartbeat | None = None
        self._offer: SetupReceived | None = None
        """What is being decided on."""
        self._ledger: Ledger | None = None
        """Kept for a connection that can be resumed."""
        self._tallied = 0
        """Up to where the frames that are being read are in the ledger."""
        self._buffer = bytearray()
        self._needed = 0
        self._framed = False
        """What is kept is the beginning of a large frame, and counted."""
        self._events: list[Event] = []
        self._out: list[bytes] = []

    @property
    def closed(self) -> bool:
        return self._state is ConnectionState.CLOSED

    @property
    def has_left(self) -> bool:
        """The peer said CONNECTION_CLOSE and the last stream has ended: call `handle_timer` now."""
        return self._state is ConnectionState.LEAVING and not self._is_busy()

    @property
    def _frame_limit(self) -> int:
        """The largest frame that may come now."""
        limits = self.limits
        return limits.frame if self._state is not ConnectionState.EXPECTING else min(limits.first, limits.frame)

    def data_to_send(self) -> list[bytes]:
        """Takes out the bytes to write, in order."""
        out = self._out
        self._out = []
        self.frames_out += len(out)
        self.queued = 0
        return out if self._ledger is None else self._recorded(out)

    # ---- input -----------------------------------------------------------------------------------------------

    def receive_data(self, data: bytes | memoryview, now: float) -> list[Event]:
        """The events that these bytes make, together with what was received before.

        Bytes behind a SETUP are kept until `accept_setup`. A memoryview is not used after the call.
        """
        self._now = now
        if not self._dispatch and self._state is not ConnectionState.DECIDING:
            return []  # it is over, or suspended: what an old line still brings will come again
        if self._needed or self._state is ConnectionState.DECIDING:
            if self._state is ConnectionState.DECIDING:
                self._buffer += data
                self._bound_what_waits()
                return self._take_events()
            if len(self._buffer) + len(data) < self._needed:
                self._buffer += data
                return []
            data = b"".join((self._buffer, data))
            self._buffer = bytearray()
        elif type(data) is not bytes:
            data = bytes(data)
        return self._read(data)

    def accept_setup(self, now: float) -> list[Event]:
        """Opens the connection; returns the events of what came behind the SETUP."""
        if self._state is not ConnectionState.DECIDING:
            return []
        self._now = now
        offer, self._offer = self._offer, None
        assert offer is not None
        self._established(offer)
        self._enter(ConnectionState.SERVING)
        data = bytes(self._buffer)
        self._buffer = bytearray()
        return self._read(data)

    def refuse_setup(self, code: int, text: str) -> None:
        """Answers the SETUP with an ERROR; nothing that came behind it is ever read."""
        if self._state is ConnectionState.DECIDING:
            self._end(code, text)

    def receive_eof(self, now: float) -> list[Event]:
        """The peer will send nothing more: no request can be answered in full now, so this is the end."""
        self._now = now
        if self._state is not ConnectionState.CLOSED:
            self._finish(ConnectionEnded(None, "the peer closed the connection", by_peer=True))
        return self._take_events()

    @property
    def last_heard(self) -> float:
        """When the peer showed life last."""
        return self._now

    def heard(self, now: float) -> None:
        """The peer showed life in another way: it took bytes from us while we did not read."""
        self._now = now

    def next_timer(self) -> float | None:
        """When to call `handle_timer`; calling it earlier does nothing. None: never."""
        if self._state is ConnectionState.CLOSED:
            return None
        if self._heartbeat is not None:
            return self._heartbeat.deadline()
        if self._state in _TOO_SLOW or self._patience is None:
            return self._deadline
        return self._now + self._patience

    def handle_timer(self, now: float) -> list[Event]:
        """Does what has fallen due: a keepalive to send, a peer to give up, the end of a connection that drained."""
        due = self.next_timer()
        if self.has_left:
            self._finish(ConnectionEnded(CONNECTION_CLOSE, "the peer closed the connection", by_peer=True))
        elif due is not None and now >= due:
            if self._heartbeat is not None:
                self._beat(self._heartbeat, now)
            elif self._state in _TOO_SLOW:
                self._end(*_TOO_SLOW[self._state])
            else:
                self._line_is_dead(f"nothing was heard for {self._patience:.0f} s", now)
        return self._take_events()

    def _beat(self, heartbeat: Heartbeat, now: float) -> None:
        if heartbeat.is_dead(now):
            self._line_is_dead("the server does not answer keepalives", now)
        else:
            self.send_keepalive(now)

    def _line_is_dead(self, text: str, now: float) -> None:
        self._end(ErrorCode.CONNECTION_ERROR, text)

    def send_keepalive(self, now: float) -> None:
        """Client only: asks the server for a sign of life."""
        if self._heartbeat is not None and self._state is not ConnectionState.CLOSED:
            self._heartbeat.sent(now)
            self._send(self._keepalive(b"", respond=True))

    def close(self, text: str = "", code: int | None = None) -> None:
        """Says goodbye with an ERROR on stream 0.

        The default code is CONNECTION_CLOSE when no stream is open, else CONNECTION_ERROR, since the former promises
        that open streams may still finish.
        """
        if code is None:
            code = ErrorCode.CONNECTION_ERROR if self._is_busy() else CONNECTION_CLOSE
        self._end(code, text)

    # ---- reading frames --------------------------------------------------------------------------------------

    def _read(self, data: bytes) -> list[Event]:
        """Handles every whole frame in `data` and keeps the rest."""
        dispatch = self._dispatch
        limit = self._frame_limit
        at, size, count = 0, len(data), 0
        try:
            while size - at > PREFIX + HEADER - 1:
                high, low, stream_id, kind = read_start(data, at)
                length = high << 16 | low
                end = at + PREFIX + length
                if end > size or length > limit or length < HEADER:
                    break
                verdict = dispatch[kind >> TYPE_SHIFT](self, stream_id, kind & FLAGS_MASK, data, at + 9, end)
                count += 1
                if verdict is None:
                    at = end
                    continue
                dispatch = self._dispatch
                if verdict == AGAIN:
                    count -= 1
                else:
                    at = end if verdict == MOVED else verdict
                if not dispatch:
                    break
            if self._ledger is not None:
                self._tally(data, at)
                self._tallied = 0
            self._keep(data, at)
        except ProtocolViolation as violation:
            self._end(violation.code, violation.public)
        self.frames_in += count
        return self._take_events()

    def _tally(self, data: bytes, end: int) -> None:
        """Everything in `data` before `end` has been read: whole frames, each handled, or ignored as it deserves."""
        if self._ledger is not None:
            self._ledger.take_in(data, self._tallied, end)
            self._tallied = end

    def _keep(self, data: bytes, at: int) -> None:
        """Keeps the start of a frame that is not whole yet; judges its length as soon as it is known."""
        rest = len(data) - at
        deciding = self._state is ConnectionState.DECIDING
        if self._framed:
            self._unframe()
        if not rest or not (self._dispatch or deciding):  # of a line that was lost meanwhile, it will all come again
            self._needed = 0
            return
        self._needed = PREFIX
        self._buffer += memoryview(data)[at:]
        if deciding:
            self._bound_what_waits()
        elif rest >= PREFIX:
            length = data[at] << 16 | data[at + 1] << 8 | data[at + 2]
            limit = self._frame_limit
            if not HEADER <= length <= limit:
                early = self._state is ConnectionState.EXPECTING
                raise ProtocolViolation(
                    f"a frame of {length} bytes: {HEADER} to {limit} are allowed",
                    ErrorCode.INVALID_SETUP if early else ErrorCode.CONNECTION_ERROR,
                )
            self._needed = PREFIX + length
            if length > STEP:
                self._framed = True
                if not self.holding.take(Kind.FRAME, length, rest):
                    raise ProtocolViolation(FULL)

    def _unframe(self) -> None:
        """The large frame has come, and was dealt with."""
        self._framed = False
        self.holding.note(Kind.FRAME, 0)

    def _drop_buffer(self) -> None:
        """What was kept is of no use any more."""
        self._buffer = bytearray()
        if self._framed:
            self._unframe()

    def _bound_what_waits(self) -> None:
        size = len(self._buffer)
        if size > self.limits.frame + HELD_BEHIND_SETUP:
            self._end(ErrorCode.REJECTED_SETUP, "too much was sent before the setup was accepted")
        elif size > STEP:
            self._framed = True
            if not self.holding.take(Kind.FRAME, size):
                self._end(ErrorCode.REJECTED_SETUP, FULL)

    def _take_events(self) -> list[Event]:
        events = self._events
        self._events = []
        return events

    # ---- establishing ----------------------------------------------------------------------------------------

    def _on_setup(self, stream_id: int, flags: int, data: bytes, begin: int, end: int) -> int:
        if stream_id:
            raise ProtocolViolation("a SETUP frame belongs on stream 0", ErrorCode.INVALID_SETUP)
        if flags & RESUME and not self.limits.resume_seconds:
            raise ProtocolViolation("resumption is not supported", ErrorCode.REJECTED_SETUP)
        event = read_setup(data, begin, end, flags)
        self._offer = event
        self._patience = patience(event.keepalive_ms, event.lifetime_ms)
        self._deadline = self._now + self.limits.setup_deadline
        self._enter(ConnectionState.DECIDING)
        self._events.append(event)
        return MOVED

    def _on_resume(self, stream_id: int, flags: int, data: bytes, begin: int, end: int) -> int:
        if stream_id:
            raise ProtocolViolation("a RESUME frame belongs on stream 0", ErrorCode.INVALID_SETUP)
        if not self.limits.resume_seconds:
            raise ProtocolViolation("resumption is not supported", ErrorCode.REJECTED_RESUME)
        event = read_resume(data, begin, end)
        self._deadline = self._now + self.limits.setup_deadline
        self._enter(ConnectionState.DECIDING)
        self._events.append(event)
        return MOVED

    def _established(self, setup: SetupReceived) -> None:
        """The SETUP is accepted: what it asked for holds from now on."""

    def _on_frame_before_setup(self, stream_id: int, flags: int, data: bytes, begin: int, end: int) -> None:
        raise ProtocolViolation("the first frame is SETUP", ErrorCode.INVALID_SETUP)

    def _on_late_resume(self, stream_id: int, flags: int, data: bytes, begin: int, end: int) -> None:
        raise ProtocolViolation("RESUME after SETUP")

    def _on_sign_of_acceptance(self, stream_id: int, flags: int, data: bytes, begin: int, end: int) -> int:
        """The first frame that a server sends only when it has accepted our SETUP: now it is read as usual."""
        self._enter(ConnectionState.JOINED)
        self._events.append(SetupAccepted())
        return AGAIN

    def _on_error_while_joining(self, stream_id: int, flags: int, data: bytes, begin: int, end: int) -> int:
        if stream_id:
            return self._on_sign_of_acceptance(stream_id, flags, data, begin, end)
        return self._end_by_peer(*read_error(data, begin, end, self.limits.error_text))

    # ---- frames of the open connection -----------------------------------------------------------------------

    def _on_keepalive(self, stream_id: int, flags: int, data: bytes, begin: int, end: int) -> None:
        if stream_id:
            return
        position, echo = read_keepalive(data, begin, end)
        if self._ledger is not None:
            self._tally(data, begin - PREFIX - HEADER)
            self._heard_position(position)
        if flags & RESPOND:
            self._send(self._keepalive(echo, respond=False))
        elif self._heartbeat is not None:
            self._heartbeat.answered()

    def _keepalive(self, data: bytes, *, respond: bool) -> bytes:
        return keepalive(data, respond=respond, position=0 if self._ledger is None else self._ledger.received)

    def _heard_position(self, position: int) -> None:
        """The peer has received everything before `position`."""
        if self._ledger is not None:
            self._ledger.release(position)

    def _on_metadata_push(self, stream_id: int, flags: int, data: bytes, begin: int, end: int) -> None:
        if not stream_id:
            self._events.append(MetadataPushReceived(data[begin:end]))

    def _on_connection_error(self, code: int, text: str) -> int | None:
        # "A server MUST ignore" the setup codes, and a client too once the connection is established.
        return None if code in SETUP_ERRORS else self._end_by_peer(code, text)

    def _on_nothing(self, stream_id: int, flags: int, data: bytes, begin: int, end: int) -> None:
        """A frame that the specification tells us to ignore here."""

    def _on_unknown(self, stream_id: int, flags: int, data: bytes, begin: int, end: int) -> None:
        if not flags & IGNORE:
            raise ProtocolViolation("a frame of a type that is not understood and may not be ignored")

    # ---- moving on -------------------------------------------------------------------------------------------

    def _enter(self, state: ConnectionState) -> None:
        self._state = state
        self._dispatch = self.DISPATCH.get(state, ())

    def _end_by_peer(self, code: int, text: str) -> int:
        if code == CONNECTION_CLOSE and self._is_busy():
            self._enter(ConnectionState.LEAVING)
        else:
            self._finish(ConnectionEnded(code, text, by_peer=True))
        return MOVED

    def _end(self, code: int, text: str) -> None:
        """Ends the connection from our side, with an ERROR that says why."""
        if self._state is not ConnectionState.CLOSED:
            self._send(error(0, code, text, self.limits.error_text))
            self._finish(ConnectionEnded(code, text, by_peer=False))

    def _finish(self, end: ConnectionEnded) -> None:
        self._enter(ConnectionState.CLOSED)
        self.ended = end
        self._events.append(end)
        self._drop_buffer()
        self._forget_all()

    def _is_busy(self) -> bool:
        """Whether a stream is open."""
        return bool(self._states)

    def _forget_all(self) -> None:
        """Drops what is kept for streams."""
        self._states.clear()

    def _recorded(self, out: list[bytes]) -> list[bytes]:
        """What is written of `out`, of a connection that can be resumed."""
        return out

    def _send(self, frame: bytes) -> None:
        if self._state is not ConnectionState.CLOSED:
            self._out.append(frame)
            self.queued += len(frame)
