"""Passing requests on from one connection to another: the stream id in the frame header is exchanged, nothing else.

A request whose first routing tag is an address (`client:...`) never becomes an event. It gets a stream id of the other
connection, and from then on every frame of either end is written to the other one as it came: payloads are not
decoded, fragments not put together, and no end is told anything that the other did not say. What is looked at is what
a peer could do harm with: lengths inside a frame, credit, and who may still send.

    the requester                 this broker                         the responder
    stream 7 (its own id)   ->    _onward[7]  / _inward[12]     ->    stream 12 (our id)

A relayed stream has two ways, up and down (see `ways`). Both ends share them, so that credit is known once.
"""

from collections.abc import Callable, Iterator
from typing import Any, Final
from typing import Protocol as Interface

from rsocket_broker.errors import Canceled, Invalid, ProtocolViolation, Rejected, RequestFailed
from rsocket_broker.protocol.addresses import address, address_of, is_addressed
from rsocket_broker.protocol.codes import (
    COMPLETE,
    FOLLOWS,
    IGNORE,
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
    cancel,
    error,
    frame,
    pack_start,
    read_number,
    read_start,
    request_n,
)
from rsocket_broker.protocol.limits import Limits
from rsocket_broker.protocol.protocol import Protocol, dispatch_of
from rsocket_broker.protocol.states import ConnectionState
from rsocket_broker.protocol.streams import NEAR_THE_LAST_ID, WITH_CREDIT, WORTH_A_COPY
from rsocket_broker.protocol.ways import REQUEST, Way, are_over, ways

GONE: Final = "The other client has gone."
LEAVING: Final = "The other client is leaving."
UNREAD: Final = "Too much is waiting for a client that does not read."
CROWDED: Final = "Too many streams are passed on to the other client."
UNLEASED: Final = "The other client's lease allows no request at present."

SHARES: Final = 8
"""The part of the relayed streams of one client that any other client may count on, when half are taken: one eighth."""

_FIRE: Final = Interaction.FIRE_AND_FORGET
_CHANNEL: Final = Interaction.REQUEST_CHANNEL
_RESPONSE: Final = Interaction.REQUEST_RESPONSE
_CALL: Final = FrameType.REQUEST_RESPONSE << TYPE_SHIFT | METADATA
_PAYLOAD: Final = FrameType.PAYLOAD << TYPE_SHIFT
_ITEM: Final = _PAYLOAD | NEXT
_ANSWER: Final = _PAYLOAD | NEXT | COMPLETE

_SERVING: Final = ConnectionState.SERVING
_SUSPENDED: Final = ConnectionState.SUSPENDED

Leg = tuple["Relaying", int, Way | None, Way | None]
"""One end of a relayed stream: the other connection, the stream id there, the way of what this end sends, the way of
what it is sent. None: there is nothing to count."""


class Outlet(Interface):
    """What a relaying protocol asks of the connection that it belongs to."""

    def wake(self) -> None:
        """Something was queued, or ended, in the course of another connection's events: write it soon."""

    def make_room(self, feeder: Any, size: int) -> bool:
        """The peer is slow to read, or away, and `feeder` (the Outlet of another protocol) brings a frame for it.

        Slows the feeder down where that can be. False when so much waits that nothing may be added.
        """


Find = Callable[[bytes], "Relaying"]
"""From an address (the whole tag) to the connection of that client. Raises RequestFailed, whose text is for the peer
that sent the address."""


Watch = Callable[[bytes, Interaction | None, int], None]
"""Is told of one request that was passed on: its address, what it asks for (None: a metadata push), its size."""


