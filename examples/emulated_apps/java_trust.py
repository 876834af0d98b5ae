"""How the Android SDK of the WebSocket era trusts a server, and a TLS line that lets it look before it answers."""

import asyncio
import contextlib
import ssl
from collections.abc import Callable
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature

OLDEST = 30
"""Whole days since the beginning of each certificate."""
CERTIFICATES = 2
"""How many certificates a server must send: its own, and the authority's."""

HANDSHAKE, CERTIFICATE = 22, 11
ALERT_UNKNOWN = b"\x15\x03\x03\x00\x02\x02\x2e"
"""A fatal alert, certificate_unknown, as it goes out before anything is encrypted."""


class HandshakeFailed(Exception):
    """The handshake ended without a session. `by_end`: the stream ended, and nobody said why."""

    def __init__(self, why: object, *, by_end: bool = False) -> None:
        super().__init__(str(why))
        self.by_end = by_end


def check(chain: list[bytes], anchor: x509.Certificate, now: datetime) -> None:
    """Raises HandshakeFailed. `chain` is what the server sent (DER), `now` the device's time with a zone.

    The dates of the anchor itself are not looked at, nor any name of the host.
    """
    if len(chain) != CERTIFICATES:
        raise HandshakeFailed(f"Certificate chain is invalid. Invalid length: {len(chain)}")
    sent = [x509.load_der_x509_certificate(one) for one in chain]
    for one in sent:
        age = now - one.not_valid_before_utc
        if age < timedelta() or age.days > OLDEST or now > one.not_valid_after_utc:
            raise HandshakeFailed(f"Unable to accept certificate in the chain: {one.subject.rfc4514_string()}, {age}")
    try:
        for one, issuer in zip(sent, [*sent[1:], anchor], strict=True):
            one.verify_directly_issued_by(issuer)
    except (InvalidSignature, TypeError, ValueError) as error:
        raise HandshakeFailed(f"Trust anchor for certification path not found: {error}") from error


class Sniffer:
    """Finds the server's certificates in the first bytes of a TLS 1.2 handshake, where they are not encrypted."""

    def __init__(self) -> None:
        self._records = bytearray()
        self._messages = bytearray()

    def feed(self, data: bytes) -> list[bytes] | None:
        """The certificates, once they have come whole."""
        self._records += data
        while len(self._records) >= 5:
            size = int.from_bytes(self._records[3:5], "big")
            if len(self._records) < 5 + size:
                break
            if self._records[0] == HANDSHAKE:
                self._messages += self._records[5 : 5 + size]
            del self._records[: 5 + size]
        while len(self._messages) >= 4:
            size = int.from_bytes(self._messages[1:4], "big")
            if len(self._messages) < 4 + size:
                break
            body = bytes(self._messages[4 : 4 + size])
            if self._messages[0] == CERTIFICATE:
                return certificates(body)
            del self._messages[: 4 + size]
        return None


def certificates(body: bytes) -> list[bytes]:
    """The certificates in a message of that name."""
    found, at = [], 3
    while at < len(body):
        size = int.from_bytes(body[at : at + 3], "big")
        found.append(body[at + 3 : at + 3 + size])
        at += 3 + size
    return found


class TlsLine:
    """TLS 1.2 as a client, over a stream. `look` may refuse the certificates by raising HandshakeFailed."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        context: ssl.SSLContext,
        look: Callable[[list[bytes]], None] | None,
    ) -> None:
        self._reader, self._writer, self._look = reader, writer, look
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing)
        self._sniffer: Sniffer | None = Sniffer()

    async def handshake(self) -> None:
        """Raises HandshakeFailed; the line is closed then."""
        try:
            while not self._done():
                self._flush()
                await self._more()
            self._flush()
            if self._sniffer is not None and self._look is not None:
                raise HandshakeFailed(f"the certificates were not to be seen in {self._tls.version()}")
        except HandshakeFailed:
            self._writer.close()
            raise
        except ssl.SSLError as error:
            self._flush()
            self._writer.close()
            raise HandshakeFailed(error) from error
        except ConnectionError as error:
            self._writer.close()
            raise HandshakeFailed(error, by_end=True) from error

    def _done(self) -> bool:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    async def _more(self) -> None:
        data = await self._reader.read(65536)
        if not data:
            raise HandshakeFailed("the stream ended in the handshake", by_end=True)
        if self._sniffer is not None and (chain := self._sniffer.feed(data)) is not None:
            self._sniffer = None
            self._judge(chain)
        self._incoming.write(data)

    def _judge(self, chain: list[bytes]) -> None:
        try:
            if self._look is not None:
                self._look(chain)
        except HandshakeFailed:
            self._writer.write(ALERT_UNKNOWN)
            raise

    async def read(self) -> bytes:
        """Some bytes, b"" at the end."""
        while True:
            try:
                return self._tls.read(65536)
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLError:
                return b""
            try:
                data = await self._reader.read(65536)
            except ConnectionError:
                return b""
            self._incoming.write(data) if data else self._incoming.write_eof()

    def write(self, data: bytes) -> None:
        if data:
            self._tls.write(data)
            self._flush()

    def _flush(self) -> None:
        if self._outgoing.pending:
            self._writer.write(self._outgoing.read())

    async def close(self) -> None:
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()
