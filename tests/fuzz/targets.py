"""What is fuzzed: each target takes any bytes and raises only when the product has broken a promise.

frames       a connection without I/O, frame by frame: the input is cut into frames, so that mutations stay inside
octets       the same from raw bytes, whole and one byte at a time: both give the same events and the same answers
connection   the connection on an event loop, with handlers that answer, stream, echo and fail
metadata     composite metadata, routes and MIME types: what parses is written again as the same bytes
relay        two connections whose peers may send each other requests: whatever one peer sends, the other is sent
             nothing for which it would end the connection, and both sides of a stream know each other
trace        frames as readable lines: of visible ASCII alone, whole and one byte at a time
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Final

from rsocket_broker.connection import Connection
from rsocket_broker.errors import ConnectionClosed, Invalid, Rejected
from rsocket_broker.payload import Payload
from rsocket_broker.protocol import metadata as composite
from rsocket_broker.protocol.codes import Interaction
from rsocket_broker.protocol.events import Event, PayloadReceived, RequestReceived, SetupReceived
from rsocket_broker.protocol.frames import Setup
from rsocket_broker.protocol.limits import Limits
from rsocket_broker.protocol.protocol import Protocol
from rsocket_broker.protocol.relay import Find, Relaying
from rsocket_broker.protocol.trace import FrameTrace
from rsocket_broker.transports.base import Channel, Peer
from tests.playbook import SETUP_BODY, cut, wire

LIMITS: Final = Limits(frame=4096, message=8192, reassembly=16384, streams=6, serving=16384)
"""So small that an input of a few hundred bytes meets them."""
SETUP_FRAME: Final = wire(1, 0, SETUP_BODY)
A_SIGN: Final = wire(3, 0, bytes(8))
FRESH, SERVING, JOINED = range(3)


def opened(kind: int) -> Protocol:
    """A connection that has heard nothing, one that serves, or a client's."""
    if kind == JOINED:
        protocol = Protocol.client(Setup(), LIMITS, 0.0)
        protocol.receive_data(A_SIGN, 0.0)
    else:
        protocol = Protocol.server(LIMITS, 0.0)
        if kind == SERVING:
            feed(protocol, SETUP_FRAME)
    protocol.data_to_send()
    return protocol


def feed(protocol: Protocol, data: bytes) -> list[Event]:
    """Everything that happens, with every SETUP accepted."""
    events = protocol.receive_data(data, 0.0)
    if events and isinstance(events[-1], SetupReceived):
        events += protocol.accept_setup(0.0)
    return events


def check(protocol: Protocol) -> None:
    """What holds after any input."""
    cut(b"".join(protocol.data_to_send()))  # whole frames only
    assert protocol.closed == (protocol.ended is not None)
    assert protocol.streams <= LIMITS.streams + 32
    assert protocol._reassembler.held <= LIMITS.reassembly + LIMITS.frame
    if protocol.closed:
        assert not protocol.streams
        assert not protocol.receive_data(SETUP_FRAME, 0.0)
        assert not protocol.data_to_send()


def octets(data: bytes) -> None:
    kind, data = (data[0] % 3, data[1:]) if data else (FRESH, b"")
    whole, piecemeal = opened(kind), opened(kind)
    at_once = feed(whole, data)
    one_by_one = [event for octet in data for event in feed(piecemeal, bytes((octet,)))]
    assert one_by_one == at_once
    assert b"".join(piecemeal.data_to_send()) == b"".join(whole.data_to_send())
    assert (whole.streams, whole.ended) == (piecemeal.streams, piecemeal.ended)
    check(whole)


def framed(data: bytes) -> Iterator[bytes]:
    """Frames from bytes: one byte says how long each is, so that a mutation in one leaves the others as they were."""
    while data:
        size, data = data[0], data[1:]
        body, data = data[:size], data[size:]
        yield len(body).to_bytes(3, "big") + body


def frames(data: bytes) -> None:
    kind, data = (data[0] % 3, data[1:]) if data else (FRESH, b"")
    octets(bytes((kind,)) + b"".join(framed(data)))
    protocol = opened(kind)
    for one in framed(data):
        for event in feed(protocol, one):
            react(protocol, event)
        if protocol.closed:
            break
    check(protocol)


def react(protocol: Protocol, event: Event) -> None:
    """An application that answers, streams, echoes and asks, so that streams get past their first state."""
    match event:
        case RequestReceived(stream_id, Interaction.REQUEST_RESPONSE, data, metadata):
            if len(data) % 2:
                protocol.send_payload(stream_id, data, metadata, complete=True)
            elif len(data) % 3:
                protocol.send_error(stream_id, 0x201, "no")
        case RequestReceived(stream_id, Interaction.REQUEST_STREAM, data):
            protocol.send_payload(stream_id, data, complete=protocol.credit(stream_id) == 1)
        case RequestReceived(stream_id, Interaction.REQUEST_CHANNEL):
            protocol.send_request_n(stream_id, 2)
        case RequestReceived(_, Interaction.FIRE_AND_FORGET, data):
            if protocol.is_open and protocol.streams < LIMITS.streams + 16:
                with contextlib.suppress(Rejected):  # the peer's lease is used up
                    protocol.request(Interaction.REQUEST_CHANNEL, data, None, 1)
        case PayloadReceived(stream_id, data, metadata, _, complete):
            if protocol.may_send(stream_id) and protocol.credit(stream_id):
                protocol.send_payload(stream_id, data, metadata, complete=complete)


