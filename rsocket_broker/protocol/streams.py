"""The streams of a connection: requests of the peer, payloads, credit, cancel and errors, fragments."""

from typing import Final

from rsocket_broker.errors import ProtocolViolation, RequestFailed
from rsocket_broker.protocol.codes import (
    COMPLETE,
    FOLLOWS,
    IGNORE,
    MAX_31,
    METADATA,
    NEXT,
    TYPE_SHIFT,
    ErrorCode,
    FrameType,
    Interaction,
)
from rsocket_broker.protocol.events import (
    AnswersReceived,
    CancelReceived,
    ErrorReceived,
    Event,
    PayloadReceived,
    RequestNReceived,
    RequestReceived,
)
from rsocket_broker.protocol.fragments import Reassembler, fragments
from rsocket_broker.protocol.frames import (
    HEADER,
    PREFIX,
    Octets,
    cancel,
    error,
    joined,
    read_error,
    read_number,
    read_start,
    split,
    start,
)
from rsocket_broker.protocol.limits import LIGHT, Limits
from rsocket_broker.protocol.line import Line
from rsocket_broker.protocol.states import GIVING_UP, ROWS, ConnectionState, Effect, Input, StreamState
from rsocket_broker.quota import FULL, STEP, Holding, Kind, counted

WORTH_A_COPY: Final = 16 * 1024
"""Header and payload are joined up to this size; beyond, copying costs more than one more buffer to write."""
ENOUGH_AT_ONCE: Final = 256 * 1024
"""Bytes queued, at which answers are no longer given at once: the owner must get the chance to write."""
NEAR_THE_LAST_ID: Final = MAX_31 - (1 << 22)
"""Below this the next id in sequence is new without a look; one read holds fewer frames than there are ids above."""
LAST_PAYLOAD: Final = FrameType.PAYLOAD << TYPE_SHIFT | NEXT | COMPLETE
"""Type and flags of the answer to a request-response."""
_NEXT_PAYLOAD: Final = FrameType.PAYLOAD << TYPE_SHIFT | NEXT
_FIRE: Final = Interaction.FIRE_AND_FORGET
WITH_CREDIT: Final = frozenset({Interaction.REQUEST_STREAM, Interaction.REQUEST_CHANNEL})

# Looked up for every frame: plain names are much cheaper than attributes of an enum.
_CLOSED: Final = StreamState.CLOSED
_ASKED_RESPONSE: Final = StreamState.ASKED_RESPONSE
_NOT_PLAIN: Final = FOLLOWS | METADATA
_OWES_RESPONSE: Final = StreamState.OWES_RESPONSE
_ASSEMBLING: Final = StreamState.ASSEMBLING
_SPEND: Final = Effect.SPEND
_NO_EFFECT: Final = Effect.IGNORE
_SENT_ALL: Final = frozenset({StreamState.ASKED_CHANNEL_SENT_ALL, StreamState.OWES_CHANNEL_SENT_ALL})
_make: Final = tuple.__new__
"""Builds a named tuple in half the time of calling its class."""

_OWED: Final = {
    Interaction.REQUEST_RESPONSE: StreamState.OWES_RESPONSE,
    Interaction.FIRE_AND_FORGET: StreamState.CLOSED,
    Interaction.REQUEST_STREAM: StreamState.OWES_STREAM,
    Interaction.REQUEST_CHANNEL: StreamState.OWES_CHANNEL,
}


