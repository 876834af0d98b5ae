"""TLS sessions that are resumed: what they spare, and that they let nobody in whose certificate is no longer good."""

import asyncio
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from rsocket_broker import client
from rsocket_broker.authority.inventory import Status
from rsocket_broker.authority.revocation import Selector
from rsocket_broker.broker import Broker
from rsocket_broker.moments import utc_now
from rsocket_broker.settings import ListenSettings, Settings
from tests.end_to_end.wire import REJECTED_SETUP, Line, keepalive, setup
from tests.transports.outsiders import needs_openssl

VERSIONS = {"TLS 1.3": ((), ssl.TLSVersion.TLSv1_3), "TLS 1.2": (("rs",), ssl.TLSVersion.TLSv1_2)}
version = pytest.mark.parametrize("version", VERSIONS)


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[Broker]:
    """A broker in this process, and an app that has enrolled with it, in the folder `app`."""
    listen = ListenSettings(insecure_port=0, secure_port=0, ws_secure_port=0)
    running = Broker(Settings(home=tmp_path / "home", listen=listen, adb="off"))
    try:
        await running.start()
        async with client.connect(
            app_id="com.example.app",
            app="Example",
            directory=tmp_path / "app",
            insecure_port=running.ports.insecure_port or 0,
            secure_port=running.ports.secure_port or 0,
        ):
            pass
        yield running
    finally:
        await running.stop()


class Returning:
    """An app with its certificate that comes again and again, and resumes its last session where it may."""

    def __init__(self, broker: Broker, folder: Path, version: str) -> None:
        alpn, newest = VERSIONS[version]
        self._port = broker.ports.secure_port or 0
        self._web_port = broker.ports.ws_secure_port or 0
        self._context = ssl.create_default_context(cafile=str(folder / "sonarCA.crt"))
        self._context.load_cert_chain(folder / "device.crt", folder / "privateKey.pem")
        self._context.maximum_version = newest
        if alpn:
            self._context.set_alpn_protocols(alpn)
        self._session: ssl.SSLSession | None = None

    async def come(self) -> tuple[bool, tuple[int, str] | None]:
        """Whether the TLS session was resumed, and the ERROR that answered the SETUP, or None when it was accepted."""
        return await asyncio.to_thread(self._come)

    def _come(self) -> tuple[bool, tuple[int, str] | None]:
        raw = socket.create_connection(("127.0.0.1", self._port), 10)
        with self._context.wrap_socket(raw, server_hostname="localhost", session=self._session) as tls:
            line = Line(tls)
            line.send(setup(), keepalive(b"?"))
            answer = line.next()
            assert answer is not None
            self._session = tls.session
            return bool(tls.session_reused), answer.error if answer.stream == 0 and answer.kind == 0x0B else None

    async def come_by_web(self) -> tuple[bool, int]:
        """The same on the port for WebSocket: whether the TLS session was resumed, and the status of the answer."""
        return await asyncio.to_thread(self._come_by_web)

    def _come_by_web(self) -> tuple[bool, int]:
        raw = socket.create_connection(("127.0.0.1", self._web_port), 10)
        with self._context.wrap_socket(raw, server_hostname="localhost", session=self._session) as tls:
            tls.sendall(OPENING % self._web_port)
            answer = tls.recv(4096)
            self._session = tls.session
            return bool(tls.session_reused), int(answer.split()[1])


OPENING = b"""GET /?os=Android&device=Pixel&app=Example&sdk_version=4&medium=1 HTTP/1.1\r
Host: localhost:%d\r
Upgrade: websocket\r
Connection: Upgrade\r
Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r
Sec-WebSocket-Version: 13\r
\r
"""
LET_IN = 101


@pytest.mark.row("M-11", "A-20")
@version
async def test_over_websocket_too_a_ticket_is_good_as_long_as_its_certificate_is(
    broker: Broker, tmp_path: Path, version: str
) -> None:
    """The look at the certificate holds by itself, where a context of before still takes the ticket; to revoke it
    takes the ticket away as well."""

    def have(status: Status) -> None:
        assert broker._state is not None
        with broker._state.transaction() as database:
            database.execute("UPDATE certificates SET status = ? WHERE app_id = ?", (status.value, "com.example.app"))

    app = Returning(broker, tmp_path / "app", version)
    assert [await app.come_by_web() for _ in range(3)] == [(False, LET_IN), (True, LET_IN), (True, LET_IN)]
    have(Status.SUPERSEDED)
    resumed, answer = await app.come_by_web()
    assert resumed and 400 <= answer < 500
    have(Status.ACTIVE)
    assert await app.come_by_web() == (True, LET_IN)
    assert broker._revoker is not None
    await broker._revoker.revoke(Selector.app("com.example.app"), "lost")
    for _ in range(2):
        with pytest.raises(ssl.SSLError, match=r"(?i)revoked"):
            await app.come_by_web()


