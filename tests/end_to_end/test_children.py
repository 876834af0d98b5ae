"""Sessions below others, on each port of a broker in its own process: what their tokens open, and what not."""

import asyncio
import contextlib
import json
import signal
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed as WebSocketClosed

from rsocket_broker import client
from rsocket_broker.client.folder import AppFolder
from rsocket_broker.client.responder import Refuser
from rsocket_broker.connection import Connection
from rsocket_broker.credentials import Credentials
from rsocket_broker.errors import ConnectionClosed
from rsocket_broker.listening.lines import MAX_STRANGERS
from rsocket_broker.payload import Payload
from rsocket_broker.protocol.authentication import bearer_metadata
from rsocket_broker.protocol.frames import Setup
from rsocket_broker.protocol.limits import PLAIN, SECURE
from rsocket_broker.protocol.metadata import route
from rsocket_broker.protocol.protocol import Protocol
from rsocket_broker.transports.tls import connect_tls
from rsocket_broker.transports.tls_contexts import ALPN_HTTP, client_context
from rsocket_broker.transports.websocket_client import connect_websocket
from tests.end_to_end.processes import BrokerProcess, start_broker

APP = "org.example.parent"


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    running = start_broker(tmp_path_factory.mktemp("children") / "home", "--http-port", "0", "--ws-secure-port", "0")
    yield running
    assert running.stop() == 0, running.log.read_text()


@contextlib.asynccontextmanager
async def app_of(broker: BrokerProcess, folder: Path, app_id: str = APP) -> AsyncIterator[client.Session]:
    async with client.connect(
        app_id=app_id,
        app="Parent",
        directory=folder,
        insecure_port=broker.insecure_port,
        secure_port=broker.secure_port,
        timeout=15,
    ) as session:
        yield session


def credentials_in(folder: Path) -> Credentials:
    enrolled = AppFolder(folder).load()
    assert enrolled is not None
    return enrolled.credentials


async def opened(broker: BrokerProcess, port: str, token: str, credentials: Credentials | None) -> Connection:
    """A session with this token on one of the ports. Raises ConnectionClosed when the broker refuses it."""
    setup = Setup(metadata=bearer_metadata(token))
    connection = Connection(Protocol.client(setup, SECURE, time.monotonic()), Refuser())
    number = broker.ports[port]
    if port == "secure_port":
        assert credentials is not None
        await connect_tls("localhost", number, client_context(credentials), connection)
    elif credentials is not None:
        await connect_websocket("localhost", number, connection, context=client_context(credentials, [ALPN_HTTP]))
    else:
        await connect_websocket("localhost", number, connection)
    await connection.wait_accepted()
    return connection


async def ask(connection: Connection, name: str, value: object = None) -> Any:
    answer = await connection.request_response(Payload(json.dumps(value).encode(), route(name)), 10)
    return json.loads(answer.data or b"null")


PORTS = {"loopback": "http_port", "tls": "secure_port", "wss": "ws_secure_port"}


@pytest.mark.row("A-33", "W-11")
@pytest.mark.parametrize("audience", list(PORTS))
async def test_a_token_is_good_at_its_own_port_alone(broker: BrokerProcess, tmp_path: Path, audience: str) -> None:
    async with app_of(broker, tmp_path / "app") as session:
        own = credentials_in(tmp_path / "app")
        made = await session.request("sessions.login", {"name": "tool", "audience": audience, "scope": ["echo.*"]})
        for name, port in PORTS.items():
            beside = None if name == "loopback" else own
            if name != audience:
                with pytest.raises(ConnectionClosed, match="There is no session for this token here"):
                    await opened(broker, port, made["token"], beside)
                continue
            child = await opened(broker, port, made["token"], beside)
            shown = await ask(child, "sessions.introspect", {})
            assert (shown["id"], shown["parent"], shown["audience"]) == (made["id"], made["parent"], audience)
            assert await ask(child, "echo.request", [1]) == [1]
            with pytest.raises(client.Rejected, match="policy"):
                await ask(child, "sessions.login", {"name": "deeper"})
            await child.close()


