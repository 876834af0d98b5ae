"""A connection that outlives its line (RSocket 1.0, "Resuming Operation"): suspended, and resumed over another one.

Server:  SERVING -- suspend --> SUSPENDED -- resume --> SERVING        (`resume` on a live one suspends it first)
Client:  JOINED  -- suspend --> SUSPENDED -- begin_resume --> RESUMING -- RESUME_OK --> JOINED

While it is away, whatever is to be sent is retained within the budget, and past it the connection ends; streams, and
what was received of them, stay as they are. It ends too when it was not resumed in time.
"""

from typing import Final

from rsocket_broker.errors import ProtocolViolation
from rsocket_broker.protocol.codes import TYPE_SHIFT, ErrorCode, FrameType
from rsocket_broker.protocol.events import ConnectionEnded, Event, LineLost, LineResumed, SetupReceived
from rsocket_broker.protocol.frames import error, read_error, read_position, read_start, resume, resume_ok
from rsocket_broker.protocol.lease import Leasing
from rsocket_broker.protocol.limits import Limits
from rsocket_broker.protocol.line import MOVED
from rsocket_broker.protocol.resume import Ledger, Pool
from rsocket_broker.protocol.states import ConnectionState

_AWAY: Final = frozenset({ConnectionState.SUSPENDED, ConnectionState.RESUMING})
_LASTING: Final = _AWAY | {ConnectionState.SERVING, ConnectionState.JOINED}
"""States that can outlive their line: the connection is established, and the peer has not said goodbye."""


