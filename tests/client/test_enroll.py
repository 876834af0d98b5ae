"""The exchange from the app's side: what is asked, and what of the answer counts."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from rsocket_broker.authority.requests import check_request
from rsocket_broker.client.connect import connect
from rsocket_broker.client.enroll import Upload, enroll, exchange, signing_fields
from rsocket_broker.client.folder import AppFolder, Enrolled
from rsocket_broker.client.line import Address
from rsocket_broker.client.profile import AppProfile
from rsocket_broker.errors import ApplicationError, ConfigurationError, ConnectionClosed, EnrollmentRefused
from rsocket_broker.grant_tokens import GrantToken
from rsocket_broker.nonce_proof import is_signed
from tests.client.stub_broker import StubBroker

APP_ID = "org.example.demo"


async def enrol_with(stub: StubBroker, folder: Path) -> Enrolled:
    return await enroll(app_id=APP_ID, app="Demo", directory=folder, host="127.0.0.1", insecure_port=stub.insecure_port)


def test_the_question_names_request_place_medium_and_our_clock() -> None:
    message = signing_fields("PEM", "/apps/demo/", 1_718_000_000.1239)
    assert message == {
        "method": "signCertificate",
        "csr": "PEM",
        "destination": "/apps/demo/",
        "medium": 1,
        "timestamp": 1_718_000_000_123,
        "logs": [],
        "nonce": 1,
    }


@pytest.mark.row("F-9", "F-25", "F-27")
async def test_an_exchange(stub: StubBroker, tmp_path: Path) -> None:
    folder = tmp_path / "app"
    enrolled = await enrol_with(stub, folder)
    assert enrolled == AppFolder(folder).load()
    assert enrolled.device_id == "stub-1"
    question, acknowledgement = stub.asked
    assert question["destination"] == f"{folder}/"
    assert question["csr"] == enrolled.csr_pem
    assert stub.plain_setups[0]["device_id"] == "unknown"
    assert acknowledgement["method"] == "signCertificateAck"
    assert acknowledgement["hasRequiredFiles"] is True


@pytest.mark.row("A-33", "M-8")
async def test_a_token_is_proven_and_not_sent(stub: StubBroker, tmp_path: Path) -> None:
    token, folder = "0123456789ab." + "S" * 43, tmp_path / "app"
    port, host = stub.insecure_port, "127.0.0.1"
    enrolled = await enroll(app_id=APP_ID, app="Demo", directory=folder, host=host, insecure_port=port, token=token)
    question = stub.asked[0]
    assert question["grant"] == GrantToken.parse(token).grant_for(enrolled.csr_pem)
    assert "SSSS" not in str(question)


async def test_what_is_no_token_is_not_sent_at_all(stub: StubBroker, tmp_path: Path) -> None:
    asked: dict[str, Any] = {"app_id": APP_ID, "app": "Demo", "directory": tmp_path / "app", "token": "half.of-it"}
    with pytest.raises(ConfigurationError, match="no token of a grant"):
        await enroll(**asked, host="127.0.0.1", insecure_port=stub.insecure_port)
    with pytest.raises(ConfigurationError, match="no token of a grant"):
        async with connect(**asked, host="127.0.0.1", insecure_port=stub.insecure_port):
            pass
    assert stub.asked == [] and not (tmp_path / "app").exists()


async def test_the_devices_clock_is_told(stub: StubBroker, tmp_path: Path) -> None:
    profile = AppProfile(app_id=APP_ID, app="Demo")
    address = Address("127.0.0.1", stub.insecure_port)
    await exchange(profile, AppFolder(tmp_path / "app"), address, lambda: 86_400.0)
    assert stub.asked[0]["timestamp"] == 86_400_000


async def test_the_brokers_words_reach_the_caller(stub: StubBroker, tmp_path: Path) -> None:
    def refuse(message: dict[str, object]) -> object:
        raise ApplicationError("proof: that folder holds another request. Ask from the app itself.")

    stub.answer = refuse
    with pytest.raises(EnrollmentRefused) as refused:
        await enrol_with(stub, tmp_path / "app")
    assert refused.value.step == "proof"
    assert refused.value.public == "proof: that folder holds another request. Ask from the app itself."


@pytest.mark.row("F-23")
async def test_certificates_in_the_answer_are_ignored(stub: StubBroker, tmp_path: Path) -> None:
    pem = stub.authority.pem.decode()
    stub.answer = lambda message: {"deviceId": "d", "certificates": pem, "sonarCA.crt": pem, "device.crt": pem}
    with pytest.raises(EnrollmentRefused) as refused:
        await enrol_with(stub, tmp_path / "app")
    assert refused.value.step == "deployment"
    assert sorted(path.name for path in (tmp_path / "app").iterdir()) == ["app.csr", "privateKey.pem"]
    assert stub.asked[-1]["hasRequiredFiles"] is False


async def test_without_a_broker_nothing_is_thrown_away(stub: StubBroker, tmp_path: Path) -> None:
    before = await enrol_with(stub, tmp_path / "app")
    await stub.stop()
    with pytest.raises(OSError):
        await enrol_with(stub, tmp_path / "app")
    assert AppFolder(tmp_path / "app").load() == before


async def test_whoever_listens_in_the_brokers_place_takes_nothing_away_by_hanging_up(
    stub: StubBroker, tmp_path: Path
) -> None:
    before = await enrol_with(stub, tmp_path / "app")

    def hang_up(message: dict[str, object]) -> object:
        for line in stub.all:
            line.abort()
        return {}

    stub.answer = hang_up
    with pytest.raises(ConnectionClosed):
        await enrol_with(stub, tmp_path / "app")
    assert AppFolder(tmp_path / "app").load() == before


async def test_whoever_is_cancelled_keeps_what_was_there(stub: StubBroker, tmp_path: Path) -> None:
    folder = tmp_path / "app"
    before = await enrol_with(stub, folder)
    left = asyncio.Event()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        left.set()

    silent = await asyncio.start_server(listen, "127.0.0.1", 0)
    async with silent, asyncio.timeout(20):
        port = silent.sockets[0].getsockname()[1]
        enrolling = asyncio.create_task(
            enroll(app_id=APP_ID, app="Demo", directory=folder, host="127.0.0.1", insecure_port=port)
        )
        while (folder / "device.crt").exists():
            await asyncio.sleep(0.01)
        enrolling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await enrolling
        await left.wait()
    assert AppFolder(folder).load() == before


async def test_an_app_id_that_cannot_be_certified_asks_nobody(stub: StubBroker, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError):
        await enroll(app_id="no such id", app="Demo", directory=tmp_path, insecure_port=stub.insecure_port)
    assert stub.plain_setups == []


# ---- nonces ------------------------------------------------------------------------------------------------------


def answer_with_nonce(stub: StubBroker, folder: Path, nonce: bytes, name: str = "nonce-0123456789abcdef") -> None:
    """The stub asks for a nonce first, and deploys once it has an answer."""

    def answer(message: dict[str, object]) -> object:
        if "proof" in message:
            stub.authority.deploy(message)
            return {"deviceId": "stub-1"}
        file = folder / name
        file.write_bytes(nonce.hex().encode())
        file.chmod(0o600)
        return {"nonce": name}

    stub.answer = answer


@pytest.mark.row("D-6")
async def test_a_nonce_in_the_folder_is_signed_with_the_requests_key(stub: StubBroker, tmp_path: Path) -> None:
    nonce = b"n" * 32
    answer_with_nonce(stub, tmp_path / "app", nonce)
    enrolled = await enrol_with(stub, tmp_path / "app")
    first, second, _acknowledgement = stub.asked
    proof = second.pop("proof")
    assert first == second and first["nonce"] == 1
    key = x509.load_pem_x509_csr(enrolled.csr_pem.encode()).public_key()
    assert is_signed(key, nonce, enrolled.csr_pem, str(proof))  # type: ignore[arg-type]
    assert check_request(enrolled.csr_pem).wants_nonce, "and nobody else gets it signed without"


@pytest.mark.row("D-6", "A-13")
@pytest.mark.parametrize("name", ["nonce-0123456789abcde0", "privateKey.pem", "../nonce-0123456789abcdef"])
async def test_a_broker_that_asks_for_another_file_is_told_nothing(stub: StubBroker, tmp_path: Path, name: str) -> None:
    stub.answer = lambda message: {"nonce": name}
    with pytest.raises(EnrollmentRefused, match="proof: the broker has asked for a nonce"):
        await enrol_with(stub, tmp_path / "app")
    assert len(stub.asked) == 1


async def test_what_is_no_nonce_is_not_signed(stub: StubBroker, tmp_path: Path) -> None:
    stub.answer = lambda message: {"nonce": "nonce-0123456789abcdef"}
    folder = tmp_path / "app"

    def put(message: dict[str, object]) -> object:
        (folder / "nonce-0123456789abcdef").write_text("not hex at all")
        (folder / "nonce-0123456789abcdef").chmod(0o600)
        return {"nonce": "nonce-0123456789abcdef"}

    stub.answer = put
    with pytest.raises(EnrollmentRefused, match="holds no nonce"):
        await enrol_with(stub, folder)


# ---- the mediums -------------------------------------------------------------------------------------------------


@pytest.mark.row("F-12")
async def test_each_medium_asks_by_its_number_and_upload_tells_what_to_approve(
    stub: StubBroker, tmp_path: Path
) -> None:
    def refuse(message: dict[str, object]) -> object:
        raise ApplicationError("medium: no driver offers that here. Ask the operator.")

    stub.answer, told = refuse, list[str]()
    host: dict[str, Any] = {"app_id": APP_ID, "app": "Demo", "directory": tmp_path / "app", "host": "127.0.0.1"}
    with pytest.raises(EnrollmentRefused, match="medium: "):
        await enroll(**host, insecure_port=stub.insecure_port, upload=Upload(), tell=told.append)
    assert [line.rpartition(" ")[0] for line in told][-1] == "waiting for the operator to approve"
    steps: list[str] = []
    with pytest.raises(EnrollmentRefused, match="medium: "):
        async with connect(
            **host,
            insecure_port=stub.insecure_port,
            upload=Upload(),
            observer=lambda progress: steps.append(progress.detail),
        ):
            pass
    assert any("to approve" in step for step in steps), "whoever waits for the operator must be told"
    with pytest.raises(EnrollmentRefused, match="medium: "):
        await enroll(**host, insecure_port=stub.insecure_port)
    assert [message["medium"] for message in stub.asked] == [2, 2, 1]
    assert [setup["medium"] for setup in stub.plain_setups] == [2, 2, 1]
