"""The contract of drivers: what every one of them gets for free."""

import logging
from pathlib import Path

import pytest

from rsocket_broker.authority.requests import CheckedRequest
from rsocket_broker.claims import Claims
from rsocket_broker.credentials import CA_FILE, CERTIFICATE_FILE
from rsocket_broker.enrollment.devices import DeviceRegistry
from rsocket_broker.enrollment.exchange import SignRequest
from rsocket_broker.enrollment.mediums.base import (
    Bundle,
    Container,
    JournalEntry,
    Medium,
    MediumContext,
    Outcome,
    Settled,
    StillPending,
    undelivered,
    unproven,
)
from rsocket_broker.errors import EnrollmentRefused
from rsocket_broker.identity import Principal, Proof
from rsocket_broker.state import State


class ConsoleMedium(Medium):
    """As small as a driver can be."""

    name = "console"
    number = 1
    systems = frozenset({"GameOS"})

    async def prove(self, request: SignRequest, checked: CheckedRequest) -> Container:
        raise unproven("nothing is ever proven here.", "Use another driver.")

    async def deploy(self, container: Container, bundle: Bundle) -> None:
        raise undelivered("nothing is ever delivered here.", "Use another driver.")

    async def settle(self, entry: JournalEntry) -> Settled:
        return Settled(Outcome.UNDONE)


@pytest.mark.row("F-32")
def test_a_driver_handles_the_systems_that_it_names(tmp_path: Path) -> None:
    with State.open(tmp_path / "home" / "state.db") as state:
        context = MediumContext(devices=DeviceRegistry(state), log=logging.getLogger("console"))
        driver = ConsoleMedium(context)
        assert driver.context is context
        assert dict(context.settings) == {}
        assert driver.handles(SignRequest(csr="x", claims=Claims(os="GameOS")))
        assert not driver.handles(SignRequest(csr="x", claims=Claims(os="Linux")))


def test_the_certificate_is_the_last_file_of_a_bundle() -> None:
    bundle = Bundle(csr="request", trust_pem=b"anchor", certificate_pem=b"certificate")
    assert bundle.files() == ((CA_FILE, b"anchor"), (CERTIFICATE_FILE, b"certificate"))


def test_a_file_that_a_bundle_leaves_as_it_is_does_not_stand_in_it() -> None:
    assert Bundle(csr="r", trust_pem=b"anchor", certificate_pem=b"").files() == ((CA_FILE, b"anchor"),)
    assert Bundle(csr="r", trust_pem=b"", certificate_pem=b"leaf").files() == ((CERTIFICATE_FILE, b"leaf"),)


@pytest.mark.row("A-05")
async def test_a_driver_that_cannot_place_says_so(tmp_path: Path) -> None:
    with State.open(tmp_path / "home" / "state.db") as state:
        driver = ConsoleMedium(MediumContext(devices=DeviceRegistry(state), log=logging.getLogger("console")))
    container = Container(medium="console", principal=Principal("org.example.demo", "1", Proof.ADB), location={})
    assert not driver.places
    assert isinstance(await driver.holds(container, "request"), StillPending)
    with pytest.raises(EnrollmentRefused, match="console cannot put files in place by itself"):
        await driver.place(container, Bundle(csr="r", trust_pem=b"anchor", certificate_pem=b""))


def test_nothing_of_a_request_or_certificate_is_in_what_may_be_logged() -> None:
    bundle = Bundle(csr="request-text", trust_pem=b"anchor-text", certificate_pem=b"certificate-text")
    request = SignRequest(csr="request-text", claims=Claims(csr="request-text"), logs=("line",))
    assert "text" not in repr(bundle) + repr(request)


@pytest.mark.row("A-13")
def test_refusals_of_drivers_name_their_step() -> None:
    assert unproven("nothing there.", "Look again.").public == "proof: nothing there. Look again."
    assert undelivered("no room.", "Make some.").public == "deploy: no room. Make some."


@pytest.mark.row("D-6")
async def test_a_driver_writes_no_nonces_unless_it_says_so(tmp_path: Path) -> None:
    with State.open(tmp_path / "home" / "state.db") as state:
        driver = ConsoleMedium(MediumContext(devices=DeviceRegistry(state), log=logging.getLogger("console")))
        there = Container(medium="console", principal=Principal("a", "b", Proof.FILESYSTEM), location={"slot": "1"})
        assert not driver.writes_nonces
        with pytest.raises(EnrollmentRefused, match="proof: the driver console cannot write"):
            await driver.write_nonce(there, "nonce-0123456789abcdef", b"")
        assert await driver.remove_nonce(there, "nonce-0123456789abcdef") is None
