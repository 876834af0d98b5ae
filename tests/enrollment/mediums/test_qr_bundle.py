"""Certificates in the answer, under a key for a camera: what an operator approved, read as the iOS SDK reads it."""

import asyncio
import base64
import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from rsocket_broker.claims import Claims
from rsocket_broker.credentials import CA_FILE, CERTIFICATE_FILE, make_signing_request
from rsocket_broker.enrollment.mediums.qr_bundle import QrBundleMedium
from rsocket_broker.errors import ConfigurationError, EnrollmentRefused
from rsocket_broker.identity import Proof
from tests.enrollment.mediums.vouched import medium
from tests.enrollment.workshop import DesktopApp, Workshop, open_workshop

DEMO, PEER = "org.example.demo", "192.0.2.7"
CLAIMS = Claims(os="iOS", device="iPhone", app="Demo")
AWAY = "/private/var/mobile/Containers/Data/Application/7A1B0000-0000-4000-8000-000000000001/Library/sonar/"


@pytest.fixture
def workshop(home: Path) -> Iterator[Workshop]:
    with open_workshop(home) as opened:
        opened.mediums.offered["qr_bundle"] = medium(QrBundleMedium, opened.state, {"enabled": True})  # type: ignore[index]
        yield opened


def message(csr: str, destination: str = AWAY) -> bytes:
    return json.dumps({"method": "signCertificate", "csr": csr, "destination": destination, "medium": 1}).encode()


async def waiting(workshop: Workshop) -> str:
    async with asyncio.timeout(20):
        while not (found := workshop.enroller.approvals.list()):
            await asyncio.sleep(0.01)
    return str(found[0]["id"])


def as_the_app_does(certificates: str, key: str) -> dict[str, bytes]:
    """Decrypted without removing the padding, and unzipped."""
    blob = base64.b64decode(certificates)
    decryptor = Cipher(algorithms.AES256(base64.b64decode(key)), modes.CBC(blob[:16])).decryptor()
    padded = decryptor.update(blob[16:]) + decryptor.finalize()
    with zipfile.ZipFile(io.BytesIO(padded)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.mark.row("F-14", "F-21")
async def test_an_app_that_no_tool_reaches_gets_them_sealed_once_the_operator_says_so(workshop: Workshop) -> None:
    csr = make_signing_request(DEMO).csr_pem.decode()
    asking = asyncio.create_task(workshop.enroller.serve(message(csr), CLAIMS, PEER))
    number = await waiting(workshop)
    assert workshop.issued(DEMO) == 0, "nothing is signed for whoever just asks"
    approved: dict[str, Any] = workshop.enroller.approvals.approve(number, can_show_key=True)
    answer = await asking
    assert len(base64.b64decode(approved["key"])) == 32
    files = as_the_app_does(str(answer["certificates"]), approved["key"])
    assert set(files) == {CA_FILE, CERTIFICATE_FILE}
    assert files[CA_FILE] == workshop.authority.trust_pem
    assert x509.load_pem_x509_certificates(files[CERTIFICATE_FILE])
    (record,) = workshop.authority.certificates(DEMO)
    assert record.principal is not None
    assert (record.principal.proof, record.principal.device_id) == (Proof.OPERATOR, answer["deviceId"])


@pytest.mark.row("F-14")
async def test_only_ios_and_only_what_was_not_reached(workshop: Workshop, tmp_path: Path) -> None:
    csr = make_signing_request(DEMO).csr_pem.decode()
    with pytest.raises(EnrollmentRefused, match="proof"):
        asked = message(csr, str(tmp_path / "sonar"))
        await workshop.enroller.serve(asked, Claims(os="Linux", device="PC", app="Demo"), PEER)
    simulated = DesktopApp(tmp_path / "Devices" / "0F5C1D2E-1111-4222-8333-A1B2C3D4E5F6" / "sonar", os="iOS")
    assert "certificates" not in await workshop.enroller.serve(simulated.message(), simulated.claims, PEER)
    assert workshop.enroller.approvals.list() == []


async def test_off_until_it_is_switched_on(home: Path) -> None:
    with open_workshop(home) as opened:
        assert "qr_bundle" not in opened.mediums.offered
        with pytest.raises(EnrollmentRefused):
            await opened.enroller.serve(message(make_signing_request(DEMO).csr_pem.decode()), CLAIMS, PEER)
        assert opened.enroller.approvals.list() == []
        for wrong in ({}, {"enabled": False}, {"enabled": True, "key": "x"}):
            with pytest.raises(ConfigurationError, match="enabled = true"):
                medium(QrBundleMedium, opened.state, wrong)


@pytest.mark.row("F-14", "D-6")
async def test_an_operators_word_stands_also_where_nonces_are_wanted(home: Path) -> None:
    """The driver has no folder to put one into, and lets nobody in without that word."""
    with open_workshop(home, require_nonce=True) as opened:
        opened.mediums.offered["qr_bundle"] = medium(QrBundleMedium, opened.state, {"enabled": True})  # type: ignore[index]
        csr = make_signing_request(DEMO).csr_pem.decode()
        asking = asyncio.create_task(opened.enroller.serve(message(csr), CLAIMS, PEER))
        number = await waiting(opened)
        assert opened.issued(DEMO) == 0
        opened.enroller.approvals.approve(number, can_show_key=True)
        assert "certificates" in await asking
