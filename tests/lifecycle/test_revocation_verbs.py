"""What the admin line takes, and what the HTTP port shows."""

import asyncio
import urllib.request
from collections.abc import AsyncIterator
from email.message import Message
from pathlib import Path

import pytest
from cryptography import x509

from rsocket_broker.admin.client import admin_line
from rsocket_broker.broker import Broker
from rsocket_broker.errors import RequestFailed
from rsocket_broker.lifecycle.revocation_verbs import DER_PATH, PEM_PATH
from tests.lifecycle.holders import authority_of, enrol, running


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[Broker]:
    async with running(tmp_path / "home") as one:
        yield one


async def fetch(broker: Broker, path: str) -> tuple[Message, bytes]:
    def once() -> tuple[Message, bytes]:
        with urllib.request.urlopen(f"http://localhost:{broker.ports.http_port}{path}", timeout=10) as answer:
            return answer.headers, answer.read()

    return await asyncio.to_thread(once)


@pytest.mark.row("A-23", "D-3")
async def test_the_lists_are_on_the_http_port_and_follow_a_revocation(broker: Broker, tmp_path: Path) -> None:
    holder = await enrol(broker, tmp_path)
    headers, before = await fetch(broker, PEM_PATH)
    assert headers["Content-Type"] == "application/x-pem-file"
    assert len(x509.load_pem_x509_crl(before)) == 0
    async with admin_line(tmp_path / "home") as admin:
        await admin.call("ca.revoke", {"by": "serial", "value": f"{holder.serial:x}"})
        said = x509.load_pem_x509_crl((await admin.call("ca.crl"))["pem"].encode())
    headers, der = await fetch(broker, DER_PATH)
    assert headers["Content-Type"] == "application/pkix-crl"
    for found in (x509.load_der_x509_crl(der), x509.load_pem_x509_crl((await fetch(broker, PEM_PATH))[1]), said):
        assert [each.serial_number for each in found] == [holder.serial]
        assert found.is_signature_valid(authority_of(broker).certificate.public_key())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("verb", "params", "words"),
    [
        ("ca.revoke", {"by": "name", "value": "x"}, "by is one of serial, client, app, device, all_before"),
        ("ca.revoke", {"by": "serial", "value": "12"}, "ever issued"),
        ("ca.revoke", {"by": "app", "value": "x", "reason": "y" * 300}, "at most 200"),
        ("ca.revoke", {"value": "x"}, "by is missing"),
        ("ca.unblock", {"by": "app", "value": "org.nobody"}, "no block of app org.nobody"),
    ],
)
async def test_what_cannot_be_done_is_said(
    broker: Broker, tmp_path: Path, verb: str, params: dict[str, str], words: str
) -> None:
    async with admin_line(tmp_path / "home") as admin:
        with pytest.raises(RequestFailed, match=words):
            await admin.call(verb, params)
        assert await admin.call("ca.blocks") == []
