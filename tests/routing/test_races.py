"""Sessions that end in the middle of something, over every wire: nothing is sent after the close, whoever waits is told
so by an error of ours, nothing is left behind, and who comes next is served.

What is under way is brought about for certain; the end then comes between two turns of the loop.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest

from rsocket_broker.claims import Claims
from rsocket_broker.errors import BrokerError
from rsocket_broker.messages import MessageLine
from rsocket_broker.payload import Payload
from rsocket_broker.plugin_api import App, Plugin, event, method
from rsocket_broker.protocol.metadata import route
from rsocket_broker.routing.event_queue import MAX_EVENTS
from rsocket_broker.routing.session import Session
from rsocket_broker.routing.unverified import UnverifiedEndpoint
from rsocket_broker.transports.base import Channel, Peer
from rsocket_broker.transports.memory import HIGH_WATER
from tests.routing.line import FLIPPER_CLAIMS, Client, Line, until
from tests.routing.test_over_messages import Phone

MORE: dict[str, Any] = {"os": "Android", "device": "Pixel", "sdk_version": 4, "medium": 1}
NEVER = object()
"""In the place of an answer."""


class Slow(Plugin):
    """Greets, answers and takes events only once it may."""

    id = "Slow"
    concurrency = 8

    def __init__(self) -> None:
        self.may_greet = asyncio.Event()
        self.may_answer = asyncio.Event()
        self.may_greet.set()
        self.under_way = 0

    async def on_connect(self, app: App) -> None:
        self.under_way += 1
        await self.may_greet.wait()

    @method("wait", deadline=None)
    async def wait(self, app: App) -> str:
        self.under_way += 1
        await self.may_answer.wait()
        return app.id

    @method("count")
    def count(self, app: App) -> Iterator[int]:
        yield from range(1_000_000)

    @event("told")
    async def told(self, app: App) -> None:
        self.under_way += 1
        await self.may_answer.wait()


class Guest:
    """A Flipper app that has the plugin. `late`: what was written to it after its line was closed."""

    def __init__(self, line: Line, lists: object) -> None:
        self.line = line
        self.lists = lists
        self.late: list[object] = []
        self.session: Session

    def answer(self, message: dict[str, Any]) -> object:
        if message["method"] == "getPlugins":
            return self.lists
        if message["method"] == "getBackgroundPlugins":
            return {"plugins": []}
        return 7 if message["params"].get("method") == "answer" else NEVER

    async def come(self) -> None:
        """Until there is a session."""
        raise NotImplementedError

    def tell(self, count: int) -> None:
        """Sends so many events."""
        raise NotImplementedError

    def read(self, *, on: bool) -> None:
        """Takes nothing that is sent, or takes it again."""
        raise NotImplementedError

    def lose(self) -> None:
        """The network."""
        raise NotImplementedError


class OverRSocket(Guest):
    """It reads routes as well."""

    client: Client

    async def come(self) -> None:
        self.client = self.line.attempt(claims=FLIPPER_CLAIMS)
        self.client.side.request_response = self._answer  # type: ignore[method-assign]
        self.client.side.request_stream = lambda payload: (Payload(b"1", None) for _ in range(1_000_000))  # type: ignore[method-assign,assignment,return-value]
        await until(lambda: self.client.responder.session)
        self.session = self.client.session
        transport: Any = self.client.served._transport
        write, close, abort, closed = transport.write, transport.close, transport.abort, []

        def writes(chunks: list[bytes]) -> None:
            self.late += chunks if closed else []
            write(chunks)

        transport.write = writes
        transport.close = lambda: (closed.append(True), close())
        transport.abort = lambda: (closed.append(True), abort())

    async def _answer(self, payload: Payload) -> Payload:
        message = json.loads(payload.data or b"")
        value = NEVER if payload.metadata else self.answer(message)
        if value is NEVER:
            await asyncio.Event().wait()
        return Payload(json.dumps({"success": value, "id": message["id"]}).encode(), None)

    def tell(self, count: int) -> None:
        for _ in range(count):
            self.client.event("Slow", "told")

    def read(self, *, on: bool) -> None:
        transport = self.client.connection._transport
        if transport is not None:
            (transport.resume_reading if on else transport.pause_reading)()

    def lose(self) -> None:
        self.client.connection.abort()


class OverMessages(Guest):
    """By messages, with a certificate."""

    peer = Peer("127.0.0.1:4000", Channel.WSS, b"com.demo|dev1|adb|255")

    def responder(self) -> Any:
        return self.line.endpoint.responder()

    async def come(self) -> None:
        responder = self.responder()
        self.phone = Answering(self)
        self.phone.receiver = MessageLine(responder)
        self.phone.receiver.open(self.peer, Claims(app="Demo", app_id="com.demo", **MORE))
        self.phone.receiver.transport_ready(self.phone)
        self.session = responder.session

    def tell(self, count: int) -> None:
        for _ in range(count):
            self.phone.receiver.message_received(
                b'{"method":"execute","params":{"api":"Slow","method":"told","params":{}}}'
            )

    def read(self, *, on: bool) -> None:
        (self.phone.receiver.writing_resumed if on else self.phone.receiver.writing_paused)()

    def lose(self) -> None:
        self.phone.receiver.transport_lost(ConnectionResetError("reset"))


class FromBrowser(OverMessages):
    """By messages, and proving nothing."""

    peer = Peer("127.0.0.1:4000", Channel.WS, None)

    def responder(self) -> Any:
        return UnverifiedEndpoint(self.line.endpoint).responder()


class Answering(Phone):
    """The far end of a line of messages."""

    def __init__(self, guest: OverMessages) -> None:
        super().__init__()
        self.peer, self.guest = guest.peer, guest

    def send(self, text: bytes) -> None:
        if self.events and self.events[-1] not in ("pause", "resume"):
            self.guest.late.append(text)
        message = json.loads(text)
        value = self.guest.answer(message) if "id" in message else NEVER
        if value is not NEVER:
            answer = json.dumps({"success": value, "id": message["id"]}).encode()
            asyncio.get_running_loop().call_soon(self.receiver.message_received, answer)


# ---- what is under way ----------------------------------------------------------------------------------------------

Waits = list["asyncio.Future[Any]"]


def asked(*work: Awaitable[Any]) -> Waits:
    return [asyncio.ensure_future(one) for one in work]


async def starting(guest: Guest, slow: Slow) -> Waits:
    guest.lists = NEVER
    await guest.come()
    session = guest.session
    waits = asked(session.to_app.call("Slow", "answer"), session.plugins.seat_of("Slow"), session.to_app.send("P", "m"))
    await until(lambda: len(session.connection._answers))  # type: ignore[attr-defined]
    return waits


async def greeting(guest: Guest, slow: Slow) -> Waits:
    slow.may_greet.clear()
    await guest.come()
    waits = asked(guest.session.plugins.seat_of("Slow"))
    await until(lambda: slow.under_way)
    guest.tell(3)
    return waits


async def calling(guest: Guest, slow: Slow) -> Waits:
    await guest.come()
    to_app = guest.session.to_app
    waits = asked(*(to_app.call("Slow", "never", timeout=timeout) for timeout in (None, 60.0, 30.0)))
    await until(lambda: len(to_app.waiting) == 3)
    return waits


async def pushed_to(guest: Guest, slow: Slow) -> Waits:
    """New anchors are on their way, as in a rotation."""
    await guest.come()
    payload = Payload(b"{}", route("identity.trust"))
    waits = asked(guest.session.connection.request_response(payload, 30.0))
    await until(lambda: guest.session.connection.streams_open > 0)
    return waits


async def full_of_events(guest: Guest, slow: Slow) -> Waits:
    await guest.come()
    await until(lambda: guest.session.started)
    guest.tell(MAX_EVENTS + 50)
    await until(lambda: slow.under_way > 1 and _waiting(guest) >= MAX_EVENTS - 1)
    return []


def _waiting(guest: Guest) -> int:
    return sum(count for _, count, _ in guest.session.plugins.events_waiting())


async def slow_to_read(guest: Guest, slow: Slow) -> Waits:
    await guest.come()
    await until(lambda: guest.session.started)
    guest.read(on=False)
    to_app = guest.session.to_app
    (first,) = asked(to_app.send("Slow", "take", "x" * 2 * HIGH_WATER))
    await until(lambda: not guest.session.connection.may_ask)
    waits = asked(to_app.call("Slow", "answer", timeout=None), to_app.send("Slow", "take"))
    await asyncio.sleep(0)
    return waits if first.done() else [first, *waits]


async def serving(guest: Guest, slow: Slow) -> Waits:
    assert isinstance(guest, OverRSocket)
    await guest.come()
    await until(lambda: guest.session.started)
    ask = guest.client.connection.request_response
    waits = asked(*(ask(Payload(b"{}", route("Slow.wait"))) for _ in range(12)))
    await until(lambda: len(guest.session.plugins.seats["Slow"].running) == len(waits))
    return waits


async def streaming(guest: Guest, slow: Slow) -> Waits:
    assert isinstance(guest, OverRSocket)
    await guest.come()
    await until(lambda: guest.session.started)
    got: list[object] = []

    async def read(values: AsyncIterator[Any]) -> None:
        async for value in values:
            got.append(value)

    theirs = guest.client.connection.request_stream(Payload(b"{}", route("Slow.count")))
    waits = asked(read(theirs), read(guest.session.to_app.stream("Slow", "numbers")))
    await until(lambda: len(got) > 300 and guest.session.to_app.flows)
    return waits


UNDER_WAY = {
    "starting": starting,
    "greeting": greeting,
    "calling": calling,
    "pushed to": pushed_to,
    "full of events": full_of_events,
    "slow to read": slow_to_read,
    "serving": serving,
    "streaming": streaming,
}

# ---- how it ends ----------------------------------------------------------------------------------------------------


async def revoked(guest: Guest) -> None:
    guest.line.endpoint.children.end(guest.session.node.id, "its certificate was revoked")


async def closed(guest: Guest) -> None:
    await guest.session.connection.close("closed by the operator", grace=0.01)


async def cut(guest: Guest) -> None:
    guest.session.connection.abort()


async def lost(guest: Guest) -> None:
    guest.lose()


async def replaced(guest: Guest) -> None:
    newer = type(guest)(guest.line, {"plugins": ["Slow"]})
    await newer.come()
    await until(lambda: guest.session.connection.closing is not None)


async def stopped(guest: Guest) -> None:
    guest.line.endpoint.router.ending = True
    connection = guest.session.connection
    await connection.drain_requests(0.01)
    await connection.close("the broker is stopping", grace=0.01)


ENDS = {each.__name__: each for each in (revoked, closed, cut, lost, replaced, stopped)}
WIRES = {"rsocket": OverRSocket, "websocket": OverMessages, "browser": FromBrowser}
BY_ROUTE_ALONE = ("pushed to", "serving", "streaming")
CASES = [
    pytest.param(WIRES[wire], UNDER_WAY[moment], ENDS[end], id=f"{wire}-{moment}-{end}")
    for wire in WIRES
    for moment in UNDER_WAY
    for end in ENDS
    if wire == "rsocket" or moment not in BY_ROUTE_ALONE
]


@pytest.mark.row("A-20", "A-21", "D-3", "F-25")
@pytest.mark.parametrize(("wire", "moment", "end"), CASES)
async def test_nothing_outlives_the_end_of_a_session(
    wire: type[Guest],
    moment: Callable[[Guest, Slow], Awaitable[Waits]],
    end: Callable[[Guest], Awaitable[None]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    before, slow = asyncio.all_tasks(), Slow()
    async with Line(slow) as line:
        guest = wire(line, {"plugins": ["Slow"]})
        waits = await moment(guest, slow)
        session: Session = guest.session
        await end(guest)
        connection: Any = session.connection
        await until(lambda: connection.closing is not None)
        guest.read(on=True)
        for error in await asyncio.gather(*waits, return_exceptions=True):
            assert isinstance(error, BrokerError), error
        await until(connection._lost.done)
        await until(lambda: not len(session.tasks) and not len(connection._work))
        assert guest.late == []
        assert line.sessions.get(session.id) is None and line.endpoint.children.line(session.node.id) is not session
        assert (session.plugins.seats, session.to_app.waiting, connection._answers) == ({}, {}, {})
        slow.may_greet.set()
        slow.may_answer.set()
        if end is not stopped:
            await _is_served(wire(line, {"plugins": ["Slow"]}))
        assert line.endpoint.router.hosts["Slow"].seats == sum("Slow" in one.plugins.seats for one in line.sessions)
        for one in list(line.sessions):
            await one.connection.close(grace=0.01)
    assert line.endpoint.router.hosts["Slow"].seats == 0
    await until(lambda: asyncio.all_tasks() <= before)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def _is_served(guest: Guest) -> None:
    await guest.come()
    assert await guest.session.to_app.call("Slow", "answer") == 7
    if isinstance(guest, OverRSocket):
        assert await guest.client.json("Slow.wait") == guest.session.id