class Suspension(Leasing):
    """Suspending and resuming. `Protocol` is the class to use."""

    def __init__(self, limits: Limits, state: ConnectionState, now: float) -> None:
        super().__init__(limits, state, now)
        self._pool = Pool(limits.resume_bytes)
        self._token = b""
        self._resume_by: float | None = None
        self._ahead: list[bytes] = []
        """What goes out before all else, and is not recorded (again)."""
        self._asked = False
        """The peer was asked for its position and has not answered yet."""

    @property
    def resumable(self) -> bool:
        """Whether the connection would outlive the loss of its line now."""
        return self._ledger is not None and self._state in _LASTING

    @property
    def suspended(self) -> bool:
        """The line was lost, and no other has been agreed on yet."""
        return self._state in _AWAY

    @property
    def retained(self) -> int:
        """Bytes that wait for a peer that is away."""
        return self._ledger.size if self._ledger is not None and self._state in _AWAY else 0

    # ---- what its owner calls --------------------------------------------------------------------------------

    def suspend(self, now: float) -> bool:
        """The line is lost. False, and nothing done, for a connection that does not outlive that.

        Look at `ended` after it: more may be queued than can be retained.
        """
        if self._ledger is None or self._state not in _LASTING:
            return False
        if self._resume_by is None:
            self._resume_by = now + self.limits.resume_seconds
        self._enter(ConnectionState.SUSPENDED)
        self._drop_buffer()  # the beginning of a frame: the peer will send all of it again
        self._needed = 0
        self._ahead = []
        self.data_to_send()
        return True

    def resume(self, received: int, available: int, now: float) -> None:
        """Server: the peer is back and wants everything from position `received` on; it still has everything from
        `available` on. RESUME_OK and the rest are in `data_to_send`.

        Raises ProtocolViolation, and nothing has changed, when that is not to be had.
        """
        ledger = self._ledger
        if ledger is None or self._state not in {ConnectionState.SERVING, ConnectionState.SUSPENDED}:
            raise ProtocolViolation("the session cannot be resumed", ErrorCode.REJECTED_RESUME)
        if available > ledger.received:
            raise ProtocolViolation("frames of the client are lost: it keeps them no longer", ErrorCode.REJECTED_RESUME)
        ledger.replay(received)
        self.suspend(now)
        if self.closed:
            raise ProtocolViolation("too much was waiting for the client", ErrorCode.REJECTED_RESUME)
        self._reopen(ConnectionState.SERVING, [resume_ok(ledger.received)], received, now)

    def begin_resume(self, now: float) -> None:
        """Client: there is a new line, and RESUME is to be written."""
        ledger = self._ledger
        if ledger is not None and self._state is ConnectionState.SUSPENDED:
            self._now = now
            self._enter(ConnectionState.RESUMING)
            self._put_ahead([resume(self._token, ledger.received, ledger.first)])

    def surrender(self) -> bytes:
        """Server: the line that brought a RESUME goes to the connection that it resumes, with these bytes that came
        behind it. This connection is over."""
        rest = bytes(self._buffer)
        self._finish(ConnectionEnded(None, "the line went to the session that it resumes", by_peer=True))
        return rest

    def forget_resumption(self) -> None:
        """Nobody may resume this connection any more. One that is suspended ends."""
        if self._state in _AWAY:
            self._finish(ConnectionEnded(None, "the session may not be resumed any more", by_peer=False))
        self._drop_ledger()

    def close(self, text: str = "", code: int | None = None) -> None:
        """As ever; a connection without a line has nobody to say goodbye to."""
        if self._state in _AWAY:
            self._finish(ConnectionEnded(code, text, by_peer=False))
        else:
            super().close(text, code)

    def next_timer(self) -> float | None:
        return super().next_timer() if self._resume_by is None or self.closed else self._resume_by

    def handle_timer(self, now: float) -> list[Event]:
        if self._resume_by is None:
            return super().handle_timer(now)
        if now >= self._resume_by:
            text = f"the line was lost, and the session was not resumed within {self.limits.resume_seconds:g} s"
            self._finish(ConnectionEnded(None, text, by_peer=True))
        return self._take_events()

    # ---- frames ----------------------------------------------------------------------------------------------

    def _on_resume_ok(self, stream_id: int, flags: int, data: bytes, begin: int, end: int) -> int:
        received = read_position(data, begin, end)
        try:
            self._reopen(ConnectionState.JOINED, [], received, self._now)
        except ProtocolViolation as problem:
            raise ProtocolViolation(problem.public) from problem  # to a server, the code is CONNECTION_ERROR
        if self._heartbeat is not None:
            self._heartbeat.restart(self._now)
        self._events.append(LineResumed())
        return MOVED

    def _on_resume_refused(self, stream_id: int, flags: int, data: bytes, begin: int, end: int) -> int:
        self._finish(ConnectionEnded(*read_error(data, begin, end, self.limits.error_text), by_peer=True))
        return MOVED

    def _on_frame_before_resume_ok(self, stream_id: int, flags: int, data: bytes, begin: int, end: int) -> None:
        raise ProtocolViolation("the answer to RESUME is RESUME_OK or an error")

    def _heard_position(self, position: int) -> None:
        super()._heard_position(position)
        self._asked = False

    # ---- moving on -------------------------------------------------------------------------------------------

    def _established(self, setup: SetupReceived) -> None:
        if setup.resume_token is not None:
            self._ledger = Ledger(self.limits.resume_bytes, self._pool, self.holding)
        super()._established(setup)

    def _reopen(self, state: ConnectionState, first: list[bytes], received: int, now: float) -> None:
        """Goes on over a new line: `first`, a lease, then all that the peer has not `received`."""
        ledger = self._ledger
        assert ledger is not None
        again = ledger.replay(received)
        ledger.release(received)
        if self._allowance is not None and self._grant is not None:
            self._allowance.revoke()
            first.append(self._grant.renew(now))
        self._resume_by = None
        self._asked = False
        self._now = now
        self._enter(state)
        self._put_ahead(first + again + ledger.take_back())

    def _put_ahead(self, frames: list[bytes]) -> None:
        self._ahead += frames
        self.queued += sum(map(len, frames))

    def _recorded(self, out: list[bytes]) -> list[bytes]:
        """What is written of `out` and before it; all of it with a position is retained."""
        ledger, away = self._ledger, self._state in _AWAY
        assert ledger is not None
        ahead, self._ahead = self._ahead, []
        frames = b"".join(out)
        unnumbered = ledger.record(frames) if frames else []
        if away:
            self._keep_back(unnumbered)
            return ahead
        if frames:
            ahead.append(frames)
        ledger.trim()
        if ledger.is_filling and not self._asked and self._state is not ConnectionState.JOINING:
            self._asked = True
            self.frames_out += 1
            ahead.append(self._keepalive(b"", respond=True))
        return ahead

    def _keep_back(self, unnumbered: list[bytes]) -> None:
        """Keeps, of the frames without a position, those that say something on another line too."""
        ledger = self._ledger
        assert ledger is not None
        for one in unnumbered:
            if read_start(one, 0)[3] >> TYPE_SHIFT == FrameType.METADATA_PUSH:
                ledger.put_aside(one)
        if ledger.is_over:
            text = f"more than {self.limits.resume_bytes} bytes, or too much in all, waited for a peer that was away"
            self._finish(ConnectionEnded(ErrorCode.CONNECTION_ERROR, text, by_peer=True))

    def _line_is_dead(self, text: str, now: float) -> None:
        if not self.suspend(now):
            super()._line_is_dead(text, now)
        elif not self.closed:
            self._events.append(LineLost(text))

    def _end(self, code: int, text: str) -> None:
        if self._state in _AWAY:
            self._put_ahead([error(0, code, text, self.limits.error_text)])
            self._finish(ConnectionEnded(code, text, by_peer=False))
        else:
            super()._end(code, text)

    def _finish(self, end: ConnectionEnded) -> None:
        if self._state in _AWAY:  # what waits was not for this line: before RESUME_OK only RESUME and an error may go
            self._out = []
            self.queued = sum(map(len, self._ahead))
        self._out[:0] = self._ahead
        self._ahead = []
        super()._finish(end)
        self._resume_by = None
        self._drop_ledger()

    def _drop_ledger(self) -> None:
        ledger, self._ledger = self._ledger, None
        if ledger is not None:
            ledger.clear()
