"""The driver of medium 4: it proves nothing but what was confirmed, and hands back what was signed."""

import logging
from datetime import UTC, datetime
from pathlib import Path

import pytest

from rsocket_broker.authority.requests import CheckedRequest, check_request
from rsocket_broker.claims import Claims
from rsocket_broker.credentials import make_signing_request
from rsocket_broker.enrollment.devices import DeviceRegistry
from rsocket_broker.enrollment.exchange import Confirmed, SignRequest
from rsocket_broker.enrollment.mediums.base import Bundle, JournalEntry, MediumContext, Outcome, Settled
from rsocket_broker.enrollment.mediums.pairing import PairingMedium
from rsocket_broker.errors import EnrollmentRefused
from rsocket_broker.identity import Proof
from rsocket_broker.state import State

CLAIMS = Claims(os="SomeOS", device="Phone", app="Demo", app_id="org.example.demo")


def request_of(checked: CheckedRequest, confirmed: Confirmed | None) -> SignRequest:
    return SignRequest(csr=checked.csr_pem, claims=CLAIMS, medium=4, confirmed=confirmed)


@pytest.mark.row("D-10", "F-12")
async def test_only_what_was_confirmed_is_proven_and_delivered(tmp_path: Path) -> None:
    checked = check_request(make_signing_request("org.example.demo").csr_pem)
    with State.open(tmp_path / "home" / "state.db") as state:
        driver = PairingMedium(MediumContext(devices=DeviceRegistry(state), log=logging.getLogger("pairing")))
        confirmed = Confirmed("code-1", checked.csr_pem)
        assert driver.handles(request_of(checked, None)), "whatever its system"
        for other in (None, Confirmed("code-1", make_signing_request("org.example.demo").csr_pem.decode())):
            with pytest.raises(EnrollmentRefused, match="proof: medium 4"):
                await driver.prove(request_of(checked, other), checked)
        container = await driver.prove(request_of(checked, confirmed), checked)
        assert container.principal.proof is Proof.PAIRING
        assert container.principal.device_id.startswith("paired-")
        bundle = Bundle(csr=checked.csr_pem, trust_pem=b"anchors", certificate_pem=b"certificate")
        await driver.deploy(container, bundle)
        assert confirmed.files == (b"certificate", b"anchors")
        del confirmed
        with pytest.raises(EnrollmentRefused, match="deploy: the app has gone"):
            await driver.deploy(container, bundle)
        entry = JournalEntry(number=1, container=container, bundle=bundle, started=datetime.now(UTC))
        assert await driver.settle(entry) == Settled(Outcome.UNDONE)
