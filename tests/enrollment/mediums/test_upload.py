"""The driver of medium 2: off until it is wanted, for vouched requests alone, and called once for each certificate."""

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from rsocket_broker.authority.requests import check_request
from rsocket_broker.claims import Claims
from rsocket_broker.credentials import SigningRequest, make_signing_request
from rsocket_broker.enrollment.devices import DeviceRegistry
from rsocket_broker.enrollment.exchange import SignRequest, Voucher
from rsocket_broker.enrollment.mediums.base import Bundle, Container, JournalEntry, Outcome, Settled
from rsocket_broker.enrollment.mediums.registry import Mediums
from rsocket_broker.enrollment.mediums.upload import UploadMedium
from rsocket_broker.enrollment.uploaders import Uploader, UploadFailed
from rsocket_broker.errors import EnrollmentRefused
from rsocket_broker.grant_tokens import GrantToken
from rsocket_broker.identity import Proof
from rsocket_broker.nonce_proof import PICKUP_PURPOSE, sign
from rsocket_broker.sealed_bundle import unseal
from tests.enrollment.mediums.vouched import medium
from tests.enrollment.workshop import Workshop, open_workshop

DEMO, PEER = "org.example.demo", "192.0.2.7"
CLAIMS = Claims(os="Android", device="Phone", app="Demo")
SENT: list[tuple[str, bytes]] = []
BROKEN: list[str] = []


class TestUploader(Uploader):
    """The operator's: remembers what it was given."""

    __test__ = False

    async def upload(self, device_id: str, bundle: bytes) -> None:
        SENT.append((device_id, bundle))
        if BROKEN:
            raise UploadFailed(BROKEN[0])


@pytest.fixture
def workshop(home: Path) -> Iterator[Workshop]:
    SENT.clear()
    BROKEN.clear()
    with open_workshop(home) as opened:
        driver = medium(UploadMedium, opened.state, {"uploader": f"{__name__}:TestUploader"})
        opened.mediums.offered["upload"] = driver  # type: ignore[index]  # a dict in truth
        yield opened


def message(workshop: Workshop, request: SigningRequest, *, grant: str | None = None, **fields: object) -> bytes:
    csr = request.csr_pem.decode()
    asked: dict[str, object] = {"method": "signCertificate", "csr": csr, "medium": 2, **fields}
    if grant is not None:
        asked["grant"] = GrantToken.parse(grant).grant_for(csr)
    return json.dumps(asked).encode()


def token(workshop: Workshop, app_id: str = DEMO) -> str:
    return workshop.grants.make(app_id, now=datetime.now(UTC), life=timedelta(hours=1))[1]


@pytest.mark.row("F-18", "F-19", "F-33", "F-35")
async def test_the_uploader_gets_the_bundle_once_and_the_app_its_id(workshop: Workshop) -> None:
    request = make_signing_request(DEMO)
    asking = token(workshop)
    answer = await workshop.enroller.serve(message(workshop, request, grant=asking), CLAIMS, PEER)
    device_id = str(answer["deviceId"])
    assert set(answer) == {"deviceId", "vouched"}
    ((sent_to, bundle),) = SENT
    assert sent_to == device_id
    found = unseal(request.key_pem, request.csr_pem.decode(), device_id, bundle)
    assert found.trust_pem == workshop.authority.trust_pem
    (record,) = workshop.authority.certificates(DEMO)
    assert record.principal is not None
    assert (record.principal.proof, record.principal.device_id) == (Proof.UPLOAD, device_id)
    again = await workshop.enroller.serve(message(workshop, request), CLAIMS, PEER)
    assert again == {"deviceId": device_id}, "which nobody need vouch for again, as nothing is signed"
    assert await workshop.enroller.serve(message(workshop, request, grant=asking), CLAIMS, PEER) == answer
    csr, trust_pem = request.csr_pem.decode(), workshop.authority.trust_pem
    parsed, vouched = GrantToken.parse(asking), answer["vouched"]
    assert parsed.is_answered(vouched, csr, device_id, trust_pem)
    for other in (
        (vouched, csr, device_id, b"other"),
        (vouched, csr, "other", trust_pem),
        (None, csr, device_id, trust_pem),
    ):
        assert not parsed.is_answered(*other)
    assert not GrantToken.parse(token(workshop)).is_answered(vouched, csr, device_id, trust_pem)
    assert len(SENT) == 1
    assert workshop.issued(DEMO) == 1


