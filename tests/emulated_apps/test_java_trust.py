"""The check of a server as Android's SDK makes it, by itself and in real handshakes."""

import asyncio
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from emulated_apps.java_trust import HandshakeFailed, TlsLine, check
from tests.throwaway_ca import ThrowawayCa

CA, OTHER = ThrowawayCa("One"), ThrowawayCa("Two")
LEAF, ROOT = x509.load_pem_x509_certificates(CA.server().chain_pem)
CHAIN = [one.public_bytes(Encoding.DER) for one in (LEAF, ROOT)]
BEGIN = max(LEAF.not_valid_before_utc, ROOT.not_valid_before_utc)
DAY = timedelta(days=1)


def test_a_chain_of_two_is_trusted_for_thirty_whole_days() -> None:
    """The authority's begins with the leaf's, within a second; the leaf ends before it is thirty days old."""
    check(CHAIN, ROOT, BEGIN)
    check(CHAIN, ROOT, BEGIN + 29 * DAY)
    for now in (BEGIN - 2 * DAY, BEGIN + 31 * DAY + timedelta(seconds=5)):
        with pytest.raises(HandshakeFailed, match="Unable to accept certificate in the chain"):
            check(CHAIN, ROOT, now)


@pytest.mark.parametrize("chain", [[], CHAIN[:1], [*CHAIN, CHAIN[1]]], ids=len)
def test_any_other_number_of_certificates_is_refused(chain: list[bytes]) -> None:
    with pytest.raises(HandshakeFailed, match=f"Invalid length: {len(chain)}"):
        check(chain, ROOT, BEGIN)


def test_the_path_must_end_at_the_anchor() -> None:
    foreign = x509.load_pem_x509_certificates(OTHER.server().chain_pem)[0].public_bytes(Encoding.DER)
    for chain, anchor in ((CHAIN, OTHER.certificate), ([foreign, CHAIN[1]], ROOT)):
        with pytest.raises(HandshakeFailed, match="Trust anchor"):
            check(chain, anchor, BEGIN + DAY)


async def handshake(
    folder: Path, anchor: x509.Certificate, version: ssl.TLSVersion
) -> tuple[str, list[BaseException | None]]:
    """What came of it on our side, and how it looked to the server."""
    (folder / "chain.pem").write_bytes(CA.server().chain_pem)
    server = CA.server()
    (folder / "chain.pem").write_bytes(server.chain_pem)
    (folder / "key.pem").write_bytes(server.key_pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "chain.pem", folder / "key.pem")
    context.minimum_version = context.maximum_version = version
    seen: list[BaseException | None] = []

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await writer.start_tls(context)
            seen.append(None)
            writer.write(b"k" + await reader.read(100))
        except (ssl.SSLError, ConnectionError) as error:
            seen.append(error)
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as listener:
        mine = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        mine.check_hostname, mine.verify_mode = False, ssl.CERT_NONE
        streams = await asyncio.open_connection(*listener.sockets[0].getsockname())
        line = TlsLine(*streams, mine, lambda chain: check(chain, anchor, datetime.now(UTC)))
        try:
            await line.handshake()
            line.write(b"hello")
            told = (await line.read()).decode()
            assert await line.read() == b""
        except HandshakeFailed as error:
            told = str(error)
        await line.close()
        async with asyncio.timeout(10):
            while not seen:
                await asyncio.sleep(0.01)
    return told, seen


async def test_a_server_that_is_trusted(tmp_path: Path) -> None:
    told, seen = await handshake(tmp_path, ROOT, ssl.TLSVersion.TLSv1_2)
    assert (told, seen) == ("khello", [None])


async def test_a_server_that_is_not_is_told_so_in_the_handshake(tmp_path: Path) -> None:
    told, (seen,) = await handshake(tmp_path, OTHER.certificate, ssl.TLSVersion.TLSv1_2)
    assert "Trust anchor" in told
    assert "CERTIFICATE_UNKNOWN" in str(seen)


async def test_what_cannot_be_looked_at_is_refused(tmp_path: Path) -> None:
    told, _ = await handshake(tmp_path, ROOT, ssl.TLSVersion.TLSv1_3)
    assert told == "the certificates were not to be seen in TLSv1.3"