class Wires:
    """A Transport that leads nowhere."""

    peer = Peer("fuzz", Channel.MEMORY)
    queued = 0

    def __init__(self) -> None:
        self.gone = False

    def write(self, chunks: list[bytes]) -> None:
        cut(b"".join(chunks))

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def close(self) -> None:
        self.gone = True

    def abort(self) -> None:
        self.gone = True

    def hand_over(self, receiver: object) -> None: ...


class Echo:
    """A Responder with a bit of everything."""

    def __init__(self) -> None:
        self.ends = 0

    def setup(self, connection: Connection, setup: SetupReceived) -> Awaitable[None] | None:
        return asyncio.sleep(0) if setup.data else None

    def request_response(self, payload: Payload) -> Payload | Awaitable[Payload]:
        data = payload.data or b""
        if data.startswith(b"no"):
            raise Invalid("no")
        return self.later(payload) if data.startswith(b"later") else payload

    async def later(self, payload: Payload) -> Payload:
        await asyncio.sleep(0)
        return payload

    def fire_and_forget(self, payload: Payload) -> Awaitable[None] | None:
        return asyncio.sleep(0) if payload.data else None

    def request_stream(self, payload: Payload) -> Iterator[Payload]:
        return (payload for _ in range(5))

    async def request_channel(self, payload: Payload, incoming: AsyncIterator[Payload]) -> AsyncIterator[Payload]:
        yield payload
        async for one in incoming:
            yield one

    def metadata_push(self, metadata: bytes) -> None: ...

    def closed(self, error: ConnectionClosed) -> None:
        self.ends += 1


async def talk(kind: int, data: bytes) -> None:
    """Frame by frame, with turns of the loop in between; then the line is lost."""
    responder, wires = Echo(), Wires()
    protocol = Protocol.client(Setup(), LIMITS, 0.0) if kind == JOINED else Protocol.server(LIMITS, 0.0)
    connection = Connection(protocol, responder, clock=lambda: 0.0)
    connection.transport_ready(wires)
    if kind == SERVING:
        connection.data_received(SETUP_FRAME)
    for one in framed(data):
        if wires.gone:
            break
        connection.data_received(one)
        if len(one) % 2:
            await asyncio.sleep(0)
    connection.transport_lost(None)
    await connection.wait_closed()
    for _ in range(5):
        await asyncio.sleep(0)
    assert responder.ends == 1
    left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    assert not left, left


def connection(data: bytes) -> None:
    problems: list[object] = []
    with asyncio.Runner() as runner:
        runner.get_loop().set_exception_handler(lambda _, context: problems.append(context))
        runner.run(talk(data[0] % 3 if data else FRESH, data[1:]))
    assert not problems, problems


def metadata(data: bytes) -> None:
    for parse, build in (
        (composite.parse_composite, composite.build_composite),
        (composite.parse_tags, composite.build_tags),
        (composite.parse_mimes, composite.build_mimes),
    ):
        try:
            parsed = parse(data)
        except Invalid:
            continue
        written = build(parsed)  # type: ignore[operator]
        assert written == data
    try:
        tag = composite.first_tag(data)
    except Invalid:
        return
    if tag is not None:
        content = composite.first_content(data, composite.ROUTING)
        assert content is not None
        assert content[1 : 1 + content[0]].decode() == tag


def trace(data: bytes) -> None:
    whole, slow = FrameTrace(), FrameTrace()
    whole.metadata_mime = slow.metadata_mime = composite.COMPOSITE
    lines = whole.received(data)
    assert lines == [line for at in range(len(data)) for line in slow.received(data[at : at + 1])]
    assert all(line.isascii() and line.isprintable() for line in lines)


class Outlet:
    """Stands where the connection of a Relaying is."""

    room = True

    def wake(self) -> None: ...

    def make_room(self, feeder: object, size: int) -> bool:
        return self.room


def relaying() -> tuple[Relaying, Relaying]:
    """Two that serve; `client:` and anything of an even length behind it means the other one."""
    one, other = Relaying.server(LIMITS, 0.0), Relaying.server(LIMITS, 0.0)

    def finder(target: Relaying) -> Find:
        def find(tag: bytes) -> Relaying:
            if len(tag) % 2:
                return target
            raise Invalid("nobody")

        return find

    for mine, target in ((one, other), (other, one)):
        mine.outlet = Outlet()
        feed(mine, SETUP_FRAME)
        mine.data_to_send()
        mine.relay(finder(target))
    return one, other


def relay(data: bytes) -> None:
    """The last bits of each frame say whose it is, and whether the other one reads."""
    ends, peers = relaying(), (opened(JOINED), opened(JOINED))
    for frame in framed(data):
        which, choice = frame[-1] & 1, frame[-1] >> 1 & 3
        ends[not which].blocked = choice == 1
        ends[not which].outlet.room = choice != 2  # type: ignore[attr-defined]
        feed(ends[which], frame)
        for end, peer in zip(ends, peers, strict=True):
            sent = b"".join(end.data_to_send())
            cut(sent)
            peer.receive_data(sent, 0.0)
            assert peer.closed <= end.closed, peer.ended
            assert end.relays_open <= 2 * LIMITS.streams
        for mine, theirs in ((ends[0]._onward, ends[1]._inward), (ends[0]._inward, ends[1]._onward)):
            assert {(at, leg[1]) for at, leg in mine.items()} == {(leg[1], at) for at, leg in theirs.items()}
    ends[0].receive_eof(0.0)
    assert not ends[1].relays_open


TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    "frames": frames,
    "octets": octets,
    "connection": connection,
    "metadata": metadata,
    "relay": relay,
    "trace": trace,
}
