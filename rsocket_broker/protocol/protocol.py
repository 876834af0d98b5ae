"""One RSocket connection without I/O: bytes and time in, events and bytes out (RSocket 1.0, both roles)."""

from collections.abc import Iterator
from itertools import islice
from typing import Any, Final, Self

from rsocket_broker.errors import ConnectionClosed, ProtocolViolation, Rejected
from rsocket_broker.payload import Payload
from rsocket_broker.protocol.codes import (
    COMPLETE,
    MAX_31,
    METADATA,
    NEXT,
    TYPE_SHIFT,
    FrameType,
    Interaction,
)
from rsocket_broker.protocol.frames import (
    HEADER,
    PREFIX,
    Octets,
    Setup,
    cancel,
    error,
    joined,
    metadata_push,
    number,
    pack_start,
    request_n,
    setup,
)
from rsocket_broker.protocol.keepalive import Heartbeat
from rsocket_broker.protocol.limits import Limits
from rsocket_broker.protocol.resume import Ledger, Pool
from rsocket_broker.protocol.states import CONNECTION, ROWS, ConnectionState, Effect, Input, StreamState, action
from rsocket_broker.protocol.streams import ENOUGH_AT_ONCE, NEAR_THE_LAST_ID, WITH_CREDIT
from rsocket_broker.protocol.suspension import Suspension

# Looked up for every frame: plain names are much cheaper than attributes of an enum.
_CLOSED: Final = StreamState.CLOSED
_ASKED_RESPONSE: Final = StreamState.ASKED_RESPONSE
_SERVING: Final = ConnectionState.SERVING
_ASK: Final = FrameType.REQUEST_RESPONSE << TYPE_SHIFT
_SPEND: Final = Effect.SPEND
_NO_EFFECT: Final = Effect.IGNORE
_SENT: Final = int(Input.SENT_NEXT) - 1
_SENT_KINDS: Final = tuple(
    FrameType.PAYLOAD << TYPE_SHIFT | (NEXT if bits & 1 else 0) | (COMPLETE if bits & 2 else 0) for bits in range(4)
)
_NEXT_PAYLOAD: Final = _SENT_KINDS[1]
_OPEN: Final = frozenset(
    {
        ConnectionState.SERVING,
        ConnectionState.JOINING,
        ConnectionState.JOINED,
        ConnectionState.SUSPENDED,
        ConnectionState.RESUMING,
    }
)
_ASKED: Final = {
    Interaction.REQUEST_RESPONSE: StreamState.ASKED_RESPONSE,
    Interaction.FIRE_AND_FORGET: StreamState.CLOSED,
    Interaction.REQUEST_STREAM: StreamState.ASKED_STREAM,
    Interaction.REQUEST_CHANNEL: StreamState.ASKED_CHANNEL,
}


