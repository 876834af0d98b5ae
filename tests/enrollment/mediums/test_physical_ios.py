"""Physical iOS devices behind stand-ins for `idb` (both kinds of its pull) and `pymobiledevice3`."""

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import attrs
import pytest

from rsocket_broker.authority.requests import check_request
from rsocket_broker.broker import Broker
from rsocket_broker.claims import Claims
from rsocket_broker.credentials import CA_FILE, CERTIFICATE_FILE, CSR_FILE, make_signing_request
from rsocket_broker.enrollment.command import TIMEOUT_S
from rsocket_broker.enrollment.exchange import SignRequest
from rsocket_broker.enrollment.mediums.base import Bundle, Container, JournalEntry, Outcome, Settled, StillPending
from rsocket_broker.enrollment.mediums.physical_ios import MAX_ASKING, PhysicalIosMedium, inner_path
from rsocket_broker.errors import EnrollmentRefused
from rsocket_broker.identity import Principal, Proof
from rsocket_broker.settings import ListenSettings, Settings
from tests.enrollment.stand_ins import IDB, StandIn
from tests.enrollment.workshop import Workshop, open_workshop

DEMO, PEER = "org.example.demo", "192.0.2.7"
UDIDS = ["00008030-0123456789ABCDEF", "00008030-0000000000000001"]
INNER = "Library/Application Support/sonar"
DESTINATION = f"/private/var/mobile/Containers/Data/Application/7A1B0000-0000-4000-8000-000000000001/{INNER}/"
CLAIMS = Claims(os="iOS", device="iPhone", app="Demo")


@attrs.frozen
class Phone:
    """An app on the second of two devices."""

    tool: StandIn
    folder: Path
    csr: str

    def message(self, destination: str = DESTINATION) -> bytes:
        fields = {"method": "signCertificate", "csr": self.csr, "destination": destination, "medium": 1}
        return json.dumps(fields).encode()

    def pair(self) -> tuple[bool, bool]:
        return (self.folder / CA_FILE).exists(), (self.folder / CERTIFICATE_FILE).exists()


