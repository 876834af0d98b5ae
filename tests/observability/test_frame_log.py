"""Taps on real connections: who is shown, what of it, and that nobody else notices."""

import asyncio
import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from rsocket_broker.connection import Connection
from rsocket_broker.observability import frame_log
from rsocket_broker.observability.frame_log import FrameTap, TappedTransport, Watch
from rsocket_broker.payload import Payload
from rsocket_broker.plugin_api import App, Plugin, method
from rsocket_broker.protocol.frames import cancel
from rsocket_broker.protocol.metadata import route
from rsocket_broker.quota import Holding
from rsocket_broker.sessions.live import LiveSessions
from rsocket_broker.sessions.tree import NodeKind, Wish
from rsocket_broker.transports.base import Channel, Receiver
from rsocket_broker.transports.memory import MemoryTransport, memory_pair
from tests.routing.line import Client, Line, identify
from tests.test_lasting import TOKEN, Host
from tests.two_sides import Side


class Echo(Plugin):
    id = "echo"

    @method("request")
    def request(self, app: App, payload: Payload) -> Payload:
        return payload


@pytest.fixture(autouse=True)
def level() -> Iterator[None]:
    yield
    frame_log.log.setLevel(logging.NOTSET)


class Tapped(Line):
    def __init__(self, *clients: str) -> None:
        super().__init__(Echo)
        self.watch = Watch(clients, identify, self.sessions)
        self.taps: list[FrameTap] = []
        self.tap = self.make_tap

    def make_tap(self, connection: Connection) -> Receiver:
        self.taps.append(self.watch.tap(connection))
        return self.taps[-1]


def receiver(client: Client) -> object:
    """Who hears the transport of the broker's side."""
    return client.connection._transport._other.receiver  # type: ignore[union-attr]


