"""Medium 2 by the SDK with a whole broker over real sockets: vouched for, left, fetched once, and connected with."""

import asyncio
import base64
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import attrs
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from rsocket_broker import client
from rsocket_broker.admin.client import admin_line
from rsocket_broker.broker import Broker
from rsocket_broker.client.folder import AppFolder
from rsocket_broker.client.line import Address, open_plain
from rsocket_broker.client.profile import MEDIUM_UPLOAD, AppProfile
from rsocket_broker.client.responder import Refuser
from rsocket_broker.client.upload import fingerprint, upload
from rsocket_broker.connection import Connection
from rsocket_broker.credentials import SigningRequest, make_signing_request
from rsocket_broker.enrollment.grants import Grants
from rsocket_broker.errors import ConfigurationError, EnrollmentRefused, RequestFailed
from rsocket_broker.grant_tokens import GrantToken
from rsocket_broker.identity import Proof
from rsocket_broker.jsontext import dump, parse_object
from rsocket_broker.nonce_proof import PICKUP_PURPOSE, sign
from rsocket_broker.payload import Payload
from rsocket_broker.sealed_bundle import Unsealed, seal, unseal
from rsocket_broker.settings import ListenSettings, Settings
from tests.client.stub_broker import StubBroker

DEMO = "org.example.demo"
PROFILE = AppProfile(app_id=DEMO, app="Demo", device="Phone")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("upload") / "home"


@pytest.fixture
async def broker(home: Path) -> AsyncIterator[Broker]:
    listen = ListenSettings(insecure_port=0, secure_port=0, ws_secure_port=None, ws_insecure_port=None)
    made = Broker(Settings(home=home, listen=listen, adb="off", medium_tables={"upload": {"uploader": "pickup"}}))
    try:
        await made.start()
        yield made
    finally:
        await made.stop()


def address(broker: Broker) -> Address:
    assert broker.ports.insecure_port is not None
    return Address("localhost", broker.ports.insecure_port)


def token(broker: Broker) -> GrantToken:
    assert broker._state is not None
    assert broker._audit is not None
    grants = Grants(broker.settings.home, broker._state, broker._audit)
    return GrantToken.parse(grants.make(DEMO, now=datetime.now(UTC), life=timedelta(hours=1))[1])


@pytest.mark.row("F-21", "F-33", "F-35", "F-19", "A-04")
async def test_with_a_token_an_app_enrols_fetches_and_connects(broker: Broker, tmp_path: Path) -> None:
    folder = AppFolder(tmp_path / "app")
    steps: list[str] = []
    enrolled = await upload(PROFILE, folder, address(broker), token=token(broker), tell=steps.append)
    assert steps[-1] == "fetching the certificate"
    assert enrolled.device_id.startswith("upload-")
    assert '"medium":2' in (tmp_path / "app" / "connection_config.json").read_text().replace(" ", "")
    (record,) = [one for one in broker.certificates() if one.principal and one.principal.proof is Proof.UPLOAD][-1:]
    assert record.principal is not None
    assert (record.principal.app_id, record.principal.device_id) == (DEMO, enrolled.device_id)
    assert broker.ports.secure_port is not None
    async with client.connect(
        app_id=DEMO, app="Demo", directory=folder.path, host="localhost", secure_port=broker.ports.secure_port
    ):
        assert [session.identity.proof for session in broker.sessions] == [Proof.UPLOAD]


@pytest.mark.row("F-21")
async def test_the_operator_lets_an_app_in_by_its_fingerprint(broker: Broker, tmp_path: Path) -> None:
    shown: asyncio.Queue[str] = asyncio.Queue()
    issued = len(broker.certificates())
    asking = asyncio.create_task(upload(PROFILE, AppFolder(tmp_path / "app"), address(broker), tell=shown.put_nowait))
    assert "localhost" in await shown.get()
    mark = (await shown.get()).rpartition(" ")[2]
    async with admin_line(broker.settings.home) as line:
        async with asyncio.timeout(20):
            while not (waiting := await line.call("approvals.list")):
                await asyncio.sleep(0.02)
        (one,) = waiting
        assert (one["id"], one["app_id"], one["device"], one["state"]) == (mark, DEMO, "Phone", "waiting")
        assert len(broker.certificates()) == issued, "nothing is signed yet"
        approved = await line.call("approvals.approve", {"id": mark[:16]})
        assert approved["key"] is None
    async with asyncio.timeout(20):
        assert (await asking).device_id.startswith("upload-")
    async with admin_line(broker.settings.home) as line:
        assert await line.call("approvals.list") == []


@pytest.mark.row("F-21")
async def test_who_is_refused_keeps_what_lay_in_its_folder(broker: Broker, tmp_path: Path) -> None:
    folder = AppFolder(tmp_path / "app")
    before = await upload(PROFILE, folder, address(broker), token=token(broker))
    asking = asyncio.create_task(upload(PROFILE, folder, address(broker)))
    async with admin_line(broker.settings.home) as line, asyncio.timeout(20):
        while not (waiting := await line.call("approvals.list")):
            await asyncio.sleep(0.02)
        await line.call("approvals.refuse", {"id": waiting[0]["id"]})
        with pytest.raises(EnrollmentRefused, match="the operator has refused it"):
            await asking
    assert folder.load().credentials == before.credentials


