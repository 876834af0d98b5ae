"""A whole life of a broker, at its most talkative, is searched for every key, token and passphrase that was in it."""

import asyncio
import base64
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from rsocket_broker import client
from tests.end_to_end.conftest import QUICK
from tests.end_to_end.meddlers import RecordingProxy
from tests.end_to_end.processes import BrokerProcess, run_here, start_broker

APP = "com.example.secretive"
PASSPHRASE = "correct horse battery staple"
PAYLOAD = "what-the-app-says-to-its-plugin"
SMALLEST = 12
"""Bytes of a part of a secret that nothing else holds by chance."""


def numbers(pem: bytes, passphrase: bytes | None) -> Iterator[bytes]:
    """What must stay secret of a private key: its numbers, as bytes."""
    key = serialization.load_pem_private_key(pem, passphrase)
    if isinstance(key, rsa.RSAPrivateKey):
        private = key.private_numbers()
        found = [private.d, private.p, private.q]
    else:
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        found = [key.private_numbers().private_value]
    for number in found:
        yield number.to_bytes((number.bit_length() + 7) // 8, "big")


def forms(secret: bytes) -> Iterator[tuple[str, bytes]]:
    """How it might be written: as it is, in hex, in base64 wherever it may begin there; and half of it."""
    yield "whole", secret
    half = secret[len(secret) // 2 :]
    for name, part in (("whole", secret), ("half", half)):
        if len(part) < SMALLEST:
            continue
        yield name, part
        yield f"{name} in hex", part.hex().encode()
        for shift in range(3):
            encoded = base64.b64encode(b"\0" * shift + part)
            inner = encoded[4 if shift else 0 : -4]
            yield f"{name} in base64", inner
            yield f"{name} in base64", inner.replace(b"+", b"-").replace(b"/", b"_")


def check_absent(secrets: dict[str, bytes], places: dict[str, bytes]) -> None:
    squeezed = {place: re.sub(rb"\s|\\n", b"", content) for place, content in places.items()}
    for what, secret in secrets.items():
        for form, text in forms(secret):
            for place, content in places.items():
                assert text not in content, f"{what} ({form}) is in {place}"
                assert text not in squeezed[place], f"{what} ({form}) is in {place}"


def test_the_search_finds_what_is_hidden() -> None:
    secret = bytes(range(100, 164))
    for hidden in (
        secret,
        secret.hex().encode(),
        base64.b64encode(b"x" + secret + b"yz"),
        base64.urlsafe_b64encode(b"xy" + secret),
        base64.encodebytes(b"xyz" + secret * 3),
        b"\\n".join([base64.b64encode(secret)[:40], base64.b64encode(secret)[40:]]),
    ):
        with pytest.raises(AssertionError, match="is in log"):
            check_absent({"key": secret}, {"log": b"before " + hidden + b" after"})
    check_absent({"key": secret}, {"log": bytes(reversed(secret))})


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[BrokerProcess]:
    (tmp_path / "passphrase").write_text(PASSPHRASE)
    (tmp_path / "passphrase").chmod(0o600)
    running = start_broker(
        tmp_path / "home",
        *("--plugin", "echo", "--log-level", "debug", "--log-format", "json", "--trace-frames", "all"),
        *("--passphrase-file", str(tmp_path / "passphrase"), "--enrollment", "token", "--http-port", "0"),
    )
    yield running
    running.stop()


async def said_by(broker: BrokerProcess, *arguments: str) -> bytes:
    _, said = await asyncio.to_thread(run_here, broker.home, *arguments)
    return said.encode()


@pytest.mark.row("A-57", "D-14", "M-8", "A-33")
@pytest.mark.timeout(180)
async def test_a_whole_life_leaves_no_secret_anywhere(broker: BrokerProcess, tmp_path: Path) -> None:
    home, said = broker.home, [b""]
    grant = json.loads(await said_by(broker, "enrollment", "grant", "--app", APP, "--json"))["token"]
    journal: list[tuple[str, str]] = []
    async with (
        RecordingProxy("plain", broker.insecure_port, journal) as plain,
        RecordingProxy("secure", broker.secure_port, journal) as secure,
        client.connect(
            app_id=APP,
            app="Demo",
            directory=tmp_path / "app",
            insecure_port=plain.port,
            secure_port=secure.port,
            token=grant,
            backoff=QUICK,
            timeout=20,
        ) as session,
    ):
        await session.request("echo.request", {"said": PAYLOAD})
        with pytest.raises(client.RequestFailed):
            await session.request("nobody.home", {})
        login = await said_by(broker, "sessions", "login", APP, "--name", "bench", "--json")
        tokens = [str(json.loads(login)["token"])]
        inner = await session.request("sessions.login", {"name": "a page"})
        tokens.append(str(inner["token"]))  # type: ignore[index]
        async with client.connect_child(f"ws://localhost:{broker.ports['http_port']}/rsocket", tokens[0]) as child:
            await child.request("echo.request", {"said": PAYLOAD})
        for arguments in (("ca", "rotate", "prepare"), ("ca", "rotate", "switch"), ("sessions", "list", "--all")):
            said.append(await said_by(broker, *arguments))
        said.append(await said_by(broker, "clients", "show", APP))
    with pytest.raises(client.EnrollmentRefused):
        await client.enroll(
            app_id=APP, app="Demo", directory=tmp_path / "again", insecure_port=broker.insecure_port, token=grant
        )
    for arguments in (("enrollment", "grants"), ("ca", "show"), ("ca", "list", "--json"), ("doctor",)):
        said.append(await said_by(broker, *arguments))
    assert broker.stop() == 0
    _, audit = await asyncio.to_thread(run_here, home, "audit", "export")
    assert {json.loads(line).get("event") for line in audit.splitlines()} >= {"issue", "grant", "enrolment-refused"}
    keys: list[tuple[Path, bytes | None]] = [(home / "server" / "server.key", None)]
    keys += [(home / "ca" / generation / "ca.key", PASSPHRASE.encode()) for generation in ("1", "2")]
    keys += [(tmp_path / folder / "privateKey.pem", None) for folder in ("app", "again")]
    secrets = {
        f"{path.parent.name}/{path.name} {index}": number
        for path, passphrase in keys
        for index, number in enumerate(numbers(path.read_bytes(), passphrase))
    }
    secrets |= {"the passphrase": PASSPHRASE.encode(), "what an app said": PAYLOAD.encode()}
    secrets |= {f"token {index} of a session": token.encode() for index, token in enumerate(tokens)}
    secrets |= {path.name: path.read_bytes() for path in (home / "grants.key",) if path.exists()}
    told = {"the log": broker.log.read_bytes(), "the audit": audit.encode(), "what commands said": b"".join(said)}
    database = {path.name: path.read_bytes() for path in home.glob("state.db*")}
    packets = {f"{proxy.name} packets": bytes(proxy.up) + b"|" + bytes(proxy.down) for proxy in (plain, secure)}
    secret = grant.partition(".")[2]
    secrets |= {"the token of a grant": grant.encode(), "its secret": secret.encode()}
    secrets |= {"the key of its proofs": hashlib.sha256(secret.encode()).digest()}
    assert b'"grant":' in plain.up, "the grant was shown where anybody may listen"
    check_absent(secrets, told | database | packets)
    assert b"nobody" in told["the log"], "the log was as talkative as can be"