class Streams(Line):
    """The streams of both sides, moved on by the rows of `states.STREAM`. `Protocol` is the class to use."""

    def __init__(self, limits: Limits, state: ConnectionState, now: float) -> None:
        super().__init__(limits, state, now)
        self._peer_parity = 1 if self.is_server else 0
        self._peer_next = 1 if self.is_server else 2
        self._own_streams = 0
        self._fragment = limits.fragment
        self._in_one_piece = min(limits.fragment, WORTH_A_COPY)
        self._credit: dict[int, int] = {}
        self._granted: dict[int, int] = {}
        self._requests: dict[int, Interaction] = {}
        self._weights: dict[int, int] = {}
        """Bytes of the requests that are being served and are not light."""
        self._weight = 0
        self._weighed = 0
        """What the holding knows of that."""
        self._reassembler = Reassembler(limits, self.holding)
        self.answers_in_runs = False
        """Whether the owner takes plain answers that stand one behind the other as one AnswersReceived."""

    def count_in(self, holding: Holding) -> None:
        """What the peer makes us hold counts there. Before anything was received."""
        self.holding = holding
        self._reassembler = Reassembler(self.limits, holding)

    def widen(self, limits: Limits) -> None:
        """These limits hold from now on. For a server that has judged a SETUP and not accepted it yet."""
        self.limits = limits
        self._fragment = limits.fragment
        self._in_one_piece = min(limits.fragment, WORTH_A_COPY)
        self._reassembler = Reassembler(limits, self.holding)

    # ---- requests of the peer --------------------------------------------------------------------------------

    def _on_request_response(self, stream_id: int, flags: int, data: bytes, begin: int, end: int) -> int | None:
        if self._may_open(stream_id):
            self._open(Interaction.REQUEST_RESPONSE, stream_id, flags, 0, data, begin, end)
        return None

    def _on_fire_and_forget(self, stream_id: int, flags: int, data: bytes, begin: int, end: int) -> int | None:
        if stream_id == self._peer_next < NEAR_THE_LAST_ID and not flags & (FOLLOWS | METADATA):
            self._peer_next = stream_id + 2
            self._events.append(_make(RequestReceived, (stream_id, _FIRE, data[begin:end], None, 0, False)))
        elif self._may_open(stream_id):
            self._open(_FIRE, stream_id, flags, 0, data, begin, end)
        return None

    def _on_request_stream(self, stream_id: int, flags: int, data: bytes, begin: int, end: int) -> None:
        initial_n = read_number(data, begin, end)
        if self._may_open(stream_id):
            self._open(Interaction.REQUEST_STREAM, stream_id, flags, initial_n, data, begin + 4, end)

    def _on_request_channel(self, stream_id: int, flags: int, data: bytes, begin: int, end: int) -> None:
        initial_n = read_number(data, begin, end)
        if self._may_open(stream_id):
            self._open(Interaction.REQUEST_CHANNEL, stream_id, flags, initial_n, data, begin + 4, end)

    def _on_request_too_late(self, stream_id: int, flags: int, data: bytes, begin: int, end: int) -> None:
        if self._may_open(stream_id):
            self._refuse(stream_id, ErrorCode.REJECTED, "the connection is closing")

    def _may_open(self, stream_id: int) -> bool:
        """Whether the peer may start this stream. If not, it is told, or ignored where the specification says so.

        An id below an earlier one is taken when it is free: rsocket-py numbers a stream when it is made and sends it
        when it is subscribed to, and the specification lets ids wrap round.
        """
        if stream_id in self._states or not 0 < stream_id <= MAX_31:
            return False
        if stream_id & 1 != self._peer_parity:
            self._refuse(stream_id, ErrorCode.INVALID, "the stream id belongs to the other side")
            return False
        self._peer_next = max(self._peer_next, stream_id + 2)
        return True

    def _has_room(self, stream_id: int) -> bool:
        if len(self._states) - self._own_streams < self.limits.streams:
            return True
        self._refuse(stream_id, ErrorCode.REJECTED, f"more than {self.limits.streams} streams are open")
        return False

    def _refuse(self, stream_id: int, code: int, text: str) -> None:
        """Answers a request that opened no stream."""
        self._send(error(stream_id, code, text, self.limits.error_text))

    def _open(
        self, interaction: Interaction, stream_id: int, flags: int, initial_n: int, data: bytes, begin: int, end: int
    ) -> None:
        parts = self._parts(flags, data, begin, end)
        if parts is None:
            return
        if not initial_n and interaction in WITH_CREDIT:
            self._refuse(stream_id, ErrorCode.INVALID, "a request for no payloads at all")
        elif (flags & FOLLOWS or interaction is not _FIRE) and not self._has_room(stream_id):
            return  # the peer has been told; what is whole and wants no answer needs no room
        elif flags & FOLLOWS:
            self._assemble(interaction, stream_id, flags, initial_n, parts)
        else:
            self._credit[stream_id] = initial_n
            self._deliver(interaction, stream_id, *parts, complete=bool(flags & COMPLETE))

    def _assemble(
        self, interaction: Interaction, stream_id: int, flags: int, initial_n: int, parts: tuple[bytes | None, bytes]
    ) -> None:
        """The first fragment of a request."""
        self._credit[stream_id] = initial_n
        self._states[stream_id] = _ASSEMBLING
        self._requests[stream_id] = interaction
        self._gather(stream_id, flags, *parts)

    def _deliver(
        self, interaction: Interaction, stream_id: int, metadata: bytes | None, data: bytes, *, complete: bool
    ) -> None:
        """A request is whole."""
        size = len(data) + (0 if metadata is None else len(metadata))
        if size > LIGHT and interaction is not _FIRE and not self._can_bear(stream_id, size):
            return
        state = _OWED[interaction]
        initial_n = self._credit[stream_id] if interaction in WITH_CREDIT else 0
        if not initial_n:
            del self._credit[stream_id]
        if interaction is Interaction.REQUEST_CHANNEL:
            self._granted[stream_id] = 0
            if complete:
                state = StreamState.OWES_CHANNEL_HEARD_ALL
        else:
            complete = False
        self._states[stream_id] = state
        self._events.append(_make(RequestReceived, (stream_id, interaction, data, metadata, initial_n, complete)))
        if state is _CLOSED:
            self._forget(stream_id)

    def _can_bear(self, stream_id: int, size: int) -> bool:
        """Whether a request of that size may be served beside the others. If not, the peer is told."""
        weight = self._weight + size
        if weight > self.limits.serving:
            why = f"open requests hold more than {self.limits.serving} bytes"
        elif weight - self._weighed >= STEP and not self.holding.reserve(Kind.REQUESTS, weight):
            why = FULL
        else:
            self._weights[stream_id] = size
            self._weight = weight
            if weight - self._weighed >= STEP:
                self._weighed = weight
            return True
        self._credit.pop(stream_id, None)
        self._states.pop(stream_id, None)
        self._refuse(stream_id, ErrorCode.REJECTED, why)
        return False

    def _unburden(self, stream_id: int) -> None:
        """A request that was not light is served."""
        self._weight -= self._weights.pop(stream_id, 0)
        if self._weighed and (self._weight < STEP or self._weighed - self._weight >= STEP):
            self._weighed = counted(self._weight)
            self.holding.note(Kind.REQUESTS, self._weighed)

    def _parts(self, flags: int, data: bytes, begin: int, end: int) -> tuple[bytes | None, bytes] | None:
        """Metadata and data. None when they do not fit and the frame allows to be ignored."""
        if not flags & METADATA:
            return None, data[begin:end]
        try:
            return split(data, begin, end)
        except ProtocolViolation:
            if flags & IGNORE:
                return None
            raise

    # ---- frames on open streams ------------------------------------------------------------------------------

    def _on_payload(self, stream_id: int, flags: int, data: bytes, begin: int, end: int) -> int | None:
        state = self._states.get(stream_id)
        if state is None:
            return None
        if state is _ASKED_RESPONSE and not flags & _NOT_PLAIN and stream_id not in self._reassembler.unfinished:
            # Nearly all that is answered to us: the stream ends with it, and nothing but its state was kept.
            if self.answers_in_runs and flags & ~COMPLETE == NEXT:
                return self._answers_run(data, begin - PREFIX - HEADER)
            self._events.append(_make(PayloadReceived, (stream_id, data[begin:end], None, flags & NEXT == NEXT, True)))
            del self._states[stream_id]
            self._own_streams -= 1
            return None
        parts = self._parts(flags, data, begin, end)
        if parts is None:
            return None
        if flags & FOLLOWS or stream_id in self._reassembler.unfinished:
            self._gather(stream_id, flags, *parts)
        else:
            self._take(stream_id, state, (flags & (NEXT | COMPLETE)) >> 5, *parts)
        return None

    def _answers_run(self, data: bytes, at: int) -> int:
        """Takes the plain answers that stand one behind the other, the first of which is at `at`: one event for all.

        Returns where the rest begins: the first frame that is anything else.
        """
        states, unfinished, size, limit = self._states, self._reassembler.unfinished, len(data), self.limits.frame
        answers: list[tuple[int, bytes]] = []
        while size - at >= PREFIX + HEADER:
            high, low, stream_id, kind = read_start(data, at)
            length = high << 16 | low
            end = at + PREFIX + length
            if end > size or not HEADER <= length <= limit or kind & ~COMPLETE != _NEXT_PAYLOAD:
                break
            if states.get(stream_id) is not _ASKED_RESPONSE or (unfinished and stream_id in unfinished):
                break
            del states[stream_id]
            answers.append((stream_id, data[at + PREFIX + HEADER : end]))
            at = end
        self._own_streams -= len(answers)
        self.frames_in += len(answers) - 1  # the reader counts one
        self._events.append(_make(AnswersReceived, (answers,)))
        return at

    def _take(self, stream_id: int, state: StreamState, bits: int, metadata: bytes | None, data: bytes) -> None:
        """A whole payload; `bits` are its N (1) and C (2) flags."""
        effect, after = ROWS[state][bits]
        if effect is _NO_EFFECT:
            return
        if effect is _SPEND:
            if self._granted[stream_id] < 1:
                self._give_up(stream_id, ErrorCode.INVALID, "more payloads were sent than were asked for")
                return
            self._granted[stream_id] -= 1
        last = bits > 1 or after is _CLOSED
        self._events.append(_make(PayloadReceived, (stream_id, data, metadata, bits & 1 == 1, last)))
        if after is not state:
            self._move(stream_id, after)

    def _gather(self, stream_id: int, flags: int, metadata: bytes | None, data: bytes) -> None:
        """One fragment of a message on a stream that is known."""
        state = self._states[stream_id]
        if state is not _ASSEMBLING and ROWS[state][Input.HEARD_NEXT][0] is _NO_EFFECT:
            return
        try:
            self._reassembler.add(stream_id, data, metadata, has_next=bool(flags & NEXT))
        except RequestFailed as problem:
            self._give_up(stream_id, problem.code, problem.public)
            return
        if flags & FOLLOWS:
            return
        whole, has_next = self._reassembler.finish(stream_id)
        if state is _ASSEMBLING:
            self._deliver(self._requests.pop(stream_id), stream_id, *whole, complete=bool(flags & COMPLETE))
        else:
            self._take(stream_id, state, has_next + (2 if flags & COMPLETE else 0), *whole)

    def _give_up(self, stream_id: int, code: int, text: str) -> None:
        """Ends a stream whose peer broke a rule, and tells both sides why."""
        state = self._states[stream_id]
        self._step(stream_id, GIVING_UP[state])
        if GIVING_UP[state] is Input.SENT_CANCEL:
            self._send(cancel(stream_id))
        else:
            self._refuse(stream_id, code, text)
        if state is not _ASSEMBLING:
            self._events.append(ErrorReceived(stream_id, code, text))

    def give_up_unfinished(self, text: str) -> list[Event]:
        """Ends every stream with a message whose fragments are still coming."""
        for stream_id in tuple(self._reassembler.unfinished):
            self._give_up(stream_id, ErrorCode.REJECTED, text)
        return self._take_events()

    def _on_request_n(self, stream_id: int, flags: int, data: bytes, begin: int, end: int) -> None:
        n = read_number(data, begin, end)
        state = self._states.get(stream_id)
        effect = _NO_EFFECT if state is None else ROWS[state][Input.HEARD_REQUEST_N][0]
        if effect is _NO_EFFECT:
            return
        if not n:
            self._give_up(stream_id, ErrorCode.INVALID, "a request for no payloads at all")
            return
        self._credit[stream_id] = min(self._credit[stream_id] + n, MAX_31)
        if effect is Effect.PASS:
            self._events.append(RequestNReceived(stream_id, n))

    def _on_cancel(self, stream_id: int, flags: int, data: bytes, begin: int, end: int) -> None:
        if self._step(stream_id, Input.HEARD_CANCEL):
            self._events.append(CancelReceived(stream_id))

    def _on_error(self, stream_id: int, flags: int, data: bytes, begin: int, end: int) -> int | None:
        code, text = read_error(data, begin, end, self.limits.error_text)
        if not stream_id:
            return self._on_connection_error(code, text)
        if self._step(stream_id, Input.HEARD_ERROR):
            self._events.append(ErrorReceived(stream_id, code, text))
        return None

    # ---- moving on -------------------------------------------------------------------------------------------

    def _step(self, stream_id: int, given: Input) -> bool:
        """Moves a stream on. True when the input is to be reported or sent, False when it changes nothing.

        Raises ProtocolViolation when the table has no row: a mistake of ours.
        """
        state = self._states.get(stream_id)
        if state is None:
            return False
        row = ROWS[state][given]
        if row is None:
            raise ProtocolViolation(f"a stream in state {state.name} cannot take {given.name}")
        effect, after = row
        if after is not state:
            self._move(stream_id, after)
        return effect is not _NO_EFFECT

    def _move(self, stream_id: int, after: StreamState) -> None:
        if after is _CLOSED:
            self._forget(stream_id)
            return
        self._states[stream_id] = after
        if ROWS[after][Input.HEARD_NEXT][0] is _NO_EFFECT:
            self._reassembler.drop(stream_id)
        if after in _SENT_ALL:
            self._credit[stream_id] = 0

    def _forget(self, stream_id: int) -> None:
        """Drops everything that is kept for a stream that has ended."""
        if stream_id & 1 != self._peer_parity:
            self._own_streams -= 1
        if stream_id in self._weights:
            self._unburden(stream_id)
        if self._states.pop(stream_id) is _OWES_RESPONSE:
            return  # it has no credit and takes no payloads: nothing else is kept
        self._credit.pop(stream_id, None)
        self._granted.pop(stream_id, None)
        self._requests.pop(stream_id, None)
        self._reassembler.drop(stream_id)

    def _forget_all(self) -> None:
        self._states.clear()
        self._own_streams = 0
        self._credit.clear()
        self._granted.clear()
        self._requests.clear()
        self._weights.clear()
        self._weight = self._weighed = 0
        self.holding.note(Kind.REQUESTS, 0)
        self._reassembler.clear()

    # ---- writing ---------------------------------------------------------------------------------------------

    def _send_message(self, stream_id: int, kind: int, leading: bytes, data: Octets, metadata: Octets | None) -> None:
        """A message in one frame, or in fragments where it does not fit."""
        size = HEADER + len(leading) + len(data) + (0 if metadata is None else PREFIX + len(metadata))
        if size > self._fragment:
            for frame in fragments(stream_id, kind, leading, data, metadata, self._fragment):
                self._send(frame)
            return
        if metadata is not None:
            kind |= METADATA
        head = start(size, stream_id, kind) + leading
        if size < WORTH_A_COPY:
            self._send(head + joined(metadata, data))
            return
        body = bytes(data)
        self._send(head + joined(metadata, b""))
        self._out.append(body)
        self.queued += len(data)
        self.frames_out -= 1  # what is taken out is counted in pieces, and this frame has two