@pytest.mark.row("A-53")
@pytest.mark.parametrize("spec", ["com.demo", "com.demo@dev1", "all"])
async def test_a_followed_client_is_shown_from_its_first_frame_to_its_last(
    spec: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with Tapped(spec, "com.nobody") as line:
        client = await line.connect(claims={"os": "iOS", "device": "x", "app": "Demo", "secret": "hunter2"})
        assert await client.ask("echo.request", b"hunter2") == b"hunter2"
        await client.connection.close()
        await client.served.wait_closed()
    before, after = "memory com.demo@dev1 (adb)", "c1 com.demo@dev1 (adb)"
    shown = [record.getMessage() for record in caplog.records if record.name == frame_log.log.name]
    assert shown[0] == f"{before} <- connected by tls"
    assert shown[1].startswith(f"{before} <- SETUP stream=0 flags=- size=")
    assert shown[1].endswith('claims={"os":"iOS","device":"x","app":"Demo","secret"}')
    assert (
        f'{after} <- REQUEST_RESPONSE stream=1 flags=METADATA size=33 metadata=17 data=7 route="echo.request"' in shown
    )
    assert any(line.startswith(f"{after} -> PAYLOAD stream=1 flags=METADATA|COMPLETE|NEXT size=") for line in shown)
    assert any(line.startswith(f"{after} <- ERROR stream=0 flags=- size=10 code=CONNECTION_CLOSE") for line in shown)
    assert shown[-1] == f"{after} <- the line has gone"
    assert "hunter2" not in caplog.text


@pytest.mark.parametrize("spec", ["com.other", "com.demo@dev2", "dev1", "com.demo@"])
async def test_whoever_is_not_followed_is_left_alone(spec: str, caplog: pytest.LogCaptureFixture) -> None:
    async with Tapped(spec) as line:
        client = await line.connect()
        assert receiver(client) is client.served
        assert client.served._transport is client.connection._transport._other  # type: ignore[union-attr]
        assert await client.ask("echo.request", b"x") == b"x"
    assert frame_log.log.name not in {record.name for record in caplog.records}


async def test_a_session_is_followed_by_its_id_from_its_first_frame(caplog: pytest.LogCaptureFixture) -> None:
    async with Tapped("c2") as line:
        first, second = await line.connect(), await line.connect()
        assert receiver(first) is first.served, "nothing reads what it is sent"
        assert first.served._transport.write == first.connection._transport._other.write  # type: ignore[union-attr]
        assert receiver(second) is line.taps[1]
        for client in (first, second):
            assert await client.ask("echo.request", b"x") == b"x"
    shown = [record.getMessage() for record in caplog.records if record.name == frame_log.log.name]
    assert all(text.startswith("c2 com.demo@dev1 (adb) ") for text in shown)
    assert "SETUP" in shown[1]
    assert any("PAYLOAD stream=1" in text for text in shown)


@pytest.mark.parametrize("certificate", [None, b"forged"])
async def test_who_has_no_identity_is_shown_to_those_who_want_everybody(
    certificate: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    for spec, expected in (("all", True), ("c1", False), ("com.demo", False)):
        caplog.clear()
        async with Tapped(spec) as line:
            client = line.attempt(certificate)
            await client.connection.wait_closed()
        assert ("REJECTED_SETUP" in caplog.text) is expected


@pytest.mark.row("A-53", "D-14")
@pytest.mark.parametrize(
    ("spec", "expected"), [("all", True), ("com.demo", True), ("c2", True), ("c1", False), ("com.other", False)]
)
async def test_a_child_is_shown_as_its_root_and_its_token_is_not(
    spec: str, expected: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async with Tapped(spec) as line:
        parent = await line.connect()
        wish = Wish(kind=NodeKind.WEB, channel=Channel.WS, expires=datetime.now(UTC) + timedelta(hours=1))
        _, token = await line.endpoint.children.login(parent.session.node.id, wish)
        caplog.clear()
        child = await line.connect_child(token)
        large = bytes(3 * 1024 * 1024)
        assert await child.ask("echo.request", large) == large
    assert ("SETUP stream=0" in caplog.text) is expected
    assert token not in caplog.text


async def test_a_tap_lets_longer_messages_through_where_there_are_messages() -> None:
    heard: list[int | Holding] = []
    holding = Holding()

    class Messages(MemoryTransport):
        def expect(self, size: int) -> None:
            heard.append(size)

        def count_in(self, holding: Holding) -> None:
            heard.append(holding)

    nobody: Any = SimpleNamespace(hand_over=None)
    for kind in (Messages, MemoryTransport):
        line = kind(nobody)
        line.join(line)
        TappedTransport(line, nobody).expect(7)
        TappedTransport(line, nobody).count_in(holding)
    assert heard == [7, holding]


async def test_frames_are_shown_whatever_the_level_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    ours = logging.getLogger("rsocket_broker")
    ours.setLevel(logging.ERROR)
    try:
        async with Tapped("all") as line:
            await line.connect()
    finally:
        ours.setLevel(logging.NOTSET)
    assert "SETUP" in caplog.text


async def test_a_line_that_is_handed_over_goes_on_being_shown(caplog: pytest.LogCaptureFixture) -> None:
    """A connection that is resumed: its SETUP came over a line that is gone, and decides how metadata is read."""
    async with Tapped("all") as line:
        one, other = await line.connect(), await line.connect()
        transport = one.served._transport
        assert transport is not None
        transport.hand_over(other.served)
        other.served.metadata_mime = "text/plain"
        transport.hand_over(one.served)
        assert line.taps[0]._trace.metadata_mime == one.served.metadata_mime
        transport.hand_over(other.served)
        assert line.taps[0]._trace.metadata_mime == "text/plain"
        line.taps[0].data_received(cancel(99))
        assert "c2 com.demo@dev1 (adb) <- " not in caplog.text.split("CANCEL stream=99")[0].splitlines()[-1]
        line.taps[0].data_received(cancel(101))
        assert "c2 com.demo@dev1 (adb) <- CANCEL stream=101" in caplog.text
        transport.hand_over(one.served)


async def test_back_pressure_is_shown_and_passed_on(caplog: pytest.LogCaptureFixture) -> None:
    async with Tapped("all") as line:
        client = await line.connect()
        assert client.connection._transport is not None
        client.connection._transport.pause_reading()
        client.served.fire_and_forget(Payload(bytes(200_000), None))
        await asyncio.sleep(0)
        assert "paused: the peer does not take what it is sent" in caplog.text
        client.connection._transport.resume_reading()
        await client.settled()
        assert "-> resumed" in caplog.text


class TappedHost(Host):
    """A server that can be resumed, with a tap on each of its lines."""

    watch = Watch(["all"], identify, LiveSessions())

    async def __aenter__(self) -> "TappedHost":
        self.line = memory_pair(self.watch.tap(self.server), self.client)
        await self.client.wait_accepted()
        return self

    def connect(self) -> tuple[MemoryTransport, ...]:
        self.doors.append(Side())
        self.line = memory_pair(self.watch.tap(self.door(self.doors[-1])), self.client)
        return self.line


@pytest.mark.row("A-41", "A-53")
async def test_a_session_that_is_resumed_goes_on_being_shown(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with TappedHost() as host:
        await host.client.request_response(Payload(b"x", route("a.b")))
        await host.cut()
        await host.come_back()
        caplog.clear()
        assert (await host.client.request_response(Payload(b"x", route("c.d")))).data == b"x"
        shown = [record.getMessage() for record in caplog.records]
    assert any("<- REQUEST_RESPONSE" in line and line.endswith('route="c.d"') for line in shown)
    assert any("-> PAYLOAD" in line for line in shown)


async def test_what_is_shown_of_a_resumption_is_not_its_token(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with TappedHost() as host:
        await host.cut()
        await host.come_back()
    assert "<- RESUME stream=0 flags=- size=" in caplog.text
    assert "-> RESUME_OK stream=0" in caplog.text
    assert caplog.text.count(f"token=hidden:{len(TOKEN)}") == 2
    assert TOKEN.decode() not in caplog.text
