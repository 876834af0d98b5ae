"""The library of Flipper's own server, as a client: a desktop app enrols with medium 1 and holds its session."""

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from rsocket_broker import client
from tests.end_to_end.processes import BrokerProcess
from tests.foreign.conftest import RunJsApp
from tests.foreign.sdk_folder import make_folder

APP_ID = "org.example.foreign"


async def clients(broker: BrokerProcess) -> list[dict[str, Any]]:
    return await asyncio.to_thread(broker.clients)


async def call(broker: BrokerProcess, plugin: str, method: str, params: object) -> Any:
    done = await asyncio.to_thread(broker.command, "clients", "call", APP_ID, plugin, method, json.dumps(params))
    return (done.returncode, json.loads(done.stdout) if done.returncode == 0 else done.stderr)


async def heard_by_the_plugin(broker: BrokerProcess, folder: Path, events: list[object]) -> None:
    """Another client asks the recorder plugin until it has told these events."""
    async with (
        client.connect(
            app_id="org.example.reader",
            app="Reader",
            directory=folder / "reader",
            insecure_port=broker.insecure_port,
            secure_port=broker.secure_port,
            timeout=10,
        ) as session,
        asyncio.timeout(10),
    ):
        while await session.request("Recorder.events") != events:
            await asyncio.sleep(0.02)


@pytest.mark.row("F-8", "F-9", "F-16", "F-17", "F-27", "F-30")
async def test_a_desktop_app_enrols(js_app: RunJsApp, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "sonar", APP_ID)
    async with js_app(folder, APP_ID) as app:
        told = await app.heard("enrolled")
        assert isinstance(told["answer"]["deviceId"], str)
        assert {"sonarCA.crt", "device.crt"} <= set(told["files"])
    leaf = x509.load_pem_x509_certificate((folder / "device.crt").read_bytes())
    key = serialization.load_pem_private_key((folder / "privateKey.pem").read_bytes(), None)
    assert leaf.public_key() == key.public_key()  # the request's own version is 1: cryptography does not read it
    leaf.verify_directly_issued_by(x509.load_pem_x509_certificate((folder / "sonarCA.crt").read_bytes()))


@pytest.mark.row("F-3", "F-22", "A-26", "A-56")
async def test_it_holds_its_session_and_both_sides_call(
    js_app: RunJsApp, broker: BrokerProcess, tmp_path: Path
) -> None:
    async with js_app(make_folder(tmp_path / "sonar", APP_ID), APP_ID) as app:
        await app.heard("asked", method="getPlugins")
        await app.heard("asked", method="getBackgroundPlugins")
        await app.heard("told", message={"method": "init", "params": {"plugin": "Recorder"}})

        (shown,) = await clients(broker)
        assert (shown["app_id"], shown["proof"], shown["os"]) == (APP_ID, "filesystem", "MacOS")
        assert sorted(shown["plugins"]) == ["Recorder", "Screen"]

        assert await call(broker, "Screen", "reverse", {"text": "abc"}) == (0, {"text": "cba"})
        code, text = await call(broker, "Screen", "explode", {})
        assert code == 1
        assert "Receiver explode not found." in text

        app.command(event={"method": "execute", "params": {"api": "Recorder", "method": "noted", "params": {"n": 1}}})
        await heard_by_the_plugin(broker, tmp_path, [{"app_id": APP_ID, "params": {"n": 1}}])

        app.told.clear()
        app.command(event={"method": "refreshPlugins"})
        await app.heard("asked", method="getPlugins")
        assert not [one for one in app.told if one["happened"] == "protocol error"]


@pytest.mark.row("A-40")
async def test_its_keepalives_hold_the_line(js_app: RunJsApp, broker: BrokerProcess, tmp_path: Path) -> None:
    """Many keepalives, nothing else: the broker answers them as this library wants, and sends none of its own."""
    async with js_app(make_folder(tmp_path / "sonar", APP_ID), APP_ID, keepAlive=50) as app:
        await app.heard("connected")
        await app.heard("asked", method="getPlugins")
        until = time.monotonic() + 1.5
        while time.monotonic() < until:
            await asyncio.sleep(0.1)
            assert app.told[-1]["happened"] != "end"
        assert [one["app_id"] for one in await clients(broker)] == [APP_ID]
        assert "ERROR" not in [one.get("status") for one in app.told]


@pytest.mark.row("M-11")
async def test_flippers_own_protocol_name_gets_tls_1_2(js_app: RunJsApp, broker: BrokerProcess, tmp_path: Path) -> None:
    async with js_app(make_folder(tmp_path / "sonar", APP_ID), APP_ID, alpn="rs") as app:
        await app.heard("asked", method="getPlugins")
        done = await asyncio.to_thread(broker.command, "clients", "show", APP_ID, "--json")
        assert "TLSv1.2" in done.stdout


async def test_a_refused_exchange_tells_the_app_why(js_app: RunJsApp, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "sonar", APP_ID)
    (folder / "app.csr").write_text("not a request")
    async with js_app(folder, APP_ID) as app:
        told = await app.heard("failed")
        assert "signing request" in told["text"]


@pytest.mark.row("F-3", "M-11")
async def test_over_websocket_it_holds_the_same_session(
    js_app: RunJsApp, broker: BrokerProcess, tmp_path: Path
) -> None:
    """The library's own WebSocket client, on Node's `ws`."""
    port = broker.ports["ws_secure_port"]
    async with js_app(make_folder(tmp_path / "sonar", APP_ID), APP_ID, webSocketPort=port, keepAlive=50) as app:
        await app.heard("asked", method="getPlugins")
        await app.heard("told", message={"method": "init", "params": {"plugin": "Recorder"}})
        (shown,) = await clients(broker)
        assert (shown["app_id"], shown["transport"]) == (APP_ID, "wss")
        done = await asyncio.to_thread(broker.command, "clients", "show", APP_ID, "--json")
        assert "TLSv1.2" in done.stdout

        assert await call(broker, "Screen", "reverse", {"text": "abc" * 10_000}) == (0, {"text": "cba" * 10_000})
        app.command(event={"method": "execute", "params": {"api": "Recorder", "method": "noted", "params": {"n": 2}}})
        async with asyncio.timeout(10):
            while not any(one["params"] == {"n": 2} for one in await told_to_the_plugin(broker, tmp_path)):
                await asyncio.sleep(0.05)
        app.command(close=True)
        await app.heard("end")
        assert not [one for one in app.told if one["happened"] == "protocol error"]
    async with asyncio.timeout(10):
        while await clients(broker):
            await asyncio.sleep(0.05)


async def told_to_the_plugin(broker: BrokerProcess, folder: Path) -> list[dict[str, Any]]:
    async with client.connect(
        app_id="org.example.reader",
        app="Reader",
        directory=folder / "reader",
        insecure_port=broker.insecure_port,
        secure_port=broker.secure_port,
        timeout=10,
    ) as session:
        events: list[dict[str, Any]] = await session.request("Recorder.events")
        return events
