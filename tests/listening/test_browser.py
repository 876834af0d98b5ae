"""The browser port, by real connections: who is refused there, what the others get, and what all of them may cost."""

import asyncio
import contextlib
import http.client
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from rsocket_broker.broker import Broker
from rsocket_broker.errors import ApplicationError
from rsocket_broker.listening.browser import VISITOR
from rsocket_broker.protocol.limits import MIB
from rsocket_broker.routing.session import Session
from rsocket_broker.sessions.live import SessionLimits
from rsocket_broker.settings import ListenSettings
from tests.test_broker import app, running
from tests.until import until

LISTEN = ListenSettings(insecure_port=0, secure_port=0, browser_port=0, browser_origins=("dev.example.test",))
PATIENCE = 15.0


def address(broker: Broker, query: str = "device=Chrome&device_id=Chrome1&app=Shop&os=Browser") -> str:
    return f"ws://localhost:{broker.ports.browser_port}/?{query}"


def page(broker: Broker, origin: str | None = "http://localhost:3000", **query: str) -> Any:
    words = {"device": "Chrome", "device_id": "Chrome1", "app": "Shop", "os": "Browser"} | query
    headers = {} if origin is None else {"Origin": origin}
    url = address(broker, "&".join(f"{name}={text}" for name, text in words.items()))
    return connect(url, additional_headers=headers, compression=None, ping_interval=None)


async def hear(line: ClientConnection) -> dict[str, Any]:
    async with asyncio.timeout(PATIENCE):
        found: dict[str, Any] = json.loads(await line.recv())
    return found


async def refusal(broker: Broker, origin: str | None, **query: str) -> int:
    try:
        async with page(broker, origin, **query):
            return 101
    except InvalidStatus as error:
        return error.response.status_code


async def comes_in(broker: Broker, **query: str) -> ClientConnection:
    """As a page of js-flipper, which tries until it is let in."""
    async with asyncio.timeout(PATIENCE):
        while True:
            with contextlib.suppress(InvalidHandshake, OSError):
                return await page(broker, **query)
            await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def started(home: Path, **changes: Any) -> AsyncIterator[Broker]:
    async with running(home, listen=LISTEN, **changes) as broker:
        yield broker


def only(broker: Broker) -> Session:
    (session,) = broker.sessions
    return session


@pytest.mark.row("M-9", "M-1", "F-25")
async def test_whoever_may_not_connect_gets_one_answer_and_nothing_runs(tmp_path: Path) -> None:
    async with started(tmp_path / "home") as broker:
        foreign = [None, "null", "", "http://evil.test", "http://localhost.evil.test:80", "http://localhost@evil.test"]
        foreign += ["http://xdev.example.test", "file://", "http://127.0.0.1:3000", "chrome-extension://localhost"]
        for origin in foreign:
            assert await refusal(broker, origin) == 401, origin
        assert await refusal(broker, "http://localhost:1", device="") == 401
        assert await refusal(broker, "http://localhost:1", sdk_version="x") == 401
        assert not broker._endpoint.setups  # type: ignore[union-attr]
        for origin in ("localhost:", "http://localhost", "https://dev.example.test:8443"):
            assert await refusal(broker, origin) == 101, origin
        await until(lambda: not len(broker.sessions))


@pytest.mark.row("M-9")
async def test_requests_that_are_no_websockets_do_nothing(tmp_path: Path) -> None:
    async with started(tmp_path / "home") as broker:
        port = broker.ports.browser_port
        assert port is not None

        def ask(method: str, path: str, origin: str, body: bytes | None = None) -> tuple[int, bytes]:
            line = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
            try:
                line.request(method, path, body, {"Origin": origin})
                answer = line.getresponse()
                return answer.status, answer.read()
            finally:
                line.close()

        for method, path, body in (
            ("GET", "/metrics", None),
            ("GET", "/?device=x", None),
            ("POST", "/?device=x&app=y", b'{"method":"execute"}'),
            ("OPTIONS", "/", None),
        ):
            for origin in ("http://localhost:3000", "http://evil.test"):
                status, text = await asyncio.to_thread(ask, method, path, origin, body)
                assert status == 401
                assert b"execute" not in text
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.close()
        with socket.create_connection(("127.0.0.1", port), PATIENCE) as line:
            line.sendall(b"\x16\x03\x01\x02\x00")
            assert b"401" in await asyncio.to_thread(line.recv, 100)
        assert not len(broker.sessions)


