"""What the next handshake is made with, after each change of what the authority serves."""

import ssl
from datetime import timedelta
from pathlib import Path

import attrs
import pytest

from rsocket_broker.authority import Authority
from rsocket_broker.authority.revocation import Selector
from rsocket_broker.credentials import Credentials, make_signing_request
from rsocket_broker.identity import Principal, Proof
from rsocket_broker.lifecycle.contexts import CurrentContexts
from rsocket_broker.moments import utc_now
from rsocket_broker.state import STATE_FILE, State
from rsocket_broker.transports.client_hello import ClientHello
from rsocket_broker.transports.tls_contexts import client_context
from tests.transports.test_tls_contexts import shake

HELLO = ClientHello("localhost", (), (0x0304, 0x0303))
WHO = Principal("org.example.app", "d1", Proof.ADB)


def enrol(authority: Authority) -> tuple[int, Credentials]:
    made = make_signing_request(WHO.app_id)
    issued = authority.issue(authority.check_request(made.csr_pem), WHO)
    return issued.serial, Credentials(made.key_pem, issued.certificate_pem, authority.trust_pem)


@pytest.mark.row("A-20")
def test_a_revocation_counts_from_the_next_handshake_on(tmp_path: Path) -> None:
    with State.open(tmp_path / "home" / STATE_FILE) as state:
        authority = Authority.open(tmp_path / "home", state)
        contexts = CurrentContexts(authority)
        serial, lost = enrol(authority)
        _, kept = enrol(authority)
        before = contexts.pick(HELLO)
        _, theirs = shake(before, client_context(lost))
        authority.revocations.revoke(Selector.serial(serial))
        assert contexts.pick(HELLO) is before, "the authority has not been told"
        authority.changed()
        contexts.prepare()
        after = contexts.pick(HELLO)
        assert after is not before and after is contexts.pick(HELLO)
        shake(after, client_context(kept))
        for pick in (contexts.pick, contexts.pick_web):
            with pytest.raises(ssl.SSLCertVerificationError, match="revoked"):
                shake(pick(HELLO), client_context(lost))
            with pytest.raises(ssl.SSLCertVerificationError, match="revoked"):
                shake(pick(HELLO), theirs.object.context, theirs.object.session)


def test_a_new_server_certificate_is_used_by_the_next_handshake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with State.open(tmp_path / "home" / STATE_FILE) as state:
        authority = Authority.open(tmp_path / "home", state)
        contexts = CurrentContexts(authority)
        first, serving = contexts.pick(HELLO), authority.serving()
        assert contexts.pick(HELLO) is first
        monkeypatch.setattr(authority, "_clock", lambda: utc_now() + timedelta(days=25))
        assert authority.serving() is not serving
        assert contexts.pick(HELLO) is not first


def test_sessions_of_tls_are_ended_on_demand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with State.open(tmp_path / "home" / STATE_FILE) as state:
        authority = Authority.open(tmp_path / "home", state)
        contexts = CurrentContexts(authority)
        first = contexts.pick(HELLO)
        contexts.renew()
        assert contexts.pick(HELLO) is not first
        other = attrs.evolve(authority.serving(), crl_pem=b"")
        monkeypatch.setattr(authority, "serving", lambda: other)
        again = contexts.pick(HELLO)
        assert again is contexts.pick(HELLO)