@pytest.mark.row("A-33", "A-26")
async def test_beside_the_certificate_of_another_app_a_token_is_worth_nothing(
    broker: BrokerProcess, tmp_path: Path
) -> None:
    async with app_of(broker, tmp_path / "one") as session, app_of(broker, tmp_path / "two", "org.example.other"):
        made = await session.request("sessions.login", {"name": "tool", "audience": "tls"})
        with pytest.raises(ConnectionClosed, match="There is no session for this token here"):
            await opened(broker, "secure_port", made["token"], credentials_in(tmp_path / "two"))


@pytest.mark.row("A-34", "A-59")
async def test_an_app_that_loses_its_line_keeps_its_children_while_it_may_resume(
    broker: BrokerProcess, tmp_path: Path
) -> None:
    async with app_of(broker, tmp_path / "app") as session:
        made = await session.request("sessions.login", {"name": "page"})
        child = await opened(broker, "http_port", made["token"], None)
        line = session._connection
        assert line is not None
        line.drop_line()
        assert await ask(child, "echo.request", 1) == 1
        await session.wait_connected(15)
        assert (await session.request("sessions.introspect"))["children"] == [made["id"]]
        assert await ask(child, "echo.request", 2) == 2
        await child.close()


@pytest.mark.row("A-59", "A-60", "W-12")
async def test_no_child_lives_on_after_the_broker_was_killed(tmp_path: Path) -> None:
    home = tmp_path / "home"
    broker = start_broker(home, "--http-port", "0")
    async with app_of(broker, tmp_path / "app") as session:
        made = await session.request("sessions.login", {"name": "page"})
        child = await opened(broker, "http_port", made["token"], None)
        broker.stop(signal.SIGKILL)
        await child.wait_closed()
    again = start_broker(home, "--http-port", "0")
    try:
        with pytest.raises(ConnectionClosed, match="has ended: the broker was restarted"):
            await opened(again, "http_port", made["token"], None)
        listed = json.loads(again.command("sessions", "list", "--all", "--json").stdout)
        assert [(one["id"], one["reason"]) for one in listed] == [(made["id"], "the broker was restarted")]
        assert json.loads(again.command("sessions", "list", "--json").stdout) == []
    finally:
        assert again.stop() == 0, again.log.read_text()
    for one in (broker, again):
        assert made["token"] not in one.log.read_text()


@pytest.mark.row("A-21", "A-59", "W-12")
async def test_a_revoked_certificate_takes_the_children_with_it(broker: BrokerProcess, tmp_path: Path) -> None:
    async with app_of(broker, tmp_path / "app", "org.example.revoked") as session:
        made = await session.request("sessions.login", {"name": "page"})
        child = await opened(broker, "http_port", made["token"], None)
        (shown,) = [one for one in await asyncio.to_thread(broker.clients) if one["node"] == made["parent"]]
        done = await asyncio.to_thread(broker.command, "ca", "revoke", shown["serial"])
        assert done.returncode == 0, done.stderr
        assert "ended" in (await child.wait_closed()).public
        with pytest.raises(ConnectionClosed, match="has ended"):
            await opened(broker, "http_port", made["token"], None)


async def test_before_a_token_was_judged_messages_are_small(broker: BrokerProcess) -> None:
    async with connect(f"ws://localhost:{broker.ports['http_port']}/rsocket") as line:
        with pytest.raises(WebSocketClosed) as caught:
            await line.send(bytes(PLAIN.frame + 1))
            await line.recv()
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 1009


async def test_strangers_who_show_no_token_shut_nobody_out(broker: BrokerProcess, tmp_path: Path) -> None:
    url = f"ws://localhost:{broker.ports['http_port']}/rsocket"
    async with app_of(broker, tmp_path / "app") as session, contextlib.AsyncExitStack() as stack:
        made = await session.request("sessions.login", {"name": "page"})
        child = await opened(broker, "http_port", made["token"], None)
        silent = [await stack.enter_async_context(connect(url)) for _ in range(MAX_STRANGERS + 1)]
        with pytest.raises(WebSocketClosed):
            await asyncio.wait_for(silent[0].recv(), 5)
        assert await ask(child, "echo.request", 1) == 1
        await (await opened(broker, "http_port", made["token"], None)).close()