@pytest.mark.row("F-25", "A-34")
async def test_an_older_app_writes_in_its_own_way(tmp_path: Path) -> None:
    async with started(tmp_path / "home") as broker:
        async with page(broker, app="", os="") as line:
            assert (await hear(line))["method"] == "getPlugins"
            await line.send(json.dumps({"app": "Old", "type": "connect", "plugins": ["Cart", "Log"]}))
            await until(lambda: only(broker).announced)
            session = only(broker)
            assert (session.announced, session.background) == (["Cart", "Log"], [])
            assert (session.claims.os, session.claims.app) == ("MacOS", "Chrome")
            call = asyncio.ensure_future(session.to_app.call("Cart", "total", {"of": 1}))
            assert await hear(line) == {"payload": {"method": "init", "params": {"plugin": "Cart"}}}
            asked = (await hear(line))["payload"]
            assert asked["params"] == {"api": "Cart", "method": "total", "params": {"of": 1}}
            await line.send(json.dumps({"app": "Old", "payload": {"id": asked["id"], "success": None}}))
            assert await asyncio.wait_for(call, PATIENCE) is None
        await until(lambda: not len(broker.sessions))


@pytest.mark.row("A-30", "M-15", "A-31")
async def test_a_crowd_takes_its_own_share_and_nobody_elses(tmp_path: Path) -> None:
    limits = SessionLimits(total=1, unverified=2)
    async with (
        started(tmp_path / "home", sessions=limits) as broker,
        app(broker, tmp_path / "app", "com.example.certified") as certified,
        contextlib.AsyncExitStack() as crowd,
    ):
        for number in range(2):
            await crowd.enter_async_context(page(broker, device_id=f"Chrome{number}"))
        for number in range(2, 6):
            assert await refusal(broker, "http://localhost:1", device_id=f"Chrome{number}") == 401
        assert await certified.request("echo.request", 1) == 1
        assert len(broker.sessions) == 3
        last = await crowd.enter_async_context(page(broker, device_id="Chrome1"))
        assert len(broker.sessions) == 3, "it took its own place"
        with contextlib.suppress(ConnectionClosed):
            await last.send(" " * MIB for _ in range(VISITOR.message // MIB + 1))
        await asyncio.wait_for(last.wait_closed(), PATIENCE)
        assert last.close_code == 1009
        assert await certified.request("echo.request", 2) == 2
        await until(lambda: len(broker.sessions) == 2)


@pytest.mark.row("A-30")
async def test_connections_that_say_nothing_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rsocket_broker.listening.listeners.BROWSER_CONNECTIONS", 8)
    monkeypatch.setattr("rsocket_broker.listening.browser.MAX_WAITING", 4)
    async with started(tmp_path / "home", sessions=SessionLimits(unverified=2)) as broker, page(broker):
        port = broker.ports.browser_port
        silent = [socket.create_connection(("127.0.0.1", port or 0), PATIENCE) for _ in range(50)]
        async with await comes_in(broker, device_id="Chrome2"):
            await until(lambda: len(broker.sessions) == 2)
        for one in silent:
            one.close()
        await until(lambda: len(broker.sessions) == 1)


@pytest.mark.row("A-56")
async def test_a_goodbye_says_whether_to_come_back(tmp_path: Path) -> None:
    """js-flipper comes back after any close code but 1000 and 1001."""
    async with started(tmp_path / "home") as broker:
        replaced, newer, kicked = [await page(broker, device_id=which) for which in ("a", "a", "b")]
        await replaced.wait_closed()
        assert (replaced.close_code, newer.close_code) == (1000, None)
        session = next(one for one in broker.sessions if one.identity.device_id == "b")
        await session.connection.close("kicked")
        await kicked.wait_closed()
        assert kicked.close_code == 1012
        await broker.stop()
        await newer.wait_closed()
        assert newer.close_code == 1012
        for line in (replaced, newer, kicked):
            await line.close()


@pytest.mark.row("M-9", "M-17")
async def test_it_is_closed_unless_it_was_asked_for(tmp_path: Path) -> None:
    async with running(tmp_path / "home") as broker:
        assert broker.ports.browser_port is None
        with pytest.raises(ApplicationError, match="--browser-port"):
            await broker.listeners.open("browser")