@pytest.mark.row("F-12", "F-21")
async def test_nothing_is_signed_that_nobody_has_vouched_for(workshop: Workshop) -> None:
    request, asking = make_signing_request(DEMO), token(workshop, "org.example.other")
    with pytest.raises(EnrollmentRefused, match="token: the token is for another app"):
        await workshop.enroller.serve(message(workshop, request, grant=asking), CLAIMS, PEER)
    once = token(workshop)
    await workshop.enroller.serve(message(workshop, make_signing_request(DEMO), grant=once), CLAIMS, PEER)
    with pytest.raises(EnrollmentRefused, match="was used already"):
        await workshop.enroller.serve(message(workshop, request, grant=once), CLAIMS, PEER)
    waiting = asyncio.create_task(workshop.enroller.serve(message(workshop, request), CLAIMS, PEER))
    async with asyncio.timeout(20):
        while not (found := workshop.enroller.approvals.list()):
            await asyncio.sleep(0.01)
    assert workshop.issued(DEMO) == 1, "an app that has no token waits"
    workshop.enroller.approvals.approve(str(found[0]["id"]), can_show_key=False)
    assert "deviceId" in await waiting
    assert workshop.issued(DEMO) == 2
    driver, checked = workshop.mediums.offered["upload"], check_request(request.csr_pem)
    for voucher in (None, Voucher(make_signing_request(DEMO).csr_pem.decode(), "token")):
        with pytest.raises(EnrollmentRefused, match="nobody has vouched"):
            await driver.prove(SignRequest(csr=checked.csr_pem, claims=CLAIMS, voucher=voucher), checked)


@pytest.mark.row("F-12")
async def test_off_until_it_is_configured(home: Path) -> None:
    with open_workshop(home) as opened:
        assert "upload" not in opened.mediums.offered
        with pytest.raises(EnrollmentRefused, match=r"medium: no driver offers medium 2 \(upload service\)"):
            await opened.enroller.serve(message(opened, make_signing_request(DEMO)), CLAIMS, PEER)
        offered = Mediums.load(DeviceRegistry(opened.state), {"upload": {"uploader": "pickup"}})
        assert isinstance(offered.offered["upload"], UploadMedium)
        broken = Mediums.load(DeviceRegistry(opened.state), {"upload": {}})
        assert "uploader" in broken.broken["upload"]


async def test_an_ed25519_key_is_refused_before_anybody_is_asked(workshop: Workshop) -> None:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, DEMO)])
    key = ed25519.Ed25519PrivateKey.generate()
    made = x509.CertificateSigningRequestBuilder(name).sign(key, None)
    request = SigningRequest(b"", made.public_bytes(Encoding.PEM))
    with pytest.raises(EnrollmentRefused, match=r"Ed25519 key can sign.*RSA, P-256 or P-384"):
        await workshop.enroller.serve(message(workshop, request, grant=token(workshop)), CLAIMS, PEER)
    assert workshop.enroller.approvals.list() == []


async def test_what_could_not_be_left_is_a_refusal_and_its_reason_stays_here(workshop: Workshop) -> None:
    BROKEN.append("the service is at its-inner-name")
    request = make_signing_request(DEMO)
    with pytest.raises(EnrollmentRefused, match="deploy: the certificates could not be left") as caught:
        await workshop.enroller.serve(message(workshop, request, grant=token(workshop)), CLAIMS, PEER)
    assert "inner-name" not in caught.value.public
    assert len(SENT) == 1
    assert workshop.journal.pending() == []
    BROKEN.clear()
    await workshop.enroller.serve(message(workshop, request, grant=token(workshop)), CLAIMS, PEER)
    assert len(SENT) == 2


