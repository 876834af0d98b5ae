import os
import ssl
import tempfile
import threading
from pathlib import Path

import attrs
import pytest
from cryptography.hazmat.primitives import serialization

from rsocket_broker.errors import AuthorityError
from rsocket_broker.transports.client_hello import ClientHello
from rsocket_broker.transports.tls_contexts import (
    CONTEXT_LIFE,
    CONTEXT_USES,
    ServerContexts,
    client_context,
    server_context,
)
from rsocket_broker.transports.tls_line import TlsLine
from tests.throwaway_ca import ThrowawayCa, leaf_der, shared_ca

FLIPPER = ClientHello("localhost", ("rs",), (0x0304, 0x0303))
OTHER = ClientHello("localhost", (), (0x0304, 0x0303))


def shake(
    server: ssl.SSLContext, client: ssl.SSLContext, session: ssl.SSLSession | None = None
) -> tuple[TlsLine, TlsLine]:
    """Both lines after a handshake in memory."""
    ours = TlsLine(server, server_side=True)
    theirs = TlsLine(client, server_side=False, server_name="localhost")
    if session is not None:
        theirs.object.session = session
    waiting, done = b"", False
    while not done:
        theirs.handshake(waiting)
        done = ours.handshake(theirs.outgoing.read())
        waiting = ours.outgoing.read()
    theirs.handshake(waiting)
    return ours, theirs


@pytest.mark.row("M-11")
@pytest.mark.parametrize(("hello", "alpn", "version"), [(OTHER, (), "TLSv1.3"), (FLIPPER, ("rs",), "TLSv1.2")])
def test_the_offer_decides_the_newest_version(hello: ClientHello, alpn: tuple[str, ...], version: str) -> None:
    client = shared_ca().client()
    contexts = ServerContexts(shared_ca().server())
    ours, theirs = shake(contexts.pick(hello), client_context(client, alpn))
    assert ours.object.version() == theirs.object.version() == version
    assert ours.object.selected_alpn_protocol() == (alpn[0] if alpn else None)
    assert ours.object.getpeercert(binary_form=True) == leaf_der(client)


@pytest.mark.row("M-11")
def test_a_client_that_stops_at_1_2_is_served() -> None:
    client = client_context(shared_ca().client())
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    ours, _ = shake(ServerContexts(shared_ca().server()).pick(OTHER), client)
    assert ours.object.version() == "TLSv1.2"


def test_an_unknown_application_protocol_is_not_selected() -> None:
    ours, _ = shake(ServerContexts(shared_ca().server()).pick(OTHER), client_context(shared_ca().client(), ["h2"]))
    assert ours.object.selected_alpn_protocol() is None


def test_leaf_and_ca_are_both_sent() -> None:
    """Android's WebSocket SDK takes a chain of two certificates and no other."""
    server, client = shared_ca().server(), client_context(shared_ca().client())
    client.maximum_version = ssl.TLSVersion.TLSv1_2  # whose certificates are not encrypted
    ours = TlsLine(server_context(server, ssl.TLSVersion.TLSv1_2), server_side=True)
    theirs = TlsLine(client, server_side=False, server_name="localhost")
    theirs.handshake(b"")
    ours.handshake(theirs.outgoing.read())
    leaf, ca = leaf_der(server), shared_ca().certificate.public_bytes(serialization.Encoding.DER)
    assert len(leaf).to_bytes(3) + leaf + len(ca).to_bytes(3) + ca in ours.outgoing.read()


def test_contexts_are_replaced_after_a_time_and_after_many_uses() -> None:
    now = 0.0
    contexts = ServerContexts(shared_ca().server(), lambda: now)
    first = contexts.pick(OTHER)
    assert contexts.pick(OTHER) is first
    now = CONTEXT_LIFE
    second = contexts.pick(OTHER)
    assert second is not first
    picked = {id(contexts.pick(OTHER)) for _ in range(CONTEXT_USES - 1)}
    assert picked == {id(second)}
    assert contexts.pick(OTHER) is not second
    assert contexts.pick(FLIPPER) is not contexts.pick(OTHER)


@pytest.mark.row("M-11")
def test_a_session_cannot_be_resumed_when_its_context_has_gone() -> None:
    """A resumed session is not verified again, so it must not outlive the minute."""
    now = 0.0
    contexts = ServerContexts(shared_ca().server(), lambda: now)
    client = client_context(shared_ca().client(), ["rs"])
    _, theirs = shake(contexts.pick(FLIPPER), client)
    session = theirs.object.session
    now = CONTEXT_LIFE - 1
    assert shake(contexts.pick(FLIPPER), client, session)[0].object.session_reused, "or this test shows nothing"
    now = CONTEXT_LIFE
    ours, _ = shake(contexts.pick(FLIPPER), client, session)
    assert not ours.object.session_reused
    assert ours.object.getpeercert(binary_form=True)


def test_no_ticket_is_given_under_1_3() -> None:
    _, theirs = shake(ServerContexts(shared_ca().server()).pick(OTHER), client_context(shared_ca().client()))
    session = theirs.object.session
    assert session is None or not session.has_ticket


def test_contexts_may_be_picked_from_any_thread() -> None:
    contexts = ServerContexts(shared_ca().server())
    picked: list[ssl.SSLContext] = []
    threads = [threading.Thread(target=lambda: picked.append(contexts.pick(FLIPPER))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(picked) == 8 and len({id(context) for context in picked}) == 1


@pytest.mark.parametrize("part", ["key_pem", "chain_pem", "trust_pem"])
@pytest.mark.parametrize("content", [b"", b"no PEM", b"\xff\xfe"])
def test_credentials_that_do_not_fit_are_refused(part: str, content: bytes) -> None:
    broken = attrs.evolve(shared_ca().server(), **{part: content})
    with pytest.raises(AuthorityError):
        ServerContexts(broken)
    with pytest.raises(AuthorityError):
        client_context(broken)


def test_a_key_of_another_certificate_is_refused() -> None:
    with pytest.raises(AuthorityError):
        ServerContexts(attrs.evolve(shared_ca().server(), key_pem=shared_ca().server().key_pem))


def test_where_files_need_names_the_key_is_private_and_soon_gone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delattr(os, "memfd_create", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    seen: list[int] = []
    real = ssl.SSLContext.load_cert_chain

    def load(self: ssl.SSLContext, path: str) -> None:
        seen.extend((Path(path).stat().st_mode & 0o777, Path(path).parent.stat().st_mode & 0o777))
        real(self, path)

    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", load)
    shake(server_context(shared_ca().server(), ssl.TLSVersion.TLSv1_3), client_context(shared_ca().client()))
    assert seen == [0o600, 0o700] * 2
    assert list(tmp_path.iterdir()) == []


def test_only_the_deployed_ca_is_trusted() -> None:
    stranger = ThrowawayCa("Another CA")
    with pytest.raises(ssl.SSLCertVerificationError):
        shake(server_context(stranger.server(), ssl.TLSVersion.TLSv1_3), client_context(shared_ca().client()))
    context = client_context(shared_ca().client())
    assert context.cert_store_stats()["x509_ca"] == 1
    assert context.check_hostname and context.verify_mode is ssl.CERT_REQUIRED
