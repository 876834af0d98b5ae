"""Apps with an SDK of the WebSocket era at a whole broker: the exchange on the plain port, sessions on the secure one.

The apps are a foreign WebSocket library, the folder and request of a real SDK's shape, and a table of answers.
"""

import asyncio
import base64
import contextlib
import json
import logging
import re
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import attrs
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from rsocket_broker.admin.client import admin_line
from rsocket_broker.broker import Broker
from rsocket_broker.enrollment.modes import Mode
from rsocket_broker.errors import RequestFailed
from rsocket_broker.listening import lines
from rsocket_broker.listening.listeners import PLAIN_CONNECTIONS
from rsocket_broker.settings import ListenSettings
from tests.end_to_end.conftest import RECORDER
from tests.foreign.sdk_folder import make_folder
from tests.test_broker import running
from tests.until import until

APP = "org.example.web"
PATIENCE = 20.0
PLUGINS = {
    "getPlugins": {"success": {"plugins": ["Recorder", "Other"]}},
    "getBackgroundPlugins": {"success": {"plugins": ["Recorder"]}},
}


@attrs.define
class WebApp:
    """One app: its folder, and what it answers. None: nothing ever."""

    broker: Broker
    folder: Path
    answers: dict[str, Any] = attrs.field(factory=lambda: dict(PLUGINS))
    received: list[Any] = attrs.field(factory=list)

    @classmethod
    def make(cls, broker: Broker, folder: Path) -> "WebApp":
        make_folder(folder, APP)
        return cls(broker, folder)

    def query(self, **changes: object) -> str:
        """As the SDK makes it, with the base64 that has lost its end."""
        fields = {"os": "MacOS", "device": "host name", "device_id": "", "app": "Dämo", "sdk_version": 4, "medium": 1}
        fields |= changes
        csr = base64.b64encode((self.folder / "app.csr").read_bytes()).decode()[:-1]
        kept = {name: value for name, value in fields.items() if value is not None}
        return f"{urlencode(kept)}&csr={csr}&csr_path={self.folder}/"

    # --- the exchange ------------------------------------------------------------------------------------------------

    def plain(self, **changes: object) -> Any:
        return connect(f"ws://localhost:{self.broker.ports.ws_insecure_port}/?{self.query(**changes)}")

    async def exchange(self, **changes: object) -> dict[str, object]:
        """The answer to `signCertificate`; an acknowledgement follows it."""
        message = {"method": "signCertificate", "csr": (self.folder / "app.csr").read_text(), "medium": 1}
        message |= {"destination": f"{self.folder}/", **changes}
        async with self.plain(device_id="unknown") as line:
            await line.send(json.dumps(message))
            async with asyncio.timeout(PATIENCE):
                answer = json.loads(await line.recv())
            there = (self.folder / "device.crt").exists()
            await line.send(json.dumps({"method": "signCertificateAck", "isError": False, "hasRequiredFiles": there}))
        assert isinstance(answer, dict)
        return answer

    # --- sessions ----------------------------------------------------------------------------------------------------

    def context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.folder / "sonarCA.crt")
        context.load_cert_chain(self.folder / "device.crt", self.folder / "privateKey.pem")
        return context

    def secure(self, path: str = "/", **changes: object) -> Any:
        url = f"wss://localhost:{self.broker.ports.ws_secure_port}{path}?{self.query(**changes)}"
        return connect(url, ssl=self.context(), close_timeout=1, max_size=None)

    @contextlib.asynccontextmanager
    async def session(self, path: str = "/", **changes: object) -> AsyncIterator[ClientConnection]:
        async with self.secure(path, **changes) as line:
            serving = asyncio.ensure_future(self.serve(line))
            try:
                yield line
            finally:
                serving.cancel()

    async def serve(self, line: ClientConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            async for text in line:
                assert isinstance(text, str)
                message = json.loads(text)
                self.received.append({name: value for name, value in message.items() if name != "id"})
                key = message["method"]
                if key == "execute":
                    key = f"{message['params']['api']}.{message['params']['method']}"
                answer = self.answers.get(key, {"error": {"message": f"Receiver {key} not found."}})
                if "id" in message and answer is not None:
                    await line.send(json.dumps({**answer, "id": message["id"]}))

    def methods(self) -> list[str]:
        return [message["method"] for message in self.received]


@contextlib.asynccontextmanager
async def enrolled(tmp_path: Path, **options: Any) -> AsyncIterator[tuple[Broker, WebApp]]:
    async with running(tmp_path / "home", plugins=("echo", str(RECORDER)), **options) as broker:
        app = WebApp.make(broker, tmp_path / "sonar")
        assert "deviceId" in await app.exchange()
        yield broker, app


async def closed(line: ClientConnection) -> tuple[int, str]:
    async with asyncio.timeout(PATIENCE):
        await line.wait_closed()
    assert line.close_code is not None
    return line.close_code, line.close_reason or ""


@pytest.mark.row("F-7", "F-25", "A-26")
async def test_a_whole_story_from_exchange_to_call(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with enrolled(tmp_path) as (broker, app), admin_line(tmp_path / "home") as admin:
        assert not list(broker.sessions)
        app.answers["Other.shout"] = {"success": "OI"}
        app.answers["Other.fail"] = {"error": {"message": "no such thing", "name": "Odd"}}
        app.answers["Other.never"] = None
        async with app.session("/sonar") as line:
            await until(lambda: "init" in app.methods())
            assert app.methods() == ["getPlugins", "getBackgroundPlugins", "init"]
            (listed,) = await admin.call("clients.list")
            assert (listed["transport"], listed["app"], listed["device"]) == ("wss", "Dämo", "host name")
            assert (listed["app_id"], listed["plugins"]) == (APP, ["Recorder", "Other"])
            call = {"client": APP, "plugin": "Other", "params": {}}
            assert await admin.call("clients.call", {**call, "method": "shout"}) == "OI"
            with pytest.raises(RequestFailed, match="no such thing"):
                await admin.call("clients.call", {**call, "method": "fail"})
            with pytest.raises(RequestFailed, match=r"did not answer Other\.never within 0\.1 s"):
                await admin.call("clients.call", {**call, "method": "never", "timeout": 0.1})
            assert await admin.call("clients.call", {**call, "method": "shout"}) == "OI"
            event = {"api": "Recorder", "method": "noted", "params": {"n": 1}}
            await line.send(json.dumps({"method": "execute", "params": event}))
            await line.send('{"not":"known"}')
            await line.send("not json")
            await line.send(json.dumps({"method": "execute", "params": event}))
            (session,) = broker.sessions
            await until(lambda: session.connection.frames_in >= 9)
            shown = await admin.call("clients.show", {"client": session.id})
            assert shown["tls"] == "TLSv1.2"
        await until(lambda: not list(broker.sessions))
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


@pytest.mark.row("F-25")
async def test_every_level_of_sdk_is_served(tmp_path: Path) -> None:
    async with enrolled(tmp_path) as (broker, app):
        app.answers["isMethodSupported"] = {"success": {"isSupported": False}}
        for level in (None, 1, 2, 3, 4):
            app.received.clear()
            async with app.session(sdk_version=level):
                await until(lambda: "init" in app.methods())
                assert ("getBackgroundPlugins" in app.methods()) == (level == 4)
                (session,) = broker.sessions
                assert session.claims.sdk_version == (level or 0)
                supported = await asyncio.wait_for(session.to_app.supports("Other", "shout"), PATIENCE)
                assert supported is ((level or 0) < 2)
            await until(lambda: not list(broker.sessions))


@pytest.mark.row("F-25", "A-26")
async def test_who_contradicts_its_certificate_or_says_nothing_is_refused_by_401(tmp_path: Path) -> None:
    async with enrolled(tmp_path) as (broker, app):
        for changes in ({"app_id": "org.example.other"}, {"os": None}, {"app": ""}, {"sdk_version": "four"}):
            with pytest.raises(InvalidStatus) as caught:
                async with app.secure(**changes):
                    pass
            assert caught.value.response.status_code == 401
            assert caught.value.response.body
        with pytest.raises(InvalidStatus, match="401"):
            async with app.plain(os="BeOS"):
                pass
        assert not list(broker.sessions)
        async with app.session(app_id=APP, device_id="unknown", foreground="true"):
            await until(lambda: list(broker.sessions))


@pytest.mark.row("A-13")
async def test_a_refused_exchange_is_answered_by_an_empty_object_and_told_in_the_audit(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path / "home") as broker:
        app = WebApp.make(broker, tmp_path / "sonar")
        (app.folder / "app.csr").write_text((app.folder / "app.csr").read_text().replace("MII", "MIJ", 1))
        assert await app.exchange() == {}
        assert "refused to enrol Dämo on host name" in caplog.text
        await until(lambda: "does not find its certificates" in caplog.text)
        assert not broker.certificates() or all(each.principal is None for each in broker.certificates())


async def test_the_newer_session_of_an_app_takes_the_place_of_the_older(tmp_path: Path) -> None:
    async with enrolled(tmp_path) as (broker, app), app.session() as first:
        await until(lambda: list(broker.sessions))
        async with app.session():
            assert (await closed(first))[0] == 1000
            assert len(list(broker.sessions)) == 1


@pytest.mark.row("A-19")
async def test_a_revocation_ends_its_sessions_and_keeps_it_out(tmp_path: Path) -> None:
    async with enrolled(tmp_path) as (broker, app), admin_line(tmp_path / "home") as admin, app.session() as line:
        await until(lambda: list(broker.sessions))
        await admin.call("ca.revoke", {"by": "app", "value": APP, "reason": "lost"})
        code, reason = await closed(line)
        assert code == 1008
        assert "revoked" in reason
        with pytest.raises((ssl.SSLError, ConnectionError)):
            async with app.secure():
                pass
        assert await app.exchange() == {}


@pytest.mark.row("A-14")
async def test_a_rotation_reaches_a_live_session_and_whoever_enrols_meanwhile(tmp_path: Path) -> None:
    async with enrolled(tmp_path) as (broker, app), admin_line(tmp_path / "home") as admin, app.session() as line:
        await until(lambda: list(broker.sessions))
        for number, step in enumerate(("prepare", "switch")):
            async for _ in admin.stream(f"rotate.{step}", {}):
                pass
            late = WebApp.make(broker, tmp_path / f"late{number}")
            assert "deviceId" in await late.exchange()
            path = late.folder / "sonarCA.crt"
            anchors = re.findall(r"-----BEGIN[^-]+-----[^-]+-----END[^-]+-----", path.read_text())
            path.write_text(anchors[0] + "\n")  # all that Java reads of it
            async with late.secure():
                await until(lambda: "wss" in {one.connection.peer.channel.value for one in broker.sessions})
        assert line.close_code in (None, 1000), "replaced, for the late ones are the same app"


@pytest.mark.row("M-24")
async def test_the_window_opens_and_closes_both_ports(tmp_path: Path) -> None:
    async with (
        running(tmp_path / "home", enrollment_mode=Mode.WINDOW) as broker,
        admin_line(tmp_path / "home") as admin,
    ):
        app = WebApp.make(broker, tmp_path / "sonar")
        port = broker.listeners.number("ws_insecure")
        assert broker.ports.ws_insecure_port is None
        status = await admin.call("enrollment.open", {"seconds": 60, "uses": 1})
        assert status["ws_insecure_port"] == port
        silent = await connect(f"ws://localhost:{port}/?{app.query()}")
        assert "deviceId" in await app.exchange()
        await until(lambda: not broker.listeners.listening("ws_insecure"))
        assert (await closed(silent))[0] == 1012
        assert not broker.listeners.listening("insecure")


async def test_a_bare_connection_is_unremarked_on_both_ports(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with enrolled(tmp_path) as (broker, app):
        before = len(caplog.records)
        for port in (broker.ports.ws_insecure_port, broker.ports.ws_secure_port):
            for _ in range(5):
                with socket.create_connection(("localhost", port or 0), PATIENCE):
                    pass
        async with app.session():
            await until(lambda: list(broker.sessions))
        told = [record for record in caplog.records[before:] if record.levelno >= logging.INFO]
        assert {record.name for record in told} <= {"rsocket_broker.routing.endpoint"}


UPGRADE = (
    "GET /?{query} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
)


class Flood:
    """Connections of one address that stay, each with what it has said so far."""

    def __init__(self, port: int | None, context: ssl.SSLContext | None = None) -> None:
        self._to = {"host": "localhost", "port": port, "ssl": context}
        self._lines: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def come(self, words: str, count: int) -> None:
        for _ in range(count):
            reader, writer = await asyncio.open_connection(**self._to)  # type: ignore[arg-type]
            self._lines.append((reader, writer))
            writer.write(words.encode())

    async def line_of(self, at: int) -> bytes:
        """What one of them hears first; nothing where it was closed."""
        async with asyncio.timeout(PATIENCE):
            try:
                return await self._lines[at][0].readline()
            except ConnectionError:
                return b""

    async def leave(self) -> None:
        for _, writer in self._lines:
            writer.close()
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                await writer.wait_closed()


async def test_a_flood_on_the_plain_port_shuts_nobody_out(tmp_path: Path) -> None:
    """Silent ones, halves of requests, headers without end, and those who are let in and then say nothing."""
    async with enrolled(tmp_path) as (broker, app), app.session() as line:
        flood, head = Flood(broker.ports.ws_insecure_port), UPGRADE.format(query=app.query())
        for _ in range(4):
            await flood.come("", 20)
            await flood.come(head, 20)
            await flood.come(f"{head}X: {'x' * 17_000}", 20)
            await flood.come(f"{head}\r\n", 20)
        assert await flood.line_of(0) == b""
        await flood.come(f"{head}X: {'x' * 17_000}", 1)
        assert (await flood.line_of(-1)).startswith(b"HTTP/1.1 401 ")
        (described,) = [each for each in broker.listeners.describe() if each["name"] == "ws_insecure"]
        assert int(str(described["connections"])) <= PLAIN_CONNECTIONS
        other = WebApp.make(broker, tmp_path / "other")
        assert "deviceId" in await other.exchange()
        await (await line.ping())
        await flood.leave()


async def test_requests_that_never_end_on_the_secure_port_give_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also those of an app with a certificate."""
    monkeypatch.setattr(lines, "WEB_WAITING", 5)
    async with enrolled(tmp_path) as (broker, app), app.session() as line:
        flood = Flood(broker.ports.ws_secure_port, app.context())
        await flood.come(UPGRADE.format(query=app.query()), 12)
        for at in range(6):
            assert not (await flood.line_of(at)).startswith(b"HTTP/1.1 101")
        assert len(list(broker.sessions)) == 1
        await (await line.ping())
        async with app.session():
            assert (await closed(line))[0] == 1000  # the newer one of the same app was let in
        await flood.leave()


async def test_metrics_and_traces_know_both_ports(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    ports = ListenSettings(insecure_port=0, secure_port=0, http_port=0)
    async with enrolled(tmp_path, listen=ports, trace_frames=("all",)) as (broker, app), app.session():
        await until(lambda: "init" in app.methods())
        reader, writer = await asyncio.open_connection("localhost", broker.ports.http_port)
        writer.write(f"GET /metrics HTTP/1.1\r\nHost: localhost:{broker.ports.http_port}\r\n\r\n".encode())
        page = (await reader.read()).decode()
        writer.close()
        assert re.search(r'rsocket_broker_sessions\{[^}]*transport="wss"[^}]*\} 1', page), page[:3000]
        assert 'port="ws_insecure"' in page
    for words in (
        r"127\.0\.0\.1:\d+ <- signCertificate \d+ bytes",
        rf"c1 {APP}@\S+ \(filesystem\) -> getPlugins id=0 ",
    ):
        assert re.search(words, caplog.text), words
    assert "BEGIN CERTIFICATE" not in caplog.text


@pytest.mark.row("A-31")
async def test_a_message_of_60_mb_arrives(tmp_path: Path) -> None:
    async with enrolled(tmp_path) as (broker, app), app.session() as line:
        await until(lambda: "init" in app.methods())
        (session,) = broker.sessions
        before = session.connection.frames_in
        event = {"api": "Recorder", "method": "noted", "params": {"text": "x" * 60_000_000}}
        await line.send(json.dumps({"method": "execute", "params": event}))
        async with asyncio.timeout(PATIENCE):
            while session.connection.frames_in == before:
                await asyncio.sleep(0.01)
