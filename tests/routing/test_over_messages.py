"""Sessions over a line of messages at the secure endpoint: all that is real but the bytes' way and the certificates."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from rsocket_broker.claims import Claims
from rsocket_broker.errors import ApplicationError, SetupRefused
from rsocket_broker.messages import NORMAL, POLICY, MessageLine
from rsocket_broker.plugin_api import App, Plugin, event
from rsocket_broker.policy.policy import Policy
from rsocket_broker.routing.session import Session
from rsocket_broker.sessions.live import SessionLimits
from rsocket_broker.transports.base import Channel, Peer
from tests.routing.line import Line, until
from tests.test_messages import Letters

CLAIMS = Claims(os="Android", device="Pixel", app="Demo", sdk_version=4, medium=1)


class Recorder(Plugin):
    id = "Recorder"

    def __init__(self) -> None:
        self.events: list[object] = []

    @event("noted")
    def noted(self, app: App, params: dict[str, object]) -> None:
        self.events.append(params)


class Phone(Letters):
    """An app that answers from a table, in the order in which it is asked."""

    def __init__(self, certificate: bytes = b"com.demo|dev1|adb|255") -> None:
        super().__init__()
        self.peer = Peer("127.0.0.1:4000", Channel.WSS, certificate)
        self.answers: dict[str, Any] = {
            "getPlugins": {"plugins": ["Recorder", "Own"]},
            "getBackgroundPlugins": {"plugins": []},
            "execute": {"did": 1},
        }

    def send(self, text: bytes) -> None:
        super().send(text)
        message = json.loads(text)
        if "id" in message and message["method"] in self.answers:
            answer = {"success": self.answers[message["method"]], "id": message["id"]}
            asyncio.get_running_loop().call_soon(self.receiver.message_received, json.dumps(answer).encode())

    @property
    def asked(self) -> list[str]:
        return [json.loads(text)["method"] for text in self.sent]


@contextlib.asynccontextmanager
async def phone(
    line: Line, phone: Phone | None = None, claims: Claims = CLAIMS
) -> AsyncIterator[tuple[Phone, Session]]:
    """Raises SetupRefused."""
    phone = phone or Phone()
    responder = line.endpoint.responder()
    phone.receiver = MessageLine(responder)
    phone.receiver.open(phone.peer, claims)
    phone.receiver.transport_ready(phone)
    session = responder.session
    assert session is not None
    await until(lambda: session.started)
    try:
        yield phone, session
    finally:
        await phone.receiver.close()


@pytest.mark.row("F-25", "A-26")
async def test_claims_stand_for_a_setup() -> None:
    async with Line(Recorder) as line, phone(line) as (app, session):
        assert app.asked == ["getPlugins", "getBackgroundPlugins", "init"]
        assert session.describe()["transport"] == "wss"
        assert await session.to_app.call("Own", "do") == {"did": 1}
        assert session.announced == ["Recorder", "Own"]
        assert line.endpoint.setups["accepted"] == 1
        with pytest.raises(ApplicationError, match="has nothing else"):
            await anext(session.to_app.stream("Own", "do"))
        with pytest.raises(ApplicationError, match="has nothing else"):
            await session.to_app.push("Own", "do")


@pytest.mark.row("A-26", "A-30")
@pytest.mark.parametrize(
    ("certificate", "claims", "words"),
    [
        (b"com.demo|dev1|adb|255", Claims(app_id="com.other"), "app_id is com.other"),
        (b"com.demo|dev1|adb|255", Claims(device_id="dev2"), "device_id is dev2"),
        (b"foreign", CLAIMS, "not issued here"),
    ],
)
async def test_who_is_not_let_in_is_counted(certificate: bytes, claims: Claims, words: str) -> None:
    async with Line() as line:
        with pytest.raises(SetupRefused, match=words):
            async with phone(line, Phone(certificate), claims):
                pass
        assert line.endpoint.setups["rejected_setup"] == 1
        assert not line.sessions


@pytest.mark.row("A-30")
async def test_limits_hold_for_both_wires_together() -> None:
    async with Line(limits=SessionLimits(total=1)) as line, phone(line):
        with pytest.raises(SetupRefused):
            async with phone(line, Phone(b"com.else|dev1|adb|256")):
                pass


async def test_events_go_to_their_plugins_and_bad_ones_cost_themselves_alone() -> None:
    plugin = Recorder()
    async with Line(plugin) as line, phone(line) as (app, session):
        for text in (
            b"no json",
            b"[]",
            b'{"method":"execute","params":{"api":"Recorder","method":"noted","params":{"n":1}}}',
            b'{"method":"execute","params":{"api":"Nobody","method":"noted"}}',
            b'{"params":{"method":"noted","api":"Recorder","params":{"id":7}},"method":"execute"}',
            b'{"method":"execute","params":{"api":"Recorder","method":"noted","params":{"n":2}}}',
            b'{"method":"execute","params":{"api":"Recorder","method":"noted","params":{"n":3}},"id":4}',
            b'{"error":{"message":"of the app"}}',
            b'{"method":"execute","params":{"api":"Recorder","method":"noted","params":{"n":4}}}',
        ):
            app.receiver.message_received(text)
        await until(lambda: len(plugin.events) == 4)
        assert plugin.events == [{"n": 1}, {"id": 7}, {"n": 2}, {"n": 4}]
        assert session.connection.closing is None


async def test_a_refresh_asks_again() -> None:
    async with Line(Recorder) as line, phone(line) as (app, session):
        app.answers["getPlugins"] = {"plugins": []}
        app.receiver.message_received(b'{"method":"refreshPlugins"}')
        await until(lambda: "deinit" in app.asked)
        assert session.announced == []


@pytest.mark.row("F-25")
async def test_a_newer_line_of_any_wire_takes_the_place_of_the_older() -> None:
    async with Line() as line, phone(line) as (app, _):
        newer = await line.app()
        await until(lambda: app.events)
        assert app.events[0][0] == NORMAL  # type: ignore[index]
        async with phone(line):
            assert (await newer.served.wait_closed()).public.startswith("a newer session")


@pytest.mark.row("A-19")
async def test_a_session_whose_certificate_is_over_is_expelled() -> None:
    async with Line() as line, phone(line) as (app, session):
        waiting = asyncio.ensure_future(session.to_app.call("Own", "never"))
        app.answers.clear()
        await asyncio.sleep(0)
        line.endpoint.children.end(session.node.id, "its certificate has ended")
        await until(lambda: app.events)
        assert app.events == [(POLICY, "This session has ended: its certificate has ended.")]
        app.receiver.message_received(b'{"method":"refreshPlugins"}')
        await app.receiver.wait_closed()
        await asyncio.wait([waiting])
        assert not line.sessions


@pytest.mark.row("A-28")
async def test_another_policy_is_told_over_this_wire_too() -> None:
    async with Line(Recorder) as line, phone(line) as (app, session):
        await until(lambda: "init" in app.asked)
        await line.change(Policy([]))
        await until(lambda: "deinit" in app.asked)
        assert "Recorder" not in session.plugins.seats


async def test_nobody_relays_to_who_reads_no_routes() -> None:
    async with Line(relay=True) as line, phone(line, Phone(b"com.else|dev1|adb|256")) as (app, session):
        other = await line.connect()
        with pytest.raises(Exception, match="reads no routes"):
            await other.ask(f"client:{session.id}", b"1")
        assert "execute" not in app.asked
