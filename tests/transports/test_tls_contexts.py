import contextlib
import gc
import os
import ssl
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest
from cryptography.hazmat.primitives import serialization

from rsocket_broker.credentials import Credentials
from rsocket_broker.errors import AuthorityError
from rsocket_broker.transports import tls_contexts
from rsocket_broker.transports.client_hello import ClientHello
from rsocket_broker.transports.tls_contexts import (
    CONTEXT_LIFE,
    MAX_CACHED,
    ServerContexts,
    client_context,
    remembers,
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


def session_of(theirs: TlsLine) -> ssl.SSLSession:
    """What the client may resume with. Under TLS 1.3 it comes behind the handshake, and is read like data."""
    with contextlib.suppress(ssl.SSLWantReadError):
        theirs.object.read(1)
    session = theirs.object.session
    assert session is not None
    return session


def without_tickets(alpn: tuple[str, ...] = ()) -> ssl.SSLContext:
    """A client that resumes by the id of its session, which the server has to remember."""
    client = client_context(shared_ca().client(), alpn)
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    client.options |= ssl.OP_NO_TICKET
    return client


Pick = Callable[[ServerContexts, ClientHello], ssl.SSLContext]
KINDS = [
    pytest.param(ServerContexts.pick, OTHER, client_context, id="TLS 1.3"),
    pytest.param(ServerContexts.pick, FLIPPER, client_context, id="TLS 1.2"),
    pytest.param(ServerContexts.pick_web, OTHER, client_context, id="WebSocket"),
    pytest.param(ServerContexts.pick, FLIPPER, lambda _: without_tickets(("rs",)), id="session id"),
]


@pytest.mark.row("M-11")
@pytest.mark.parametrize(("pick", "hello", "make"), KINDS)
def test_a_session_is_resumed_with_its_certificate_and_within_its_context_only(
    pick: Pick, hello: ClientHello, make: Callable[[Credentials], ssl.SSLContext]
) -> None:
    """A resumed session is not verified again. Whoever comes too late has a full handshake, and is not refused."""
    now = 0.0
    contexts, credentials = ServerContexts(shared_ca().server(), lambda: now), shared_ca().client()
    client = make(credentials)
    ours, theirs = shake(pick(contexts, hello), client)
    certificate = ours.object.getpeercert(binary_form=True)
    now = CONTEXT_LIFE - 1
    ours, again = shake(pick(contexts, hello), client, session_of(theirs))
    assert ours.object.session_reused and ours.object.getpeercert(binary_form=True) == certificate
    now = CONTEXT_LIFE
    ours, late = shake(pick(contexts, hello), client, session_of(again))
    assert not ours.object.session_reused and ours.object.getpeercert(binary_form=True) == certificate
    assert shake(pick(contexts, hello), client, session_of(late))[0].object.session_reused


@pytest.mark.parametrize(("pick", "hello", "make"), KINDS)
def test_nothing_is_resumed_after_a_renewal(
    pick: Pick, hello: ClientHello, make: Callable[[Credentials], ssl.SSLContext]
) -> None:
    contexts, client = ServerContexts(shared_ca().server()), make(shared_ca().client())
    _, theirs = shake(pick(contexts, hello), client)
    contexts.renew()
    ours, _ = shake(pick(contexts, hello), client, session_of(theirs))
    assert not ours.object.session_reused and ours.object.getpeercert(binary_form=True)


def test_one_listener_takes_no_session_of_another() -> None:
    contexts, client = ServerContexts(shared_ca().server()), client_context(shared_ca().client(), ["rs"])
    _, theirs = shake(contexts.pick(FLIPPER), client)
    assert not shake(contexts.pick_web(FLIPPER), client, session_of(theirs))[0].object.session_reused


def test_a_context_is_kept_until_it_remembers_many_sessions() -> None:
    contexts, client = ServerContexts(shared_ca().server()), without_tickets(("rs",))
    modern, first = contexts.pick(OTHER), contexts.pick(FLIPPER)
    lines = []  # OpenSSL forgets the session of a line that ends without a goodbye
    for _ in range(MAX_CACHED):
        assert contexts.pick(FLIPPER) is first
        lines.append(shake(first, client))
    assert contexts.pick(FLIPPER) is not first
    assert contexts.pick(OTHER) is modern


RETURNING = pytest.mark.parametrize(("hello", "alpn"), [(OTHER, ()), (FLIPPER, ("rs",))], ids=["TLS 1.3", "TLS 1.2"])


class Crowd:
    """Clients that come to contexts that remember eight sessions, and lose two before that counts as too few."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, hello: ClientHello, alpn: tuple[str, ...]) -> None:
        monkeypatch.setattr(tls_contexts, "MAX_CACHED", 8)
        monkeypatch.setattr(tls_contexts, "MAX_FORGOTTEN", 2)
        self.now = 0.0
        self._contexts = ServerContexts(shared_ca().server(), lambda: self.now)
        self._hello = hello
        self._client = client_context(shared_ca().client(), alpn)
        self._lines: list[TlsLine] = []

    def pick(self) -> ssl.SSLContext:
        return self._contexts.pick(self._hello)

    def leave(self) -> None:
        """All go, and nothing of their lines is left."""
        self._lines.clear()
        gc.collect()

    def come(self, session: ssl.SSLSession | None = None) -> tuple[ssl.SSLSession, bool]:
        """One client: what it may come again with, and whether it resumed."""
        ours, theirs = shake(self.pick(), self._client, session)
        self._lines.append(ours)  # OpenSSL forgets the session of a line that ends without a goodbye
        return session_of(theirs), bool(ours.object.session_reused)


@RETURNING
def test_few_clients_that_come_again_are_remembered(
    hello: ClientHello, alpn: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    crowd = Crowd(monkeypatch, hello, alpn)
    session, _ = crowd.come()
    resumed = 0
    for _ in range(60):
        assert remembers(crowd.pick())
        assert crowd.pick().session_stats()["number"] <= 8
        session, reused = crowd.come(session)
        resumed += reused
    assert resumed >= 45


def test_clients_that_never_come_again_are_no_crowd(monkeypatch: pytest.MonkeyPatch) -> None:
    crowd = Crowd(monkeypatch, OTHER, ())
    for _ in range(40):
        assert remembers(crowd.pick())
        crowd.come()


@RETURNING
def test_a_crowd_that_comes_again_carries_its_sessions(
    hello: ClientHello, alpn: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of them resume then, and cost no memory; after the life of the context it is seen anew how many they are."""
    crowd = Crowd(monkeypatch, hello, alpn)
    sessions = [crowd.come()[0] for _ in range(20)]
    sessions = [crowd.come(session)[0] for session in sessions]
    carrying = crowd.pick()
    assert not remembers(carrying)
    sessions = [crowd.come(session)[0] for session in sessions]
    assert all(crowd.come(session)[1] for session in sessions)
    assert crowd.pick() is carrying and carrying.session_stats()["number"] == 0
    crowd.now = CONTEXT_LIFE
    assert remembers(crowd.pick())


def test_contexts_that_live_on_remember_so_much_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line that stays keeps its context, and with it the sessions of all who have left."""
    monkeypatch.setattr(tls_contexts, "MAX_REMEMBERED", 16)
    crowd = Crowd(monkeypatch, OTHER, ())
    contexts = [crowd.pick()]
    for _ in range(40):
        crowd.come()
        if crowd.pick() is not contexts[-1]:
            contexts.append(crowd.pick())
    assert [remembers(each) for each in contexts] == [True, True, False]
    assert sum(each.session_stats()["number"] for each in contexts) == 16
    contexts.clear()
    crowd.leave()
    crowd.now = CONTEXT_LIFE
    assert remembers(crowd.pick())


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


# --- revoked certificates --------------------------------------------------------------------------------------------


@pytest.mark.row("A-20", "M-11")
@pytest.mark.parametrize(("hello", "alpn"), [(OTHER, ()), (FLIPPER, ("rs",))])
def test_a_revoked_certificate_is_refused_in_the_handshake_and_told_why(
    hello: ClientHello, alpn: tuple[str, ...]
) -> None:
    ca = shared_ca()
    good, bad = ca.client(), ca.client()
    contexts = ServerContexts(ca.server(), crl_pem=ca.crl(bad))
    shake(contexts.pick(hello), client_context(good, alpn))
    with pytest.raises(ssl.SSLCertVerificationError, match="certificate revoked"):
        shake(contexts.pick(hello), client_context(bad, alpn))
    with pytest.raises(ssl.SSLCertVerificationError, match="certificate revoked"):
        shake(contexts.pick_web(hello), client_context(bad))


@pytest.mark.row("A-20", "A-14")
def test_good_clients_of_every_ca_get_in_beside_the_lists_of_all() -> None:
    one, two = ThrowawayCa("One"), ThrowawayCa("Two")
    ours = attrs.evolve(one.server(), trust_pem=one.trust_pem + two.trust_pem)
    bad = two.client()
    context = server_context(ours, ssl.TLSVersion.TLSv1_3, crl_pem=one.crl() + two.crl(bad))
    for ca in (one, two):
        shake(context, client_context(attrs.evolve(ca.client(), trust_pem=one.trust_pem)))
    with pytest.raises(ssl.SSLCertVerificationError, match="revoked"):
        shake(context, client_context(attrs.evolve(bad, trust_pem=one.trust_pem)))


@pytest.mark.parametrize("lists", ["missing", "ended", "of the future"])
def test_why_there_is_a_list_of_each_ca_that_never_ends(lists: str) -> None:
    """What OpenSSL does else: it refuses everybody."""
    one, two = ThrowawayCa("One"), ThrowawayCa("Two")
    ours = attrs.evolve(one.server(), trust_pem=one.trust_pem + two.trust_pem)
    other = {"missing": b"", "ended": two.crl(starts=-3, ends=-1), "of the future": two.crl(starts=1)}[lists]
    context = server_context(ours, ssl.TLSVersion.TLSv1_3, crl_pem=one.crl() + other)
    with pytest.raises(ssl.SSLCertVerificationError, match="CRL"):
        shake(context, client_context(attrs.evolve(two.client(), trust_pem=one.trust_pem)))


def test_the_web_has_credentials_of_its_own_where_they_are_given() -> None:
    ca, other = shared_ca(), ThrowawayCa("Other")
    contexts = ServerContexts(ca.server(), web=attrs.evolve(other.server(), trust_pem=ca.trust_pem))
    client = attrs.evolve(ca.client(), trust_pem=other.trust_pem)
    shake(contexts.pick_web(OTHER), client_context(client))
    with pytest.raises(ssl.SSLCertVerificationError):
        shake(contexts.pick(OTHER), client_context(client))


def test_a_list_that_cannot_be_read_is_said() -> None:
    with pytest.raises(AuthorityError, match="revoked certificates"):
        ServerContexts(shared_ca().server(), crl_pem=b"no list")
