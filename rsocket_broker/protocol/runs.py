"""The fast lane: requests that stand one behind the other in one read, handled in one loop without an event for each.

This is what a busy connection does nearly all the time, so it is written for the number of steps that a request
costs: requests to one handler begin alike, so they are cut by what they begin with (`starts.cut`) and nothing is looked
up for each; and of a request that has been answered no trace is left.
"""

from collections.abc import Callable
from functools import partial
from typing import Final

from rsocket_broker.payload import Payload
from rsocket_broker.protocol.codes import METADATA, TYPE_SHIFT, ErrorCode, FrameType
from rsocket_broker.protocol.limits import LIGHT, Limits
from rsocket_broker.protocol.starts import HEADER, OPENING, PREFIX, cut, pack_start, read_start
from rsocket_broker.protocol.states import ConnectionState, StreamState
from rsocket_broker.protocol.streams import ENOUGH_AT_ONCE, LAST_PAYLOAD, NEAR_THE_LAST_ID, Streams
from rsocket_broker.quota import FULL, STEP

QUICK: Final = 128 * 1024
"""The largest request that goes through the lane, if there is a shortcut for it: whoever asks for more does not ask
often enough to gain by it, and half a read is still left for others."""

_BODY: Final = PREFIX + HEADER
_ASK: Final = FrameType.REQUEST_RESPONSE << TYPE_SHIFT
_FIRE: Final = FrameType.REQUEST_FNF << TYPE_SHIFT
_KIND: Final = 2
"""Bytes of type and flags."""
_METADATA: Final = _KIND + PREFIX
_OVER: Final = ConnectionState.CLOSED

Shortcut = Callable[[bytes], object]
"""From the data of a request to what came of it: the data of the answer as bytes, or anything else for the owner to
make an answer of. It raises nothing. What a shortcut for a fire-and-forget returns is ignored."""
Kept = dict[bytes | None, Shortcut]


class Shortcuts:
    """What handles requests with some metadata (None: with none), kept by the owner: to forget them is to empty this.

    A run goes on with the shortcut that it has found until they are emptied: what the handler of one request changed
    holds for the next, and nothing overtakes what it has put behind others.
    """

    __slots__ = ("calls", "fires")

    def __init__(self) -> None:
        self.calls: Kept = {}
        """For request-response."""
        self.fires: Kept = {}
        """For fire-and-forget."""

    def clear(self) -> None:
        self.calls.clear()
        self.fires.clear()