class Relaying(Protocol):
    """A connection whose peer may send requests to other clients, and be sent theirs. Server side only."""

    def __init__(self, limits: Limits, state: ConnectionState, now: float) -> None:
        super().__init__(limits, state, now)
        self.find: Find | None = None
        """None: requests with an address are requests like any other."""
        self.watch: Watch | None = None
        """Set or taken away by `find`, which is asked before each run of requests: somebody wants to hear of each."""
        self.outlet: Outlet
        """Set by the connection before anything is received."""
        self.name = ""
        """For people: the session's id."""
        self.blocked = False
        """Set by the connection: the peer is slow to read, so whoever wants to add must ask for room."""
        self.relayed = 0
        """Requests of the peer that were passed on."""
        self.relays_failed = 0
        """Requests of the peer that were refused or dropped, and streams that were cut under it."""
        self._onward: dict[int, Leg] = {}
        """Requests of the peer, which another client answers."""
        self._inward: dict[int, Leg] = {}
        """Requests of other clients, which the peer answers."""

    # ---- who is on the other end -----------------------------------------------------------------------------

    @property
    def streams(self) -> int:
        return len(self._states) + len(self._onward) + len(self._inward)

    @property
    def relays_open(self) -> int:
        """Relayed streams on which the peer is one end."""
        return len(self._onward) + len(self._inward)

    def _legs(self) -> Iterator[Leg]:
        yield from self._onward.values()
        yield from self._inward.values()

    def partners(self) -> set[str]:
        """The names of those with whom the peer has relayed streams."""
        return {leg[0].name for leg in self._legs()}

    def ways_without_credit(self) -> int:
        """Relayed streams whose sender must wait until the peer asks for more."""
        return sum(way is not None and way.open and not way.credit for _, _, _, way in self._legs())

    def relay(self, find: Find | None) -> None:
        """From now on requests with an address go where `find` says; with None they are served like any other."""
        self.find = find
        self.is_addressed = None if find is None else is_addressed

    # ---- requests of the peer --------------------------------------------------------------------------------

    def _on_request_response(self, stream_id: int, flags: int, data: bytes, begin: int, end: int) -> int | None:
        if self.find is None or not flags & METADATA or (tag := address_of(data, begin, end)) is None:
            return super()._on_request_response(stream_id, flags, data, begin, end)
        if (
            flags == METADATA
            and stream_id == self._peer_next < NEAR_THE_LAST_ID
            and (other := self._found(tag)) is not None
            and self.watch is None
            and not other.blocked
            and not other._wrapped
            and other._next_id < NEAR_THE_LAST_ID
            and self._grant is None
            and other._allowance is None  # leases count requests one by one
        ):
            at = begin - PREFIX - HEADER
            after = self._call_run(other, data, at)
            if after != at:
                return after
        self._forward(_RESPONSE, stream_id, flags, tag, data, begin, end)
        return None

    def _on_fire_and_forget(self, stream_id: int, flags: int, data: bytes, begin: int, end: int) -> int | None:
        if self.find is None or not flags & METADATA or (tag := address_of(data, begin, end)) is None:
            return super()._on_fire_and_forget(stream_id, flags, data, begin, end)
        self._forward(_FIRE, stream_id, flags, tag, data, begin, end)
        return None

    def _on_request_stream(self, stream_id: int, flags: int, data: bytes, begin: int, end: int) -> None:
        if self.find is None or not flags & METADATA or (tag := address_of(data, begin + 4, end)) is None:
            super()._on_request_stream(stream_id, flags, data, begin, end)
        else:
            self._forward(Interaction.REQUEST_STREAM, stream_id, flags, tag, data, begin, end)

    def _on_request_channel(self, stream_id: int, flags: int, data: bytes, begin: int, end: int) -> None:
        if self.find is None or not flags & METADATA or (tag := address_of(data, begin + 4, end)) is None:
            super()._on_request_channel(stream_id, flags, data, begin, end)
        else:
            self._forward(_CHANNEL, stream_id, flags, tag, data, begin, end)

    def _on_metadata_push(self, stream_id: int, flags: int, data: bytes, begin: int, end: int) -> None:
        if self.find is None or stream_id or (tag := address(data, begin, end)) is None:
            super()._on_metadata_push(stream_id, flags, data, begin, end)
            return
        try:
            other = self.find(tag)
            other.bear(self._now)
            other.admit(self, HEADER + end - begin)
        except RequestFailed:
            self.relays_failed += 1
        else:
            self._passed(tag, None, end - begin)
            other.put(0, FrameType.METADATA_PUSH << TYPE_SHIFT | METADATA, data, begin, end)

    def _passed(self, tag: bytes, interaction: Interaction | None, size: int) -> None:
        self.relayed += 1
        if self.watch is not None:
            self.watch(tag, interaction, size)

    def _found(self, tag: bytes) -> "Relaying | None":
        """Where the tag leads, None where that is nowhere or nowhere now; why not is found out by `_forward`."""
        assert self.find is not None
        try:
            other = self.find(tag)
            other.bear(self._now)
        except RequestFailed:
            return None
        return other

    def _call_run(self, other: "Relaying", data: bytes, at: int) -> int:
        """Passes on the request-responses with the same metadata that stand one behind the other. Where it stops."""
        expected, their_id, first = self._peer_next, other._next_id, self._peer_next
        metadata = PREFIX + int.from_bytes(data[at + 9 : at + 9 + PREFIX], "big")  # with its length in front
        route = data[at + 9 : at + 9 + metadata]
        shortest, limit = HEADER + metadata, min(self.limits.frame, other._fragment)
        onward, inward, out, size = self._onward, other._inward, other._out, len(data)
        last = first + 2 * min(self._room(), other._room_for(self))
        written = at
        while expected < last and size - at >= PREFIX + HEADER:
            high, low, stream_id, kind = read_start(data, at)
            length = high << 16 | low
            end = at + PREFIX + length
            if (
                stream_id != expected
                or kind != _CALL
                or end > size
                or not shortest <= length <= limit
                or not data.startswith(route, at + 9)
            ):
                break
            if length < WORTH_A_COPY:
                out.append(pack_start(high, low, their_id, _CALL) + data[at + 9 : end])
            else:
                out += (pack_start(high, low, their_id, _CALL), data[at + 9 : end])
                other.frames_out -= 1  # as in `put`
            onward[stream_id] = (other, their_id, None, None)
            inward[their_id] = (self, stream_id, None, None)
            expected += 2
            their_id += 2
            at = end
        if at != written:
            self._peer_next, other._next_id = expected, their_id
            count = (expected - first) // 2
            self.relayed += count
            self.frames_in += count - 1  # the reader counts one
            other.queued += at - written
            other.outlet.wake()
        return at

    def _forward(
        self, interaction: Interaction, stream_id: int, flags: int, tag: bytes, data: bytes, begin: int, end: int
    ) -> None:
        """Passes one request on, whole or its first fragment."""
        assert self.find is not None
        initial_n = read_number(data, begin, end) if interaction in WITH_CREDIT else MAX_31
        if not self._is_sound(flags, data, begin + 4 if interaction in WITH_CREDIT else begin, end):
            return
        if not self._may_open(stream_id):
            return
        stays = flags & FOLLOWS or interaction is not _FIRE
        try:
            if not initial_n:
                raise Invalid("a request for no payloads at all")
            if stays and not self._room():
                raise Rejected(f"more than {self.limits.streams} streams are open")
            other = self.find(tag)
            other.bear(self._now)
            if not other._room_for(self):
                raise Rejected(CROWDED)
            other.admit(self, HEADER + end - begin)
            other._spend_allowance()
        except RequestFailed as problem:
            self.relays_failed += 1
            if interaction is not _FIRE:
                self._refuse(stream_id, problem.code, problem.public)
            return
        their_id = other._free_id()
        other._next_id = their_id + 2
        if stays:  # before anything is queued, since that may turn out to be the end of the other connection
            up, down = ways(interaction, flags, initial_n)
            self._onward[stream_id] = (other, their_id, up, down)
            other._inward[their_id] = (self, stream_id, down, up)
        self._passed(tag, interaction, end - begin)
        other.put(their_id, interaction << TYPE_SHIFT | flags, data, begin, end)

    def _is_sound(self, flags: int, data: bytes, begin: int, end: int) -> bool:
        """Whether the metadata of a frame ends inside it: the other client would blame us for one that does not.

        Raises ProtocolViolation, unless the frame allows to be ignored.
        """
        if not flags & METADATA:
            return True
        if begin + PREFIX <= end and begin + PREFIX + int.from_bytes(data[begin : begin + PREFIX], "big") <= end:
            return True
        if flags & IGNORE:
            return False
        raise ProtocolViolation("metadata is longer than its frame")

    def _room(self) -> int:
        """How many streams more the peer may open."""
        return max(0, self.limits.streams - len(self._states) + self._own_streams - len(self._onward))

    def _in_use(self, stream_id: int) -> bool:
        return stream_id in self._inward or super()._in_use(stream_id)

    def _may_open(self, stream_id: int) -> bool:
        return stream_id not in self._onward and super()._may_open(stream_id)

    def _has_room(self, stream_id: int) -> bool:
        if self._room():
            return True
        self._refuse(stream_id, Rejected.wire_code, f"more than {self.limits.streams} streams are open")
        return False

    # ---- what others bring for the peer ----------------------------------------------------------------------

    def bear(self, now: float) -> None:
        """Raises Rejected when the peer cannot take one more request. One that is away will, when it is back."""
        if self._state is not _SERVING and self._state is not _SUSPENDED:
            raise Rejected(LEAVING)
        if not self.may_request(now):
            raise Rejected(UNLEASED)

    def _room_for(self, feeder: "Relaying") -> int:
        """How many streams more `feeder` may have with the peer.

        Half of the places are kept for those who have few streams with others, so that one client that opens as many
        as it can does not shut out the rest.
        """
        free = self.limits.streams - len(self._inward)
        of_its_share = max(1, self.limits.streams // SHARES) - len(feeder._onward)
        return max(free - self.limits.streams // 2, min(free, of_its_share), 0)

    def admit(self, feeder: "Relaying", size: int) -> None:
        """Raises Rejected when a frame of `size` bytes from `feeder` must not be added to what waits for the peer."""
        if size > self._fragment:
            raise Rejected(f"The other client takes frames of at most {self._fragment} bytes.")
        if self.blocked and not self.outlet.make_room(feeder.outlet, size):
            raise Rejected(UNREAD)

    def put(self, stream_id: int, kind: int, data: bytes, begin: int, end: int) -> None:
        """Queues a frame for the peer, with a body from what another one has sent."""
        size = HEADER + end - begin
        head = pack_start(size >> 16, size & 0xFFFF, stream_id, kind)
        if size < WORTH_A_COPY:
            self._out.append(head + data[begin:end])
        else:
            self._out += (head, data[begin:end])
            self.frames_out -= 1  # what is taken out is counted in pieces, and this frame has two
        self.queued += PREFIX + size
        self.outlet.wake()

    # ---- frames on relayed streams ---------------------------------------------------------------------------

    def _leg(self, stream_id: int) -> Leg | None:
        return (self._onward if stream_id & 1 == self._peer_parity else self._inward).get(stream_id)

    def _on_payload(self, stream_id: int, flags: int, data: bytes, begin: int, end: int) -> int | None:
        leg = self._leg(stream_id)
        if leg is None:
            return super()._on_payload(stream_id, flags, data, begin, end)
        other = leg[0]
        if not other.blocked and flags & ~COMPLETE == NEXT:
            at = begin - PREFIX - HEADER
            after = self._payload_run(other, data, at)
            if after != at:
                return after
        if self._is_sound(flags, data, begin, end):
            self._pass_payload(stream_id, leg, flags, data, begin, end)
        return None

    def _payload_run(self, other: "Relaying", data: bytes, at: int) -> int:
        """Passes on the plain payloads for one client that stand one behind the other: answers and items of streams.

        Returns where the first one begins that is anything else.
        """
        legs, size, limit = self._inward, len(data), min(self.limits.frame, other._fragment)
        onward, out = other._onward, other._out
        begin, count = at, 0
        while size - at >= PREFIX + HEADER:
            high, low, stream_id, kind = read_start(data, at)
            length = high << 16 | low
            end = at + PREFIX + length
            if end > size or not HEADER <= length <= limit or (leg := legs.get(stream_id)) is None:
                break
            there, their_id, heard, _ = leg
            if there is not other:
                break
            if heard is None:
                if kind != _ANSWER:
                    break
                del legs[stream_id], onward[their_id]
            elif kind == _ITEM and heard.open and heard.credit and not heard.message:
                heard.credit -= 1
            else:
                break
            if length < WORTH_A_COPY:
                out.append(pack_start(high, low, their_id, kind) + data[at + 9 : end])
            else:
                out += (pack_start(high, low, their_id, kind), data[at + 9 : end])
                other.frames_out -= 1  # as in `put`
            count += 1
            at = end
        if count:
            self.frames_in += count - 1  # the reader counts one
            other.queued += at - begin
            other.outlet.wake()
        return at

    def _pass_payload(self, stream_id: int, leg: Leg, flags: int, data: bytes, begin: int, end: int) -> None:
        """One payload, or a fragment of one."""
        other, their_id, heard, sent = leg
        if heard is not None:
            problem = heard.along(flags)
            if problem is not None:
                if problem:
                    self._cut(stream_id, leg, Invalid(problem))
                return
        elif stream_id & 1 == self._peer_parity:
            return  # the requester of a request-response has nothing more to say
        try:
            other.admit(self, HEADER + end - begin)
        except Rejected as why:
            self._cut(stream_id, leg, why)
            return
        other.put(their_id, _PAYLOAD | flags, data, begin, end)
        if are_over(heard, sent, flags):
            self._part(stream_id, leg)

    def _on_request_n(self, stream_id: int, flags: int, data: bytes, begin: int, end: int) -> None:
        leg = self._leg(stream_id)
        if leg is None:
            super()._on_request_n(stream_id, flags, data, begin, end)
            return
        n = read_number(data, begin, end)
        other, their_id, _, sent = leg
        if sent is None or not sent.open:
            return
        if not n:
            self._cut(stream_id, leg, Invalid("a request for no payloads at all"))
            return
        if other.blocked and not other.outlet.make_room(self.outlet, 0):
            self._cut(stream_id, leg, Rejected(UNREAD))
            return
        sent.credit = min(sent.credit + n, MAX_31)
        other.tell(request_n(their_id, n))

    def _on_cancel(self, stream_id: int, flags: int, data: bytes, begin: int, end: int) -> None:
        leg = self._leg(stream_id)
        if leg is None:
            super()._on_cancel(stream_id, flags, data, begin, end)
            return
        other, their_id, heard, sent = leg
        if stream_id & 1 != self._peer_parity:
            # Of a responder it means, where it means anything: no more on a channel.
            if sent is None or not sent.open or sent.message == REQUEST:
                return
            sent.open = False
        other.tell(cancel(their_id))
        if stream_id & 1 == self._peer_parity or (heard is not None and not heard.open):
            self._part(stream_id, leg)

    def _on_error(self, stream_id: int, flags: int, data: bytes, begin: int, end: int) -> int | None:
        leg = self._leg(stream_id)
        if leg is None:
            return super()._on_error(stream_id, flags, data, begin, end)
        if begin + 4 > end:
            raise ProtocolViolation("an ERROR frame ends inside its code")
        other, their_id, heard, _ = leg
        longest = 4 + self.limits.error_text
        if stream_id & 1 == self._peer_parity and (heard is None or not heard.stays):
            if heard is None or not heard.open:
                return None  # only the requester of a channel has anything to fail
            other.tell(cancel(their_id))
        else:
            other.tell(frame(their_id, FrameType.ERROR << TYPE_SHIFT, data[begin : min(end, begin + longest)]))
        self._part(stream_id, leg)
        return None

    # ---- the end of a relayed stream -------------------------------------------------------------------------

    def tell(self, small: bytes) -> None:
        """Queues a frame of a few bytes that another connection's peer has caused, whether or not there is room."""
        self._send(small)
        self.outlet.wake()

    def _part(self, stream_id: int, leg: Leg) -> None:
        """Forgets a stream on both ends, unless one of them has ended meanwhile and done so."""
        other, their_id, _, _ = leg
        if stream_id & 1 == self._peer_parity:
            self._onward.pop(stream_id, None)
            other._inward.pop(their_id, None)
        else:
            self._inward.pop(stream_id, None)
            other._onward.pop(their_id, None)
        other.outlet.wake()  # if its peer is leaving, this may have been the last stream that it waited for

    def _cut(self, stream_id: int, leg: Leg, why: RequestFailed) -> None:
        """Ends a stream that neither end has ended: the requester gets an error, the responder a cancel."""
        other, their_id, _, _ = leg
        self._part(stream_id, leg)
        self._tell_end(stream_id, why)
        other._tell_end(their_id, why)

    def part_from(self, name: str, why: RequestFailed) -> None:
        """Ends every request of the peer that the client of that name is answering."""
        for stream_id, leg in tuple(self._onward.items()):
            if leg[0].name == name:
                self._cut(stream_id, leg, why)

    def answerers(self) -> set[str]:
        """The names of those who are answering requests of the peer."""
        return {leg[0].name for leg in self._onward.values()}

    def _tell_end(self, stream_id: int, why: RequestFailed) -> None:
        self.relays_failed += 1
        if stream_id & 1 == self._peer_parity:
            self.tell(error(stream_id, why.code, why.public, self.limits.error_text))
        else:
            self.tell(cancel(stream_id))

    def end_streams(self, code: int, text: str) -> None:
        """As ever; those at the other ends of relayed streams are told when the connection ends."""
        super().end_streams(code, text)
        for stream_id in self._onward:
            self._send(error(stream_id, code, text, self.limits.error_text))
        for stream_id in self._inward:
            self._send(cancel(stream_id))

    def _forget_all(self) -> None:
        """The connection has ended: so have the streams of everybody who was in touch with the peer."""
        super()._forget_all()
        self.relay(None)
        self.watch = None
        inward, onward = self._inward, self._onward
        self._inward, self._onward = {}, {}
        # What others are told may be their own end, where too much waits for them: then their streams are gone.
        for other, their_id, _, _ in inward.values():
            if other._onward.pop(their_id, None) is not None:
                other._tell_end(their_id, Canceled(GONE))
        for other, their_id, _, _ in onward.values():
            if other._inward.pop(their_id, None) is not None:
                other._tell_end(their_id, Canceled(GONE))

    def _is_busy(self) -> bool:
        return bool(self._states or self._onward or self._inward)


Relaying.DISPATCH = dispatch_of(Relaying)