@attrs.define
class App:
    """Speaks the exchange by hand."""

    connection: Connection
    request: SigningRequest

    async def ask(self, **fields: object) -> dict[str, object]:
        answer = await self.connection.request_response(Payload(dump(fields)), timeout=20)
        return parse_object(bytes(answer.data or b""))

    async def sign(self, token: GrantToken) -> str:
        csr = self.request.csr_pem.decode()
        answer = await self.ask(method="signCertificate", csr=csr, medium=2, grant=token.grant_for(csr))
        return str(answer["deviceId"])

    async def challenge(self, device_id: str) -> bytes:
        return base64.b64decode(str((await self.ask(method="pickupBegin", deviceId=device_id))["challenge"]))

    async def pick_up(self, device_id: str, key_pem: bytes | None = None) -> bytes:
        challenge = await self.challenge(device_id)
        proof = sign(key_pem or self.request.key_pem, challenge, device_id, PICKUP_PURPOSE)
        return str((await self.ask(method="pickup", deviceId=device_id, proof=proof))["bundle"]).encode()


@pytest.fixture
async def app(broker: Broker) -> AsyncIterator[App]:
    claims = attrs.evolve(PROFILE, medium=MEDIUM_UPLOAD).plain_claims()
    connection = await open_plain(address(broker), claims, Refuser())
    try:
        yield App(connection, make_signing_request(DEMO))
    finally:
        await connection.close()


@pytest.mark.row("F-20", "F-19", "F-35")
async def test_it_is_given_once_and_to_the_right_key_alone(app: App, broker: Broker) -> None:
    device_id = await app.sign(token(broker))
    stranger = make_signing_request(DEMO).key_pem
    same = r"pickup: nothing lies here for that id and that key"
    with pytest.raises(RequestFailed, match=same):
        await app.pick_up(device_id, stranger)
    with pytest.raises(RequestFailed, match=same):
        await app.pick_up("upload-0123456789abcdef")
    with pytest.raises(RequestFailed, match="no challenge was given"):
        await app.ask(method="pickup", deviceId=device_id, proof="AAAA")
    replayed = sign(app.request.key_pem, await app.challenge(device_id), device_id, PICKUP_PURPOSE)
    await app.challenge(device_id)
    with pytest.raises(RequestFailed, match=same):
        await app.ask(method="pickup", deviceId=device_id, proof=replayed)
    found = unseal(app.request.key_pem, app.request.csr_pem.decode(), device_id, await app.pick_up(device_id))
    assert found.device_id == device_id
    assert found.certificate_pem.startswith(b"-----BEGIN CERTIFICATE")
    with pytest.raises(RequestFailed, match=same):
        await app.pick_up(device_id)
    assert broker._audit is not None and broker._state is not None
    broker._audit.flush(all_of_it=True)
    bodies = [row["body"] for row in broker._state.read("SELECT body FROM audit")]
    assert sum(device_id in body and '"fetched"' in body for body in bodies) == 1
    issued = len(broker.certificates())
    assert await app.sign(token(broker)) == device_id, "the same request has the same answer"
    assert len(broker.certificates()) == issued, "and nothing was signed for it"


async def test_the_fingerprint_is_that_of_the_key(app: App) -> None:
    from rsocket_broker.authority.requests import check_request

    assert fingerprint(app.request) == check_request(app.request.csr_pem).key_fingerprint


def impostor(stub: StubBroker) -> Callable[[dict[str, object]], object]:
    """Stands where the broker should be: seals a certificate and an authority of its own for whoever asks."""
    requests: list[str] = []

    def answer(message: dict[str, object]) -> object:
        if message["method"] == "signCertificate":
            requests.append(str(message["csr"]))
            return {"deviceId": "upload-1", "vouched": "A" * 43}
        if message["method"] == "pickupBegin":
            return {"challenge": base64.b64encode(bytes(32)).decode()}
        asked = x509.load_pem_x509_csr(requests[-1].encode())
        made = stub.authority.issue(asked.subject, asked.public_key())
        key = asked.public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey)
        return {"bundle": seal(key, requests[-1], Unsealed("upload-1", made, stub.authority.pem)).decode()}

    return answer


@pytest.mark.row("F-20", "M-5")
async def test_whoever_stands_between_gives_no_authority_of_its_own_to_an_app_with_a_token(
    broker: Broker, tmp_path: Path
) -> None:
    folder = AppFolder(tmp_path / "app")
    before = await upload(PROFILE, folder, address(broker), token=token(broker))
    async with StubBroker() as stub:
        stub.answer = impostor(stub)
        there = Address("localhost", stub.insecure_port)
        with pytest.raises(EnrollmentRefused, match="not from the broker that has made the token"):
            await upload(PROFILE, folder, there, token=token(broker))
        wrong = client.Upload(anchor="0" * 64).anchor
        with pytest.raises(EnrollmentRefused, match="another fingerprint"):
            await upload(PROFILE, folder, there, anchor=wrong)
        assert folder.load().credentials == before.credentials
        mark = x509.load_pem_x509_certificate(stub.authority.pem).fingerprint(hashes.SHA256())
        pin = client.Upload(anchor=mark.hex(":").upper()).anchor
        assert (await upload(PROFILE, folder, there, anchor=pin)).device_id == "upload-1"


async def test_an_id_that_is_none_is_no_part_of_an_address(tmp_path: Path) -> None:
    async def fetch(device_id: str) -> bytes:
        raise AssertionError(device_id)

    async with StubBroker(answer=lambda message: {"deviceId": "../../evil?x="}) as stub:
        with pytest.raises(EnrollmentRefused, match="names no device that anything could be fetched for"):
            await upload(PROFILE, AppFolder(tmp_path / "app"), Address("localhost", stub.insecure_port), fetch=fetch)


@pytest.mark.parametrize("text", ["", "00", "g" * 64, "0" * 65])
def test_what_is_no_fingerprint_is_said_at_once(text: str) -> None:
    with pytest.raises(ConfigurationError, match="no fingerprint of an authority"):
        client.Upload(anchor=text)