class Runs(Streams):
    """Streams with a fast lane. `Protocol` is the class to use."""

    def __init__(self, limits: Limits, state: ConnectionState, now: float) -> None:
        super().__init__(limits, state, now)
        self.shortcuts = Shortcuts()
        self.owed_at_once = 0
        """Those of `answered_at_once` whose answer came later."""
        self._heavy = 0
        """Bytes of the request that is being handled, where they count."""
        self.answered_at_once = 0
        """Requests that went through the fast lane, whether or not their answer came at once."""
        self.answer_at_once: Callable[[int, bytes, bytes | None], Payload | None] | None = None
        """Opens the fast lane: called with stream id, data and metadata of a request-response that has no shortcut.

        It returns the answer, or None after `owe` or an error of its own making. The lane is used only while no
        earlier event waits, so that what one peer sends is still handled in its order, and only while little is queued.
        """
        self.is_addressed: Callable[[bytes, int, int], bool] | None = None
        """Given a buffer and the bounds of a body with metadata: whether another client is to answer. None: never."""
        self.finish_answer: Callable[[int, object], Payload | None] = lambda stream_id, found: None
        """Called with stream id and whatever a shortcut of `calls` gave that is not bytes; it returns as the above."""

    def _on_request_response(self, stream_id: int, flags: int, data: bytes, begin: int, end: int) -> int | None:
        if (
            self.answer_at_once is not None
            and stream_id == self._peer_next < NEAR_THE_LAST_ID
            and not flags & ~METADATA
            and HEADER + end - begin <= QUICK
            and not self._events
            and self.queued <= ENOUGH_AT_ONCE
        ):
            after = self._run(data, begin - _BODY)
            if after >= begin:
                return after
        return super()._on_request_response(stream_id, flags, data, begin, end)

    def _on_fire_and_forget(self, stream_id: int, flags: int, data: bytes, begin: int, end: int) -> int | None:
        if (
            self.shortcuts.fires
            and self.answer_at_once is not None
            and stream_id == self._peer_next < NEAR_THE_LAST_ID
            and not flags & ~METADATA
            and HEADER + end - begin <= QUICK
            and not self._events
        ):
            after = self._run(data, begin - _BODY)
            if after >= begin:
                return after
        return super()._on_fire_and_forget(stream_id, flags, data, begin, end)

    def _run(self, data: bytes, at: int) -> int:
        """Handles requests from `at` on; returns where the rest begins.

        It stops at the first frame that is anything else, one with any other flag too, at one that another client is
        to answer, and at a fire-and-forget that has no shortcut. That may be the first frame: the caller must then do
        something else with it, or it would come back for ever.
        """
        most, first, expected = PREFIX + min(self.limits.frame, QUICK), self._peer_next, self._peer_next
        while len(data) - at >= _BODY:
            found = self._find(data, at, most)
            if found is None:
                break
            opening, shortcut, kept, end = found
            if shortcut is None:  # by the next request there may be one
                metadata = opening[_METADATA:] if len(opening) > _KIND else None
                shortcut = partial(self._ask, expected, metadata)
                bodies, after = cut(data[at:end], 0, expected, opening, most)
                after += at
            else:
                bodies, after = cut(data, at, expected, opening, most)
            handled = self._serve(shortcut, kept, bodies, expected, OPENING - HEADER + len(opening))
            expected += 2 * handled
            if handled < len(bodies):
                at += sum(map(len, bodies[:handled])) + handled * (OPENING + len(opening))
                break
            at = after
            if not handled or self.queued > ENOUGH_AT_ONCE or self._state is _OVER:
                break
        self._peer_next = expected
        handled = (expected - first) // 2
        self.answered_at_once += handled
        self.frames_in += handled - 1 if handled else 0  # the reader counts one
        return at

    def _find(self, data: bytes, at: int, most: int) -> tuple[bytes, Shortcut | None, Kept, int] | None:
        """What requests like the one at `at` begin with behind their stream id, the shortcut for them, those among
        which it was looked for, and the end of this one. None for a frame that does not belong into a run: it has more
        than `most` bytes, or is not whole.
        """
        high, low, _, kind = read_start(data, at)
        asks = kind & ~METADATA == _ASK
        if not asks and kind & ~METADATA != _FIRE:
            return None
        length = high << 16 | low
        begin, end = at + _BODY, at + PREFIX + length
        if end > len(data) or end - at > most:
            return None
        after, metadata = begin, None
        if kind & METADATA:
            after += PREFIX + int.from_bytes(data[begin : begin + PREFIX], "big")
            if after > end or (self.is_addressed is not None and self.is_addressed(data, begin, end)):
                return None
            metadata = data[begin + PREFIX : after]
        kept = self.shortcuts.calls if asks else self.shortcuts.fires
        shortcut = kept.get(metadata)
        if shortcut is None and (not asks or length > LIGHT):
            return None
        return data[at + OPENING : after], shortcut, kept, end

    def _serve(self, shortcut: Shortcut, kept: Kept, bodies: list[bytes], stream_id: int, head: int) -> int:
        """Answers the requests with these data, the first of which has that stream id, until the connection ends,
        enough is queued, or the shortcuts are emptied. Returns how many that were. `head`: what each frame has in front
        of its data, without its length."""
        whole, handled = self._in_one_piece, 0
        answer: object
        for body in bodies:
            answer = shortcut(body)
            handled += 1
            if self._state is _OVER:
                break  # the handler ended the connection
            if type(answer) is bytes and (given := HEADER + len(answer)) <= whole:
                self._out.append(pack_start(0, given, stream_id, LAST_PAYLOAD) + answer)  # whole < 1 << 16
                self.queued += PREFIX + given
            elif answer is not None:
                self._heavy = length if (length := head + len(body)) > LIGHT else 0
                self._give(stream_id, answer)
                self._heavy = 0
            if self.queued > ENOUGH_AT_ONCE or not kept:
                break
            stream_id += 2
        return handled

    def _ask(self, stream_id: int, metadata: bytes | None, data: bytes) -> Payload | None:
        assert self.answer_at_once is not None
        return self.answer_at_once(stream_id, data, metadata)

    def _give(self, stream_id: int, answer: object) -> None:
        """An answer that is not the usual few bytes."""
        if not isinstance(answer, (Payload, bytes)):  # a union is made anew each time
            answer = self.finish_answer(stream_id, answer)
        if answer is None or self._state is ConnectionState.CLOSED:
            return
        data, metadata = (answer, None) if isinstance(answer, bytes) else (answer.data or b"", answer.metadata)
        if len(data) >= STEP and not self.holding.bears(len(data)):
            self._refuse(stream_id, ErrorCode.REJECTED, FULL)
            return
        self._send_message(stream_id, LAST_PAYLOAD, b"", data, metadata)

    def owe(self, stream_id: int) -> bool:
        """For `answer_at_once` and `finish_answer`: the answer comes later, by `send_payload` or `send_error`.

        False when the peer has too much open: it has been told, and no answer may come.
        """
        if self._state is ConnectionState.CLOSED or not self._has_room(stream_id):
            return False
        if self._heavy and not self._can_bear(stream_id, self._heavy):
            return False
        self._states[stream_id] = StreamState.OWES_RESPONSE
        self.owed_at_once += 1
        return True
