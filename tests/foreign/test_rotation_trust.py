"""Who verifies what each port presents in each phase of a rotation: proven by handshakes, with verifiers of others."""

import itertools
import shutil
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import pkcs12

from rsocket_broker.authority import Authority
from rsocket_broker.authority.home import certificate_pem
from rsocket_broker.credentials import make_signing_request
from rsocket_broker.identity import Principal, Proof
from rsocket_broker.state import State
from rsocket_broker.transports.tls_contexts import ALPN_HTTP, server_context
from tests.foreign.programs import Lines

PRINCIPAL = Principal("org.example.app", "device", Proof.ADB)
PASSWORD = "password"
PHASES = ("before", "prepared", "switched", "after")
PORTS = ("8088", "9088")
PINS = ("old", "new", "new old", "old new")
PATIENCE = 20.0

HERE = Path(__file__).parent

Check = Callable[[int, Path, str], str]
"""Port, CA file, and whose certificate to show (a folder of `Fleet.clients`): `accepted` or `refused…`."""


class Server:
    """One TLS port, with the contexts that the broker makes. Greets whoever it has let in with one letter."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                raw, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._greet, args=(raw,), daemon=True).start()

    def _greet(self, raw: socket.socket) -> None:
        raw.settimeout(PATIENCE)
        try:
            with self._context.wrap_socket(raw, server_side=True) as line:
                line.sendall(b"k")
                line.recv(1)
        except OSError:
            raw.close()

    def close(self) -> None:
        self._listener.close()


@attrs.frozen
class Fleet:
    """A port of each kind for each phase, CA files by what they pin, and clients with certificates of a generation."""

    servers: dict[tuple[str, str], Server]
    pins: dict[str, Path]
    clients: dict[str, Path]

    def port(self, phase: str, port: str) -> int:
        return self.servers[phase, port].port


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp("fleet")
    servers: dict[tuple[str, str], Server] = {}
    clients: dict[str, Path] = {}
    with State.open(folder / "home" / "state.db") as state:
        authority = Authority.open(folder / "home", state)
        old = authority.certificate

        def look(phase: str) -> None:
            serving = authority.serving()
            newest = {"8088": ssl.TLSVersion.TLSv1_3, "9088": ssl.TLSVersion.TLSv1_2}
            servers[phase, "8088"] = Server(server_context(serving.secure, newest["8088"], crl_pem=serving.crl_pem))
            servers[phase, "9088"] = Server(server_context(serving.web, newest["9088"], ALPN_HTTP, serving.crl_pem))

        look("before")
        clients["old"] = make_client(authority, folder / "client-old")
        authority.prepare()
        look("prepared")
        authority.switch()
        look("switched")
        new = authority.certificate
        clients["new"] = make_client(authority, folder / "client-new")
        authority.finish([PRINCIPAL])
        look("after")
    pins = {}
    for names in PINS:
        pins[names] = folder / f"{names.replace(' ', '-')}.pem"
        pem = b"".join(certificate_pem({"old": old, "new": new}[name]) for name in names.split())
        pins[names].write_bytes(pem)
    yield Fleet(servers, pins, clients)
    for server in servers.values():
        server.close()


def make_client(authority: Authority, folder: Path) -> Path:
    """A folder with `client.pem`, `key.pem` and `client.p12`."""
    request = make_signing_request(PRINCIPAL.app_id)
    issued = authority.issue(authority.check_request(request.csr_pem), PRINCIPAL)
    folder.mkdir()
    (folder / "client.pem").write_bytes(issued.certificate_pem)
    (folder / "key.pem").write_bytes(request.key_pem)
    key = serialization.load_pem_private_key(request.key_pem, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    encryption = serialization.BestAvailableEncryption(PASSWORD.encode())
    certificate = x509.load_pem_x509_certificate(issued.certificate_pem)
    bundle = pkcs12.serialize_key_and_certificates(b"client", key, certificate, None, encryption)
    (folder / "client.p12").write_bytes(bundle)
    return folder


# Verifiers


@pytest.fixture(scope="module")
def openssl(fleet: Fleet) -> Check:
    def check(port: int, ca: Path, whose: str) -> str:
        context = ssl.create_default_context(cafile=str(ca))
        context.load_cert_chain(fleet.clients[whose] / "client.pem", fleet.clients[whose] / "key.pem")
        try:
            with (
                socket.create_connection(("127.0.0.1", port), PATIENCE) as raw,
                context.wrap_socket(raw, server_hostname="localhost") as line,
            ):
                return "accepted" if line.recv(1) == b"k" else "refused"
        except ssl.SSLError as error:
            return f"refused: {error}"

    return check


@pytest.fixture(scope="module")
def node(fleet: Fleet) -> Iterator[Check]:
    if shutil.which("node") is None:
        pytest.skip("needs node")
    program = Lines("node", str(HERE / "js" / "verifier.js"))

    def check(port: int, ca: Path, whose: str) -> str:
        return program.ask(port, ca, fleet.clients[whose] / "client.pem", fleet.clients[whose] / "key.pem")

    yield check
    program.close()


@pytest.fixture(scope="module")
def jsse(fleet: Fleet, java: Lines) -> Check:
    return lambda port, ca, whose: java.ask("jsse", port, ca, fleet.clients[whose] / "client.p12", PASSWORD)


@pytest.fixture(scope="module")
def first_only(fleet: Fleet, java: Lines) -> Check:
    return lambda port, ca, whose: java.ask("first", port, ca, fleet.clients[whose] / "client.p12", PASSWORD)


# The table. Rows are phases, columns what a client pins: old, new, new and old, old and new.

PATHS = {
    "before": "yes no yes yes",
    "prepared": "yes no yes yes",
    "switched": "yes yes yes yes",
    "after": "no yes yes yes",
}
"""8088, with a verifier that looks for a path: nobody who pins the old one, or both, is refused before the end."""
TWO_ONLY = {
    "before": "yes no yes yes",
    "prepared": "yes no yes yes",
    "switched": "no yes yes yes",
    "after": "no yes yes yes",
}
"""9088 with such a verifier: the leaf and its CA are all that goes out."""
FIRST = {
    "before": "yes no no yes",
    "prepared": "yes no no yes",
    "switched": "no yes yes no",
    "after": "no yes yes no",
}
"""9088 with one that takes the first certificate of its file and no other: why it gets its pair at the switch."""


@pytest.mark.row("A-14")
@pytest.mark.parametrize(
    ("verifier", "port", "table"),
    [
        ("openssl", "8088", PATHS),
        ("node", "8088", PATHS),
        ("jsse", "8088", PATHS),
        ("openssl", "9088", TWO_ONLY),
        ("node", "9088", TWO_ONLY),
        ("jsse", "9088", TWO_ONLY),
        ("first_only", "9088", FIRST),
    ],
)
def test_who_verifies_what_is_presented(
    fleet: Fleet, verifier: str, port: str, table: dict[str, str], request: pytest.FixtureRequest
) -> None:
    check: Check = request.getfixturevalue(verifier)
    found = {}
    for phase in PHASES:
        whose = "new" if phase == "after" else "old"
        answers = [check(fleet.port(phase, port), fleet.pins[pin], whose) for pin in PINS]
        found[phase] = " ".join("yes" if answer == "accepted" else "no" for answer in answers)
    assert found == table


@pytest.mark.row("A-14", "A-16")
@pytest.mark.parametrize("verifier", ["openssl", "node", "jsse"])
def test_whose_certificates_are_accepted(fleet: Fleet, verifier: str, request: pytest.FixtureRequest) -> None:
    check: Check = request.getfixturevalue(verifier)
    found = {
        (phase, whose, port): check(fleet.port(phase, port), fleet.pins["new old"], whose) == "accepted"
        for phase, whose, port in itertools.product(PHASES, ("old", "new"), PORTS)
    }
    assert found == {
        (phase, whose, port): phase != {"old": "after", "new": "before"}[whose]
        for phase, whose, port in itertools.product(PHASES, ("old", "new"), PORTS)
    }


@pytest.mark.row("A-14")
def test_a_chain_that_is_too_long_or_too_old_is_what_android_refuses(fleet: Fleet, first_only: Check) -> None:
    """The verifier of this test is as strict as the one it stands for."""
    answer = first_only(fleet.port("switched", "8088"), fleet.pins["new"], "new")
    assert "refused" in answer