async def test_a_cut_off_one_is_over_and_finished_only_if_it_was_left(workshop: Workshop) -> None:
    request, driver = make_signing_request(DEMO), workshop.mediums.offered["upload"]
    checked = check_request(request.csr_pem)
    vouched = SignRequest(csr=checked.csr_pem, claims=CLAIMS, voucher=Voucher(checked.csr_pem, "token"))
    container = await driver.prove(vouched, checked)
    bundle = Bundle(csr=checked.csr_pem, trust_pem=b"anchors", certificate_pem=b"certificate")
    entry = JournalEntry(number=1, container=container, bundle=bundle, started=datetime.now(UTC))
    assert await driver.settle(entry) == Settled(Outcome.UNDONE)
    await driver.deploy(container, bundle)
    assert await driver.settle(entry) == Settled(Outcome.FINISHED)
    with pytest.raises(EnrollmentRefused, match="nothing is fetched from this broker"):
        await workshop.enroller.serve(b'{"method":"pickupBegin","deviceId":"x"}', CLAIMS, PEER)


@pytest.mark.row("F-20")
async def test_a_crash_before_it_lay_here_costs_nobody_his_token(home: Path) -> None:
    with open_workshop(home) as opened:
        driver, request = medium(UploadMedium, opened.state, {"uploader": "pickup"}), make_signing_request(DEMO)
        checked = check_request(request.csr_pem)
        vouched = SignRequest(csr=checked.csr_pem, claims=CLAIMS, voucher=Voucher(checked.csr_pem, "token"))
        container = await driver.prove(vouched, checked)
        bundle = Bundle(csr=checked.csr_pem, trust_pem=b"anchors", certificate_pem=b"certificate")
        entry = opened.journal.begin(container, bundle, datetime.now(UTC))
    with open_workshop(home) as opened:
        driver = medium(UploadMedium, opened.state, {"uploader": "pickup"})
        assert await driver.settle(entry) == Settled(Outcome.FINISHED)
        device_id = container.principal.device_id
        assert await driver.answered(checked) == {"deviceId": device_id}
        challenge = await driver.begin_pickup(device_id)
        assert challenge is not None
        proof = sign(request.key_pem, challenge, device_id, PICKUP_PURPOSE)
        found = str((await driver.pick_up(device_id, challenge, proof))["bundle"]).encode()
        assert unseal(request.key_pem, checked.csr_pem, device_id, found).certificate_pem == b"certificate"


async def test_a_yes_is_used_up_where_its_asker_has_left_while_it_was_signed(workshop: Workshop) -> None:
    request = make_signing_request(DEMO)
    signing, go_on = asyncio.Event(), asyncio.Event()
    driver, approvals = workshop.mediums.offered["upload"], workshop.enroller.approvals
    deploy = driver.deploy

    async def slow(container: Container, bundle: Bundle) -> None:
        signing.set()
        await go_on.wait()
        await deploy(container, bundle)

    driver.deploy = slow  # type: ignore[method-assign]
    asking = asyncio.create_task(workshop.enroller.serve(message(workshop, request), CLAIMS, PEER))
    async with asyncio.timeout(20):
        while not approvals.list():
            await asyncio.sleep(0.01)
        approvals.approve(str(approvals.list()[0]["id"]), can_show_key=False)
        await signing.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert approvals.list() == [], "one yes, one certificate"
        go_on.set()
        await workshop.enroller.drain(10)
    assert workshop.issued(DEMO) == 1
    assert "deviceId" in await workshop.enroller.serve(message(workshop, request), CLAIMS, PEER)
