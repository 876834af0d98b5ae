"""The routes `identity.renew` and `identity.stored` of a real broker, as clients that behave and others use them."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from rsocket_broker.authority.revocation import Selector
from rsocket_broker.claims import Claims
from rsocket_broker.client.renewal import serial_of
from rsocket_broker.credentials import make_signing_request
from rsocket_broker.errors import ApplicationError, AuthorityError, Rejected, RequestFailed
from rsocket_broker.identity import Identity, Proof
from rsocket_broker.lifecycle.identity_plugin import MAX_WAITING, RATE, IdentityPlugin
from rsocket_broker.routing.session import Session
from tests.lifecycle.lab import lab


def request(app_id: str) -> str:
    return make_signing_request(app_id).csr_pem.decode()


def serial_in(answer: dict[str, str]) -> str:
    return f"{x509.load_pem_x509_certificate(answer['certificate'].encode()).serial_number:x}"


@pytest.mark.row("A-18")
async def test_a_client_renews_for_the_key_that_it_has_or_another_and_its_session_goes_on(
    tmp_path: Path, home: Path
) -> None:
    async with lab(tmp_path, home) as here, here.app() as session:
        live, first = here.session(), here.session().identity
        for csr in (here.held().csr_pem, request("org.example.demo")):
            before = live.identity
            answer = await session.request("identity.renew", {"csr": csr})
            assert answer["trust"].encode() == here.authority.trust_pem
            assert live.identity is before, "until it is stored, nothing has changed"
            await session.request("identity.stored", {"serial": serial_in(answer)})
            assert f"{live.identity.serial:x}" == serial_in(answer)
            assert live.identity.principal == first.principal
            record = here.authority.record(live.identity.serial)
            assert record is not None
            assert record.renews == before.serial
            assert here.authority.same_holder(first, live.identity)
        assert (session.connections, await session.request("echo.request", [1])) == (1, [1])
        assert live.identity.key_fingerprint != first.key_fingerprint


@pytest.mark.row("A-18")
async def test_a_renewal_is_for_the_same_client_with_the_same_proof_whatever_it_asks(
    tmp_path: Path, home: Path
) -> None:
    async with lab(tmp_path, home) as here, here.app() as session:
        for bad, words in (
            (request("org.example.other"), "not for org.example.demo"),
            ("words", "not a PEM certificate request"),
            ("x" * 70_000, "larger than"),
            (weak_request(), "too weak|Use RSA|curve|P-256"),
        ):
            with pytest.raises(ApplicationError, match=words):
                await session.request("identity.renew", {"csr": bad})
        with pytest.raises(RequestFailed):
            await session.request("identity.renew", {})
        assert here.session().identity.proof is Proof.FILESYSTEM
        assert len(here.broker.certificates()) == 3, "root, broker, and the one of the enrolment"


def weak_request() -> str:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "org.example.demo")])
    key = ec.generate_private_key(ec.SECP192R1())
    made = x509.CertificateSigningRequestBuilder(name).sign(key, hashes.SHA256())
    return made.public_bytes(serialization.Encoding.PEM).decode()


@pytest.mark.row("A-19", "D-14")
@pytest.mark.parametrize("by", ["serial", "client"])
async def test_a_revoked_certificate_cannot_renew(tmp_path: Path, home: Path, by: str) -> None:
    """Not even over a session that nobody has ended yet."""
    async with lab(tmp_path, home) as here, here.app() as session:
        identity, csr = here.session().identity, here.held().csr_pem
        selector = (
            Selector.serial(identity.serial) if by == "serial" else Selector.client(identity.app_id, identity.device_id)
        )
        here.authority.revocations.revoke(selector, "a test")
        with pytest.raises(ApplicationError):
            await session.request("identity.renew", {"csr": csr})
        assert here.upkeep.plugin.results["failed"] >= 1
        assert [record.renews for record in here.authority.certificates(identity.app_id)] == [None]
        here.authority.audit.flush()
        (body,) = here.authority._inventory.state.read("SELECT body FROM audit WHERE event = 'enrolment-refused'")
        assert '"renewal"' in body[0]


@pytest.mark.row("A-19")
async def test_a_renewal_that_was_revoked_before_it_was_stored_does_not_become_the_sessions(
    tmp_path: Path, home: Path
) -> None:
    async with lab(tmp_path, home) as here, here.app() as session:
        before = here.session().identity
        answer = await session.request("identity.renew", {"csr": here.held().csr_pem})
        here.authority.revocations.revoke(Selector.serial(int(serial_in(answer), 16)), "a test")
        with pytest.raises(ApplicationError, match="revoked"):
            await session.request("identity.stored", {"serial": serial_in(answer)})
        assert here.session().identity == before


@pytest.mark.row("A-19")
async def test_a_renewal_that_is_revoked_while_it_is_stored_does_not_become_the_sessions(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last moment counts: whoever revokes goes through the sessions once, and finds the old certificate there."""
    async with lab(tmp_path, home) as here, here.app() as session:
        before = here.session().identity
        answer = await session.request("identity.renew", {"csr": here.held().csr_pem})
        renewed = here.containers.renewed

        def revoke_meanwhile(*arguments: Any) -> None:
            renewed(*arguments)
            here.authority.revocations.revoke(Selector.serial(int(serial_in(answer), 16)), "a test")

        monkeypatch.setattr(here.upkeep.plugin._containers, "renewed", revoke_meanwhile)
        with pytest.raises(ApplicationError, match="revoked"):
            await session.request("identity.stored", {"serial": serial_in(answer)})
        assert here.session().identity == before