@pytest.fixture
def phone(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Phone:
    name, comma, _ = getattr(request, "param", "idb").partition(",")
    told = {"devices": UDIDS, "file_form": bool(comma)}
    tool = StandIn.make(tmp_path / "tools", name, IDB, told)
    monkeypatch.setenv("PATH", str(tool.base))
    folder = tool.container(UDIDS[1], DEMO, INNER)
    csr = make_signing_request(DEMO).csr_pem
    (folder / CSR_FILE).write_bytes(csr)
    return Phone(tool, folder, csr.decode())


@pytest.fixture
def workshop(home: Path) -> Iterator[Workshop]:
    with open_workshop(home) as opened:
        yield opened


@pytest.mark.row("F-14", "F-12", "A-04")
@pytest.mark.parametrize("phone", ["idb", "idb, newer", "pymobiledevice3"], indirect=True)
async def test_both_files_land_on_the_device_whose_app_holds_the_request(workshop: Workshop, phone: Phone) -> None:
    answer = await workshop.enroller.serve(phone.message(), CLAIMS, PEER)
    assert str(answer["deviceId"]).startswith("ios-")
    assert (phone.folder / CA_FILE).read_bytes() == workshop.authority.trust_pem
    assert (phone.folder / CERTIFICATE_FILE).read_bytes().startswith(b"-----BEGIN CERTIFICATE")
    assert workshop.journal.pending() == []
    pushed = [Path(call[-2]).name for call in phone.tool.calls() if call[1] == "push"]
    assert pushed == [CA_FILE, CERTIFICATE_FILE], "the certificate last"


@pytest.mark.row("F-14")
async def test_without_the_request_on_a_device_nothing_is_signed(
    workshop: Workshop, phone: Phone, caplog: pytest.LogCaptureFixture
) -> None:
    """What the command says of whose devices goes to the log, and not to whoever has asked."""
    (phone.folder / CSR_FILE).write_text("another")
    with pytest.raises(EnrollmentRefused, match=r"proof: no iOS device that is attached has this request") as caught:
        await workshop.enroller.serve(phone.message(), CLAIMS, PEER)
    assert "no such file in the container" in caplog.text
    assert UDIDS[0] in caplog.text
    assert UDIDS[0] not in caught.value.public
    assert "no such file" not in caught.value.public
    assert phone.pair() == (False, False)
    assert workshop.issued(DEMO) == 0
    phone.tool.tell(devices=[], fails="Please unlock the device")
    with pytest.raises(EnrollmentRefused, match=r"cannot be listed\. The log"):
        await workshop.enroller.serve(phone.message(), CLAIMS, PEER)
    assert "Please unlock the device" in caplog.text


async def test_what_does_not_arrive_as_it_was_sent_is_settled_later(workshop: Workshop, phone: Phone) -> None:
    phone.tool.tell(devices=UDIDS, damages=True)
    with pytest.raises(EnrollmentRefused, match=r"deploy: the certificates could not be put on the device"):
        await workshop.enroller.serve(phone.message(), CLAIMS, PEER)
    (entry,) = workshop.journal.pending()
    phone.tool.tell(devices=UDIDS)
    assert await workshop.enroller.settle() == []
    assert phone.pair() == (True, True)
    assert workshop.journal.pending() == []
    driver = workshop.mediums.offered["physical_ios"]
    phone.tool.tell(devices=UDIDS, fails="gone")
    pending = await driver.settle(entry)
    assert isinstance(pending, StillPending)
    assert "gone" in pending.reason
    phone.tool.tell(devices=UDIDS)
    (phone.folder / CSR_FILE).write_text("another")
    assert await driver.settle(entry) == Settled(Outcome.UNDONE)


async def test_an_app_that_has_asked_anew_meanwhile_gets_nothing(workshop: Workshop, phone: Phone) -> None:
    driver, checked = workshop.mediums.offered["physical_ios"], check_request(phone.csr)
    asked = SignRequest(csr=phone.csr, claims=CLAIMS, destination=DESTINATION)
    container = await driver.prove(asked, checked)
    assert container.device_names == (UDIDS[1], "My iPhone")
    (phone.folder / CSR_FILE).write_text("another")
    with pytest.raises(EnrollmentRefused, match="deploy: the app has made another request"):
        await driver.deploy(container, Bundle(csr=checked.csr_pem, trust_pem=b"a", certificate_pem=b"b"))
    assert phone.pair() == (False, False)


@pytest.mark.row("F-14")
async def test_with_neither_command_here_the_next_step_is_named(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    phone = Phone(StandIn(tmp_path), tmp_path, make_signing_request(DEMO).csr_pem.decode())
    with pytest.raises(EnrollmentRefused, match=r"neither is here\. .*pip install pymobiledevice3.*qr_bundle"):
        await workshop.enroller.serve(phone.message(), CLAIMS, PEER)
    driver, checked = workshop.mediums.offered["physical_ios"], check_request(phone.csr)
    gone = Container(
        medium="physical_ios",
        principal=Principal(DEMO, "ios-1", Proof.FILESYSTEM),
        location={"udid": UDIDS[0], "bundle": DEMO, "directory": INNER},
    )
    bundle = Bundle(csr=checked.csr_pem, trust_pem=b"a", certificate_pem=b"b")
    with pytest.raises(EnrollmentRefused, match="deploy: the command that reaches the device has gone"):
        await driver.deploy(gone, bundle)
    entry = JournalEntry(number=1, container=gone, bundle=bundle, started=datetime.now(UTC))
    assert isinstance(await driver.settle(entry), StillPending)


@pytest.mark.parametrize(
    "destination",
    [
        "/private/var/mobile/sonar/",
        "relative/sonar",
        DESTINATION.replace("Library", "../Library"),
        DESTINATION.replace("Library", "'Library"),
        DESTINATION.replace("Library", "--udid"),
    ],
)
def test_a_path_that_lies_in_no_container_is_refused(destination: str) -> None:
    with pytest.raises(EnrollmentRefused, match="proof"):
        inner_path(destination)
    assert inner_path(DESTINATION) == INNER


async def test_those_who_wait_for_the_command_leave_turns_to_others(workshop: Workshop, phone: Phone) -> None:
    driver = workshop.mediums.offered["physical_ios"]
    assert isinstance(driver, PhysicalIosMedium)
    asked = SignRequest(csr=phone.csr, claims=CLAIMS, destination=DESTINATION)
    checked = check_request(phone.csr)
    async with driver._one_at_a_time:
        waiting = [asyncio.create_task(driver.prove(asked, checked)) for _ in range(MAX_ASKING)]
        await asyncio.sleep(0)
        with pytest.raises(EnrollmentRefused, match="limits: too many apps on iOS devices"):
            await driver.prove(asked, checked)
        for task in waiting[1:]:
            task.cancel()
    async with asyncio.timeout(60):
        assert (await waiting[0]).principal.app_id == DEMO
        assert (await driver.prove(asked, checked)).principal.app_id == DEMO


@pytest.mark.row("F-14")
async def test_a_broker_opens_its_ports_whether_or_not_the_command_answers(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools, asked = tmp_path / "hanging", tmp_path / "asked"
    tools.mkdir()
    (tools / "idb").write_text(f"#!/bin/sh\n: > {asked}\nexec /bin/sleep 600\n")
    (tools / "idb").chmod(0o755)
    monkeypatch.setenv("PATH", str(tools))
    csr = make_signing_request(DEMO).csr_pem.decode()
    location = {"udid": UDIDS[0], "bundle": DEMO, "directory": INNER}
    principal = Principal(DEMO, "ios-1", Proof.FILESYSTEM)
    with open_workshop(home) as opened:
        container = Container(medium="physical_ios", principal=principal, location=location)
        opened.journal.begin(container, Bundle(csr=csr, trust_pem=b"a", certificate_pem=b"b"), datetime.now(UTC))
    listen = ListenSettings(insecure_port=0, secure_port=0, ws_secure_port=None, ws_insecure_port=None)
    broker = Broker(Settings(home=home, listen=listen, adb="off"))
    try:
        async with asyncio.timeout(TIMEOUT_S - 5):  # the command is given up later
            await broker.start()
            while not asked.exists():
                await asyncio.sleep(0.02)
        assert broker.ports.insecure_port
    finally:
        await broker.stop()
