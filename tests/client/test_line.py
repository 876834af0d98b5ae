"""One connection, opened: accepted, or refused with the reason that says it best."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from rsocket_broker.client.folder import AppFolder
from rsocket_broker.client.line import (
    TOKEN_SIZE,
    Address,
    Lease,
    Terms,
    WebAddress,
    open_plain,
    open_secure,
    refuses_resumption,
)
from rsocket_broker.client.responder import Refuser
from rsocket_broker.connection import Connection
from rsocket_broker.credentials import Credentials
from rsocket_broker.errors import ConnectionClosed, SetupRefused, TlsRefused
from rsocket_broker.payload import ErrorCode, Payload
from rsocket_broker.protocol.limits import RESUME_SECONDS, SECURE
from tests.client.stub_broker import StubAuthority, StubBroker

CLAIMS = b'{"os":"Linux"}'


def credentials(folder: Path, authority: StubAuthority, trusting: StubAuthority | None = None) -> Credentials:
    app = AppFolder(folder)
    csr = app.begin("org.example.demo")
    authority.deploy({"destination": app.destination, "csr": csr})
    ours = app.complete("d").credentials
    return ours if trusting is None else Credentials(ours.key_pem, ours.chain_pem, trusting.pem)


async def secure(stub: StubBroker, own: Credentials) -> Connection:
    return await open_secure(Address("127.0.0.1", stub.secure_port), own, CLAIMS, Refuser(), lambda connection: None)


async def test_the_plain_port_is_asked_in_plain(stub: StubBroker) -> None:
    stub.answer = lambda message: {"deviceId": message["csr"]}
    connection = await open_plain(Address("127.0.0.1", stub.insecure_port), CLAIMS, Refuser())
    assert (await connection.request_response(Payload(b'{"csr": 1}'), timeout=5)).data == b'{"deviceId":1}'
    await connection.close()
    assert stub.plain_setups == [{"os": "Linux"}]


async def test_an_accepted_line(stub: StubBroker, tmp_path: Path) -> None:
    opened: list[Connection] = []
    own = credentials(tmp_path / "app", stub.authority)
    address = Address("127.0.0.1", stub.secure_port)
    connection = await open_secure(address, own, CLAIMS, Refuser(), opened.append)
    assert opened == [connection]
    assert stub.setups == [{"os": "Linux"}]
    await connection.close()


@pytest.mark.row("F-1", "F-6")
async def test_a_server_of_another_authority_is_refused_before_it_hears_a_frame(
    stub: StubBroker, tmp_path: Path
) -> None:
    own = credentials(tmp_path / "app", stub.authority, trusting=StubAuthority())
    with pytest.raises(TlsRefused) as refused:
        await secure(stub, own)
    assert not refused.value.by_peer
    assert stub.setups == []


@pytest.mark.row("M-13")
async def test_a_server_for_another_name_is_refused(tmp_path: Path) -> None:
    async with StubBroker(StubAuthority(address="127.0.0.9")) as stub:
        own = credentials(tmp_path / "app", stub.authority)
        with pytest.raises(TlsRefused):
            await secure(stub, own)
        assert stub.setups == []


@pytest.mark.row("A-09")
async def test_a_refusal_that_comes_late_is_still_one_of_tls(stub: StubBroker, tmp_path: Path) -> None:
    """TLS 1.3: our own handshake has finished when the server judges our certificate."""
    own = credentials(tmp_path / "app", StubAuthority(), trusting=stub.authority)
    for _ in range(10):  # a race, if there were one
        with pytest.raises(TlsRefused) as refused:
            await secure(stub, own)
        assert refused.value.by_peer
        assert refused.value.alert == "unknown_ca"


async def test_a_refused_setup_comes_with_the_servers_words(stub: StubBroker, tmp_path: Path) -> None:
    stub.refuse_setup = "app_id is another's"
    with pytest.raises(SetupRefused, match="app_id is another's"):
        await secure(stub, credentials(tmp_path / "app", stub.authority))


async def test_nobody_there_is_an_error_of_the_network(stub: StubBroker, tmp_path: Path) -> None:
    own = credentials(tmp_path / "app", stub.authority)
    await stub.stop()
    with pytest.raises(OSError):
        await secure(stub, own)
    with pytest.raises(OSError):
        await open_plain(Address("127.0.0.1", stub.insecure_port), CLAIMS, Refuser())


async def test_a_server_that_hangs_up_is_an_error_of_the_network(stub: StubBroker, tmp_path: Path) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    async with server:
        address = Address("127.0.0.1", server.sockets[0].getsockname()[1])
        own = credentials(tmp_path / "app", stub.authority)
        with pytest.raises((OSError, ConnectionClosed)):
            await open_secure(address, own, CLAIMS, Refuser(), lambda connection: None)


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("wss://broker.example:9088/rsocket", WebAddress("broker.example", 9088)),
        ("wss://[::1]:9088", WebAddress("::1", 9088)),
        ("wss://broker.example/a/b", WebAddress("broker.example", 443, "/a/b")),
        ("ws://localhost:1", WebAddress("localhost", 1, secure=False)),
        ("ws://127.0.0.1:1", WebAddress("127.0.0.1", 1, secure=False)),
    ],
)
def test_the_address_of_a_websocket_is_read_and_told(url: str, address: WebAddress) -> None:
    assert WebAddress.parse(url) == address
    assert WebAddress.parse(str(address)) == address


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("https://localhost:9088/rsocket", "not the address of a WebSocket"),
        ("localhost:9088", "not the address of a WebSocket"),
        ("wss:///rsocket", "not the address of a WebSocket"),
        ("wss://me:secret@localhost:9088", "more than a host"),
        ("wss://localhost:9088/rsocket?a=b", "more than a host"),
        ("ws://broker.example:9088", "without TLS"),
        ("ws://localhost.example:9088", "without TLS"),
        ("ws://192.168.0.1:9088", "without TLS"),
        ("wss://localhost:99999", "ort"),
    ],
)
def test_an_address_that_will_not_do_is_refused_before_anything_is_sent(url: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        WebAddress.parse(url)


def test_an_address_is_told_as_people_write_it() -> None:
    assert str(Address("localhost", 8088)) == "localhost:8088"


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_a_port_that_would_be_taken_for_another_one_is_refused(port: int) -> None:
    with pytest.raises(ValueError, match=rf"^{port} is no port: use 1 to 65535$"):
        Address("localhost", port)


@pytest.mark.parametrize("lease", [{"requests": 0}, {"requests": 2**40}, {"seconds": -1}])
def test_a_lease_that_no_frame_can_carry_is_refused_with_what_was_given(lease: dict[str, Any]) -> None:
    ((name, value),) = lease.items()
    with pytest.raises(ValueError, match=rf"^the {name} of a lease .* not {value}$"):
        Lease(**lease)


@pytest.mark.row("A-43")
def test_each_session_asks_with_a_token_of_its_own() -> None:
    tokens = {Terms(resume=True).setup(CLAIMS).resume_token for _ in range(50)}
    assert len(tokens) == 50
    assert {len(token or b"") for token in tokens} == {TOKEN_SIZE}
    assert Terms(resume=True).limits().resume_seconds == RESUME_SECONDS


def test_nothing_is_asked_for_unasked() -> None:
    setup = Terms().setup(CLAIMS)
    assert (setup.resume_token, setup.lease, Terms().limits()) == (None, False, SECURE)


def test_a_lease_is_what_the_broker_may_ask() -> None:
    terms = Terms(lease=Lease(requests=7, seconds=1.5))
    assert terms.setup(CLAIMS).lease
    assert (terms.limits().lease_requests, terms.limits().lease_period) == (7, 1.5)


@pytest.mark.parametrize(("requests", "seconds"), [(0, 1), (1, 0), (1, -1), (1, float("inf"))])
def test_a_lease_of_nothing_is_none(requests: int, seconds: float) -> None:
    with pytest.raises(ValueError, match="lease"):
        Lease(requests, seconds)


@pytest.mark.parametrize(
    ("text", "code", "expected"),
    [
        ("resumption is not supported", ErrorCode.REJECTED_SETUP, True),
        ("Resume not supported", ErrorCode.REJECTED_SETUP, True),
        ("The app_id is another's.", ErrorCode.REJECTED_SETUP, False),
        ("resumption is not supported", ErrorCode.UNSUPPORTED_SETUP, False),
    ],
)
def test_which_refusal_is_for_the_resume_token(text: str, code: ErrorCode, expected: bool) -> None:
    assert refuses_resumption(SetupRefused(text, code)) is expected