@pytest.mark.row("A-16", "A-22")
async def test_a_session_that_outlives_its_ca_or_its_certificate_renews_nothing(tmp_path: Path, home: Path) -> None:
    async with lab(tmp_path, home) as here, here.app():
        authority, identity = here.authority, here.session().identity
        checked = authority.check_request(here.held().csr_pem)
        later = attrs.evolve(identity, not_after=identity.not_after - timedelta(days=60))
        with pytest.raises(AuthorityError, match="ended on"):
            authority.renew(later, checked)
        authority.prepare()
        authority.switch()
        authority.finish([identity.principal])
        with pytest.raises(AuthorityError, match="replaced by a new one"):
            authority.renew(identity, checked)


@pytest.mark.row("A-26")
async def test_only_what_was_handed_out_to_this_session_can_be_stored_and_once(tmp_path: Path, home: Path) -> None:
    async with lab(tmp_path, home) as here, here.app() as session, here.app("other") as other:
        answer = await session.request("identity.renew", {"csr": here.held().csr_pem})
        serial = serial_in(answer)
        for asker, bad in ((other, serial), (session, "0"), (session, "zz"), (session, "f" * 41), (session, "")):
            with pytest.raises(ApplicationError, match="was handed out to this session"):
                await asker.request("identity.stored", {"serial": bad})
        await session.request("identity.stored", {"serial": serial})
        with pytest.raises(ApplicationError, match="was handed out to this session"):
            await session.request("identity.stored", {"serial": serial})


@pytest.mark.row("A-10")
async def test_a_client_renews_by_itself_a_few_times_and_then_waits(tmp_path: Path, home: Path) -> None:
    async with lab(tmp_path, home) as here, here.app() as session:
        csr, answers = here.held().csr_pem, []
        for _ in range(int(RATE.burst)):
            answers.append(await session.request("identity.renew", {"csr": csr}))
        with pytest.raises(RequestFailed, match="Ask again in"):
            await session.request("identity.renew", {"csr": csr})
        with pytest.raises(ApplicationError):
            await session.request("identity.stored", {"serial": serial_in(answers[0])})
        await session.request("identity.stored", {"serial": serial_in(answers[-MAX_WAITING])})
        here.authority.prepare()
        here.authority.switch()
        spreads = await here.pairs()  # none where the session is being seen to already
        assert [spread.reason for spread in spreads if spread.reason] == [], "what we ask for is not counted"
        await here.until(lambda: here.session().identity.generation == here.authority.generation)
        assert f"{here.session().identity.serial:x}" == serial_of(here.held())


@pytest.mark.row("A-59")
async def test_a_session_below_another_renews_nothing(tmp_path: Path, home: Path) -> None:
    """It has no certificate: it would be given one of the session above it."""
    async with lab(tmp_path, home) as here, here.app():
        root = here.session()
        child = Session("c9", root.identity, Claims(), root.connection, root._router, root.since, parent=root)
        plugin = IdentityPlugin(here.authority, here.containers, lambda session_id: child, lambda: NOBODY)
        with pytest.raises(Rejected, match="opened with a token"):
            await plugin.renew(root.seat(root._router.hosts["identity"]).app, here.held().csr_pem)
        assert len(here.authority.certificates("org.example.demo")) == 1


class Nobody:
    def renewed(self, session: Session, identity: Identity) -> None:
        raise AssertionError("unreachable")


NOBODY = Nobody()