class Protocol(Suspension):
    """The state of one connection.

    Feed it with `receive_data`, `receive_eof` and `handle_timer`, act on the events that they return, and write what
    `data_to_send` gives. `next_timer` says when to call `handle_timer`. Once `closed`, it takes and gives nothing
    more, except what is left in `data_to_send`.

    Sending on a stream that has ended does nothing: the peer's CANCEL may have crossed it. Sending what a stream in
    its state may never send is a mistake of ours and raises ProtocolViolation.
    """

    def __init__(self, limits: Limits, state: ConnectionState, now: float) -> None:
        """Use `server` or `client`."""
        super().__init__(limits, state, now)
        self._next_id = 2 if self.is_server else 1
        self._wrapped = False

    @classmethod
    def server(cls, limits: Limits, now: float, pool: Pool | None = None) -> Self:
        """The side that waits for a SETUP. `pool` bounds what it retains for resumption together with others."""
        self = cls(limits, ConnectionState.EXPECTING, now)
        if pool is not None:
            self._pool = pool
        return self

    @classmethod
    def client(cls, value: Setup, limits: Limits, now: float) -> Self:
        """The side that sends `value` as its SETUP, which is in `data_to_send` at once.

        Raises ValueError when that does not fit into one frame, or asks for a resumption that `limits` give no time.
        """
        self = cls(limits, ConnectionState.JOINING, now)
        self._heartbeat = Heartbeat(value.keepalive_ms, value.lifetime_ms, now)
        self._send(setup(value))
        if value.resume_token is not None:
            if not limits.resume_seconds:
                raise ValueError("a connection that can be resumed needs a time limit for it")
            self._token = value.resume_token
            self._ledger = Ledger(limits.resume_bytes, self._pool)
        if value.lease:
            self._begin_leases()
        return self

    @property
    def is_open(self) -> bool:
        """Requests may be sent: SETUP is accepted (server) or sent (client), and nobody is leaving.

        What is sent while the connection is suspended goes out once it is resumed.
        """
        return self._state in _OPEN

    @property
    def streams(self) -> int:
        """Open streams of both sides."""
        return len(self._states)

    def is_live(self, stream_id: int) -> bool:
        """Whether a stream is open, be it on one side only."""
        return stream_id in self._states

    def may_send(self, stream_id: int) -> bool:
        """Whether a payload of ours on this stream would still go anywhere, be it only with more credit."""
        state = self._states.get(stream_id)
        row = None if state is None else ROWS[state][Input.SENT_NEXT]
        return row is not None and row[0] is not _NO_EFFECT

    def credit(self, stream_id: int) -> int:
        """How many payloads the peer still takes on this stream; 0 when it has ended."""
        return self._credit.get(stream_id, 0)

    def granted(self, stream_id: int) -> int:
        """How many payloads the peer may still send us on this stream."""
        return self._granted.get(stream_id, 0)

    def request(
        self,
        interaction: Interaction,
        data: Octets,
        metadata: Octets | None = None,
        initial_n: int = 0,
        *,
        complete: bool = False,
    ) -> int:
        """Sends a request; returns its stream id.

        `initial_n` (1 or more) is the first credit of a stream or channel; `complete` says that a channel has no
        payload beyond this one. Raises ConnectionClosed when no request can be sent any more, or not yet; Rejected when
        the peer's lease allows none (see `may_request`).
        """
        if self._state not in _OPEN:
            raise ConnectionClosed("the connection is not open")
        stream_id = self._next_id if self._next_id < NEAR_THE_LAST_ID and not self._wrapped else self._free_id()
        leading = b""
        if interaction in WITH_CREDIT:
            if not 0 < initial_n <= MAX_31:
                raise ValueError(f"a request for a stream asks for 1 to {MAX_31} payloads")
            leading = number(initial_n)
        if self._allowance is not None:
            self._spend_allowance()
        kind = interaction << TYPE_SHIFT | (COMPLETE if complete else 0)
        size = HEADER + len(data)
        if metadata is None and not leading and size <= self._in_one_piece and type(data) is bytes:
            self._out.append(pack_start(0, size, stream_id, kind) + data)
            self.queued += PREFIX + size
        else:
            self._send_message(stream_id, kind, leading, data, metadata)
        self._next_id = stream_id + 2
        state = _ASKED[interaction]
        if state is _CLOSED:
            return stream_id
        if leading:
            self._granted[stream_id] = initial_n
            self._credit[stream_id] = 0
            if complete and interaction is Interaction.REQUEST_CHANNEL:
                state = StreamState.ASKED_CHANNEL_SENT_ALL
        self._states[stream_id] = state
        self._own_streams += 1
        return stream_id

    def ask(self, data: Octets, metadata: Octets | None = None) -> int:
        """As `request` for a request-response: the usual few bytes in few steps, everything else by that."""
        stream_id, size = self._next_id, HEADER + len(data)
        if (
            self._state is not _SERVING
            or self._allowance is not None
            or self._wrapped
            or stream_id >= NEAR_THE_LAST_ID
            or type(data) is not bytes
        ):
            return self.request(Interaction.REQUEST_RESPONSE, data, metadata)
        if metadata is None:
            if size > self._in_one_piece:
                return self.request(Interaction.REQUEST_RESPONSE, data)
            self._out.append(pack_start(0, size, stream_id, _ASK) + data)
        else:
            size += PREFIX + len(metadata)
            if size > self._in_one_piece or type(metadata) is not bytes:
                return self.request(Interaction.REQUEST_RESPONSE, data, metadata)
            self._out.append(pack_start(0, size, stream_id, _ASK | METADATA) + joined(metadata, data))
        self.queued += PREFIX + size
        self._next_id = stream_id + 2
        self._states[stream_id] = _ASKED_RESPONSE
        self._own_streams += 1
        return stream_id

    def _free_id(self) -> int:
        """The next stream id of ours that is not in use: when all have been used once, they are used again."""
        stream_id = self._next_id
        while stream_id > MAX_31 or self._in_use(stream_id):
            if stream_id > MAX_31:
                self._wrapped = True
                stream_id = 2 if self.is_server else 1
            else:
                stream_id += 2
        return stream_id

    def _in_use(self, stream_id: int) -> bool:
        return stream_id in self._states

    def send_payload(
        self,
        stream_id: int,
        data: Octets,
        metadata: Octets | None = None,
        *,
        next: bool = True,  # noqa: A002  # the specification's name
        complete: bool = False,
    ) -> None:
        """Sends one payload, or with `next=False` only the end of our side. Raises ProtocolViolation without credit."""
        state = self._states.get(stream_id)
        if state is None:
            return
        bits = next + 2 * complete
        row = ROWS[state][_SENT + bits] if bits else None
        if row is None:
            raise ProtocolViolation(f"a stream in state {state.name} cannot send that")
        effect, after = row
        if effect is _NO_EFFECT:
            return
        if effect is _SPEND and self._credit[stream_id] < 1:
            raise ProtocolViolation("the peer has asked for no more")
        size = HEADER + len(data)
        if metadata is None and size <= self._in_one_piece:
            self._out.append(pack_start(size >> 16, size & 0xFFFF, stream_id, _SENT_KINDS[bits]) + data)
            self.queued += size + PREFIX
        else:
            self._send_message(stream_id, _SENT_KINDS[bits], b"", data, metadata)
        if effect is _SPEND:
            self._credit[stream_id] -= 1
        if after is not state:
            self._move(stream_id, after)

    def send_items(
        self, stream_id: int, source: Iterator[Payload | bytes], most: int
    ) -> tuple[bool, Payload | bytes | None]:
        """Sends what `source` yields (bytes are data without metadata), at most `most` payloads and what the peer has
        asked for, and stops early when much is queued. Returns whether `source` has ended, and a payload that it gave
        and that is not small and plain: the caller sends that by `send_payload`, for which there is credit.

        As `send_payload` for each of them, at a fraction of the cost. What `source` raises comes out, after what it
        gave before. If it has ended the stream or the connection meanwhile, nothing of this is sent.
        """
        state = self._states.get(stream_id)
        most = min(most, self._credit.get(stream_id, 0))
        if state is None or ROWS[state][Input.SENT_NEXT] != (_SPEND, state) or not most:
            return False, None
        frames: list[bytes] = []
        whole, size = self._in_one_piece, 0
        try:
            for item in islice(source, most):
                data: Any = item if isinstance(item, bytes) or item.metadata is not None else item.data
                if type(data) is not bytes or (length := HEADER + len(data)) > whole:
                    return False, item
                frames.append(pack_start(0, length, stream_id, _NEXT_PAYLOAD) + data)
                size += PREFIX + length
                if size > ENOUGH_AT_ONCE:
                    return False, None
            return len(frames) < most, None
        finally:
            if self._states.get(stream_id) is state:
                self._out += frames
                self.queued += size
                self._credit[stream_id] -= len(frames)

    def send_error(self, stream_id: int, code: int, text: str) -> None:
        """Ends a stream with an error."""
        if self._step(stream_id, Input.SENT_ERROR):
            self._send(error(stream_id, code, text, self.limits.error_text))

    def end_streams(self, code: int, text: str) -> None:
        """Ends every open stream of both sides, each with a word of its own to the peer: an error where its state has
        one to send, else a cancel, which is all that the specification gives the requester of an answer or a stream."""
        for stream_id, state in tuple(self._states.items()):
            if ROWS[state][Input.SENT_ERROR] is None:
                self.send_cancel(stream_id)
            else:
                self.send_error(stream_id, code, text)

    def send_request_n(self, stream_id: int, n: int) -> None:
        """Lets the peer send `n` payloads more; credit never grows past 2^31 - 1."""
        if n < 1:
            raise ValueError("credit is granted in steps of at least 1")
        if self._step(stream_id, Input.SENT_REQUEST_N):
            n = min(n, MAX_31 - self._granted[stream_id])
            if n:
                self._granted[stream_id] += n
                self._send(request_n(stream_id, n))

    def send_cancel(self, stream_id: int) -> None:
        """We want no more of what the peer sends on this stream."""
        if self._step(stream_id, Input.SENT_CANCEL):
            self._send(cancel(stream_id))

    def metadata_push(self, metadata: Octets) -> None:
        """Sends metadata about the connection. Raises ConnectionClosed when it is not open, Rejected if too long."""
        if self._state not in _OPEN:
            raise ConnectionClosed("the connection is not open")
        if HEADER + len(metadata) > self._fragment:
            raise Rejected(f"a metadata push has at most {self._fragment - HEADER} bytes")
        self._send(metadata_push(metadata))


def dispatch_of(kind: type[Protocol]) -> dict[ConnectionState, tuple[Any, ...]]:
    """The handlers of a class, for each state and frame type."""
    return {state: tuple(getattr(kind, action(state, number).value) for number in range(64)) for state in CONNECTION}


Protocol.DISPATCH = dispatch_of(Protocol)