@pytest.mark.row("M-11")
@version
async def test_a_client_that_returns_resumes_and_is_who_it_was(broker: Broker, tmp_path: Path, version: str) -> None:
    app = Returning(broker, tmp_path / "app", version)
    assert await app.come() == (False, None)
    assert await app.come() == (True, None)
    assert await app.come() == (True, None)


@version
async def test_a_certificate_that_has_ended_gets_no_session_by_resuming(
    broker: Broker, tmp_path: Path, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = Returning(broker, tmp_path / "app", version)
    await app.come()
    authority = broker._authority
    assert authority is not None
    (issued,) = authority.certificates("com.example.app")
    ours = authority.serving()
    monkeypatch.setattr(authority, "_clock", lambda: issued.not_after + timedelta(seconds=1))
    monkeypatch.setattr(authority, "serving", lambda: ours)  # which would be made anew by then
    resumed, error = await app.come()
    assert resumed, "or this test shows nothing"
    assert error is not None and error[0] == REJECTED_SETUP and "ended on" in error[1]
    monkeypatch.setattr(authority, "_clock", utc_now)
    assert (await app.come())[1] is None


@version
async def test_a_certificate_that_was_withdrawn_gets_no_session_by_resuming(
    broker: Broker, tmp_path: Path, version: str
) -> None:
    """The check of the SETUP holds by itself; ending the contexts takes the ticket away besides."""
    app = Returning(broker, tmp_path / "app", version)
    await app.come()
    assert broker._state is not None
    with broker._state.transaction() as database:
        database.execute(
            "UPDATE certificates SET status = ? WHERE app_id = ?", (Status.SUPERSEDED.value, "com.example.app")
        )
    resumed, error = await app.come()
    assert resumed and error is not None and error[0] == REJECTED_SETUP
    assert broker.contexts is not None
    broker.contexts.renew()
    resumed, error = await app.come()
    assert not resumed and error is not None and error[0] == REJECTED_SETUP


@version
async def test_after_a_restart_a_session_of_before_is_a_full_handshake(
    broker: Broker, tmp_path: Path, version: str
) -> None:
    app = Returning(broker, tmp_path / "app", version)
    await app.come()
    port = broker.ports.secure_port or 0
    await broker.stop()
    again = Broker(
        Settings(home=tmp_path / "home", listen=ListenSettings(insecure_port=0, secure_port=port), adb="off")
    )
    try:
        await again.start()
        assert await app.come() == (False, None)
        assert await app.come() == (True, None)
    finally:
        await again.stop()


@needs_openssl
@pytest.mark.parametrize("option", ["-tls1_3", "-tls1_2"])
async def test_openssl_resumes_too_and_may_send_nothing_early(broker: Broker, tmp_path: Path, option: str) -> None:
    """0-RTT data could be sent again by whoever recorded them, so no ticket of ours allows any."""
    folder, kept = tmp_path / "app", tmp_path / "session.pem"
    files = ["-cert", f"{folder}/device.crt", "-key", f"{folder}/privateKey.pem", "-CAfile", f"{folder}/sonarCA.crt"]
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{broker.ports.secure_port}", option, "-ign_eof", *files]

    def shake(*more: str) -> str:
        """Ends with the connection, since this is no frame of RSocket."""
        done = subprocess.run([*command, *more], input=b"\0\0\1x", capture_output=True, timeout=20, check=False)
        return done.stdout.decode("latin-1")

    assert "\nNew, TLS" in await asyncio.to_thread(shake, "-sess_out", str(kept))
    printed = await asyncio.to_thread(shake, "-sess_in", str(kept))
    assert "\nReused, TLS" in printed
    assert "Max Early Data: 0" in printed or option == "-tls1_2"
