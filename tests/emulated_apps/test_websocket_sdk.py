"""The emulated SDK of the WebSocket era treats a server as the real one is known to."""

import asyncio
import base64
import contextlib
import io
import json
import os
import zipfile
from collections.abc import AsyncIterator, Awaitable, Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from websockets.asyncio.server import ServerConnection, serve

from emulated_apps.core import FlipperCore
from emulated_apps.sdk import Profile
from emulated_apps.sonar_folder import SonarFolder
from emulated_apps.websocket_sdk import WebSocketSdk

Handle = Callable[[ServerConnection], Awaitable[None]]


@contextlib.asynccontextmanager
async def app(
    folder: Path, handle: Handle, *, statuses: list[int] | None = None, system: str = "Android", **changes: Any
) -> AsyncIterator[WebSocketSdk]:
    """An app against a server that first answers with `statuses`, and then hands each WebSocket to `handle`."""
    waiting = list(statuses or [])

    def refuse(connection: ServerConnection, request: object) -> Any:
        return connection.respond(HTTPStatus(waiting.pop(0)), "no") if waiting else None

    profile = Profile("org.example.app", "Ä & b", system)
    async with serve(handle, "127.0.0.1", 0, process_request=refuse) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        settings = {"insecure_port": port, "secure_port": port, "host": "127.0.0.1", "retry": 0.01}
        settings |= {"connect_limit": 5, **changes}
        async with WebSocketSdk(profile, SonarFolder(folder / "sonar"), FlipperCore(), **settings) as sdk:
            yield sdk


async def test_the_exchange_is_asked_and_acknowledged(tmp_path: Path) -> None:
    heard: list[Any] = []

    async def handle(connection: ServerConnection) -> None:
        assert connection.request is not None
        heard.append(parse_qs(connection.request.path.partition("?")[2]))
        heard.append(json.loads(await connection.recv()))
        await connection.send('{"deviceId":"d1"}')
        heard.append(json.loads(await connection.recv()))

    async with app(tmp_path, handle) as sdk:
        await sdk.until(lambda: sdk.count("unserved"))
        async with asyncio.timeout(10):
            while len(heard) < 3:
                await asyncio.sleep(0.01)
    query, message, acknowledgement = heard[:3]
    assert query == {
        "os": ["Android"],
        "device": ["Pixel 6 - 13 - API 33"],
        "device_id": ["unknown"],
        "app": ["Ä & b"],
        "app_id": ["org.example.app"],
        "sdk_version": ["4"],
        "medium": ["1"],
    }
    assert message["csr"].startswith("-----BEGIN CERTIFICATE REQUEST-----")
    assert message["destination"] == f"{tmp_path}/sonar/"
    assert message["timestamp"] > 1_700_000_000_000
    assert acknowledgement["hasRequiredFiles"] is False
    assert acknowledgement["config"] == {"deviceId": "d1", "medium": 1}
    assert any(":info:[conn] exchanging" in line for line in [*message["logs"], *acknowledgement["logs"]])


@pytest.mark.parametrize(
    ("answers", "why"),
    [(["[1]"], "not a JSON object"), (["hello"], "not a JSON object"), (["{}", "{}"], "a second message")],
)
async def test_what_an_app_does_not_survive(tmp_path: Path, answers: list[str], why: str) -> None:
    async def handle(connection: ServerConnection) -> None:
        await connection.recv()
        for answer in answers:
            await connection.send(answer)
        await connection.wait_closed()

    async with app(tmp_path, handle, linger=5) as sdk:
        await sdk.until(lambda: sdk.count("crashed"))
        assert why in sdk.happened[-1].why


async def closes(connection: ServerConnection) -> None:
    await connection.close()


async def test_401_is_the_only_refusal_that_is_tried_again(tmp_path: Path) -> None:
    async with app(tmp_path, closes, statuses=[401, 401, 403]) as sdk:
        await sdk.until(lambda: sdk.count("silent"))
        assert [one.why for one in sdk.happened] == ["HTTP 401", "HTTP 401", "HTTP 403", "HTTP 403"]


async def test_ios_tries_again_whatever_was_said_and_knocks_before_each_try(tmp_path: Path) -> None:
    async with app(tmp_path, closes, statuses=[403, 503], system="iOS") as sdk:
        await sdk.until(lambda: sdk.count("exchanging") >= 1)
        assert sdk.count("silent") == 0


async def test_a_refused_connection_is_no_failure(tmp_path: Path) -> None:
    async with app(tmp_path, closes, insecure_port=1) as sdk:
        await sdk.until(lambda: sdk.count("missed") >= 3)
        assert sdk.failures == 0


async def test_a_bundle_is_opened_with_a_key_from_the_screen(tmp_path: Path) -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("sonarCA.crt", "authority")
        packed.writestr("device.crt", "certificate")
    key, iv, padding = os.urandom(32), os.urandom(16), 16 - len(archive.getvalue()) % 16
    encryptor = Cipher(algorithms.AES256(key), modes.CBC(iv)).encryptor()
    blob = iv + encryptor.update(archive.getvalue() + bytes([padding]) * padding) + encryptor.finalize()
    codes = [base64.b64encode(os.urandom(32)).decode(), base64.b64encode(key).decode()]
    heard: list[Any] = []

    async def scan() -> str | None:
        return codes.pop(0)

    async def handle(connection: ServerConnection) -> None:
        await connection.recv()
        await connection.send(json.dumps({"deviceId": "d1", "certificates": base64.b64encode(blob).decode()}))
        heard.append(json.loads(await connection.recv()))

    async with app(tmp_path, handle, system="iOS", scan=scan) as sdk:
        await sdk.until(lambda: sdk.count("exchanged"))
        assert sdk.count("wrong key") == 1
        assert (sdk.folder / "device.crt").read_text() == "certificate"
        assert not any((sdk.folder / name).exists() for name in ("certificates.enc", "certificates.zip"))
        async with asyncio.timeout(10):
            while not heard:
                await asyncio.sleep(0.01)
        assert heard[0]["hasRequiredFiles"] is True
