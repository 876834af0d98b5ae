"""Clients that prove nothing, on message lines, beside certified ones."""

import asyncio
import json
from typing import Any

import attrs
import pytest

from rsocket_broker.claims import Claims
from rsocket_broker.errors import ApplicationError, Rejected, SetupRefused
from rsocket_broker.messages import MessageLine
from rsocket_broker.payload import ErrorCode
from rsocket_broker.plugin_api import App, Plugin, event, method
from rsocket_broker.quota import Holding
from rsocket_broker.routing.session import Session
from rsocket_broker.routing.unverified import UnverifiedEndpoint
from rsocket_broker.sessions.live import SessionLimits
from rsocket_broker.transports.base import Channel, Peer
from tests.routing.line import Line, until

CLAIMS = Claims(os="Browser", device="Chrome", device_id="Chrome17", app="com.demo", sdk_version=4, medium=3)


class Cart(Plugin):
    id = "Cart"

    def __init__(self) -> None:
        self.seen: list[object] = []

    @event("added")
    def added(self, app: App, params: dict[str, Any]) -> None:
        self.seen.append((app.identity.proof.value, params))


class Given(Plugin):
    id = "given"

    def __init__(self) -> None:
        self.calls = 0

    @method("run")
    def run(self, app: App) -> str:
        self.calls += 1
        return "done"


class Page:
    """A page as js-flipper would have it: answers for its plugins, and keeps what it is told."""

    def __init__(self, line: MessageLine, *plugins: str) -> None:
        self.line = line
        self.peer = Peer("127.0.0.1:1", Channel.WS)
        self.queued = 0
        self.plugins = list(plugins)
        self.told: list[dict[str, Any]] = []
        self.closed: tuple[int, str] | None = None

    def send(self, text: bytes) -> None:
        message = json.loads(text)
        if message["method"] in ("getPlugins", "getBackgroundPlugins"):
            self.say({"id": message["id"], "success": {"plugins": self.plugins}})
        elif message["method"] == "execute" and "id" in message:
            self.say({"id": message["id"], "success": message["params"]["params"].get("x")})
        else:
            self.told.append(message)

    def say(self, message: object) -> None:
        asyncio.get_running_loop().call_soon(self.line.message_received, json.dumps(message).encode())

    def execute(self, plugin: str, method: str, params: object) -> None:
        self.say({"method": "execute", "params": {"api": plugin, "method": method, "params": params}})

    def count_in(self, holding: Holding) -> None:
        """Nothing comes in pieces."""

    def ping(self) -> None: ...

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def close(self, code: int, reason: str) -> None:
        self.closed = code, reason
        asyncio.get_running_loop().call_soon(self.line.transport_lost, None)

    def abort(self) -> None:
        self.close(1006, "")


async def visit(line: Line, *plugins: str, **claims: object) -> tuple[Page, Session]:
    responder = UnverifiedEndpoint(line.endpoint).responder()
    messages = MessageLine(responder)
    page = Page(messages, *plugins)
    messages.open(page.peer, attrs.evolve(CLAIMS, **claims))  # type: ignore[arg-type]
    messages.transport_ready(page)
    session = responder.session
    assert session is not None
    await until(lambda: session.started)
    return page, session


@pytest.mark.row("M-9", "F-25", "A-34")
async def test_a_page_has_its_plugins_beside_a_certified_app_of_its_name() -> None:
    cart = Cart()
    async with Line(cart) as line:
        app = await line.app(["Cart"], ["Cart"])
        page, session = await visit(line, "Cart")
        assert {"method": "init", "params": {"plugin": "Cart"}} in page.told
        page.execute("Cart", "added", {"n": 1})
        await until(lambda: cart.seen)
        assert cart.seen == [("unverified", {"n": 1})]
        for value in (None, False, 0, "", {"a": []}):
            assert await session.to_app.call("Cart", "echo", {"x": value}) == value
        shown = session.describe()
        assert (shown["proof"], shown["session"], shown["app_id"], shown["device_id"]) == (
            "unverified",
            "unverified",
            "com.demo",
            "17",
        )
        assert line.sessions.find("com.demo") is app.session
        assert line.sessions.find("unverified:com.demo") is session
        assert app.session in line.sessions
        await session.connection.close()


@pytest.mark.row("M-9", "M-23", "A-27")
async def test_a_page_reaches_no_plugin_that_it_does_not_have() -> None:
    given = Given()
    async with Line(given) as line:
        page, session = await visit(line, "identity", "sessions")
        for plugin, name in (("given", "run"), ("identity", "renew"), ("sessions", "login"), ("nobody", "x")):
            page.execute(plugin, name, {})
            with pytest.raises(Rejected, match="policy"):
                await session.to_app.call(plugin, name)
        await until(lambda: line.access.refused >= 5)
        assert given.calls == 0
        assert not [one for one in page.told if one["method"] == "init"]
        with pytest.raises(ApplicationError, match="proved nothing"):
            await session.device_access()
        with pytest.raises(ApplicationError, match="vouches for nobody"):
            await line.endpoint.children.login(session.node.id, None)  # type: ignore[arg-type]
        await session.connection.close()


@pytest.mark.row("A-34", "A-30")
async def test_a_page_that_comes_again_takes_its_own_place_and_nobody_elses() -> None:
    async with Line(Cart, limits=SessionLimits(total=1, unverified=1)) as line:
        app = await line.app(["Cart"])
        first, _ = await visit(line)
        second, session = await visit(line)
        await until(lambda: first.closed)
        assert first.closed is not None
        assert first.closed[0] == 1000, "after which js-flipper does not come back"
        with pytest.raises(SetupRefused, match="limit"):
            await visit(line, device_id="another")
        assert list(line.sessions) == [app.session, session]
        assert second.closed is None
        await session.connection.close()


async def test_nothing_but_claims_lets_one_in_here() -> None:
    async with Line(Cart) as line:
        admission = UnverifiedEndpoint(line.endpoint)
        with pytest.raises(SetupRefused, match="Flipper's JSON"):
            admission.admit(None, None)  # type: ignore[arg-type]
        with pytest.raises(SetupRefused, match="Flipper's JSON"):
            admission.resume(None, None)  # type: ignore[arg-type]


async def test_a_page_that_leaves_is_gone() -> None:
    async with Line(Cart) as line:
        page, session = await visit(line, "Cart")
        page.line.eof_received()
        assert not len(line.sessions)
        assert session.connection.closing is not None
        assert session.connection.closing.code != ErrorCode.CONNECTION_ERROR
