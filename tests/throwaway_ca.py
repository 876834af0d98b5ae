"""A certificate authority made for one test run: keys exist in memory only, and nothing in the tree is a secret."""

import datetime
import functools
import ipaddress
from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from rsocket_broker.credentials import Credentials

DAY = datetime.timedelta(days=1)
LOOPBACK = ("localhost", "127.0.0.1", "::1")

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


class ThrowawayCa:
    """Signs whatever a test needs, wrong dates included. Two of them do not trust each other."""

    def __init__(self, name: str = "Throwaway CA", *, rsa_keys: bool = False) -> None:
        self._rsa_keys = rsa_keys
        self._key = self._new_key()
        self._name = _named(name)
        self.certificate = (
            _dated(x509.CertificateBuilder(), -1, 3650)
            .subject_name(self._name)
            .issuer_name(self._name)
            .public_key(self._key.public_key())
            .serial_number(x509.random_serial_number())
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )

    @property
    def trust_pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def server(self, names: Sequence[str] = LOOPBACK) -> Credentials:
        """A server's key and chain (leaf and CA), for names and IP addresses."""
        return self._issue("localhost", ExtendedKeyUsageOID.SERVER_AUTH, names, -1, 30)

    def client(self, app_id: str = "org.example.app", *, starts: float = -1, ends: float = 30) -> Credentials:
        """A client's key and chain. `starts` and `ends` are days from now, so `ends=-0.5` has expired."""
        return self._issue(app_id, ExtendedKeyUsageOID.CLIENT_AUTH, (), starts, ends)

    def crl(self, *revoked: Credentials, starts: float = -1, ends: float = 30) -> bytes:
        """A list of these clients as PEM. `starts` and `ends` are days from now."""
        now = datetime.datetime.now(datetime.UTC)
        builder = x509.CertificateRevocationListBuilder(self._name, now + starts * DAY, now + ends * DAY)
        for each in revoked:
            serial = x509.load_pem_x509_certificate(each.chain_pem).serial_number
            builder = builder.add_revoked_certificate(x509.RevokedCertificateBuilder(serial, now).build())
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def _issue(
        self, name: str, usage: x509.ObjectIdentifier, names: Sequence[str], starts: float, ends: float
    ) -> Credentials:
        key = self._new_key()
        authority_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        builder = (
            _dated(x509.CertificateBuilder(), starts, ends)
            .subject_name(_named(name))
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(authority_key, critical=False)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName([_general(name) for name in names]), False)
        leaf = builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        return Credentials(_pem(key), leaf + self.trust_pem, self.trust_pem)

    def _new_key(self) -> Key:
        return rsa.generate_private_key(65537, 2048) if self._rsa_keys else ec.generate_private_key(ec.SECP256R1())


@functools.cache
def shared_ca() -> ThrowawayCa:
    """One CA for all tests that need any."""
    return ThrowawayCa()


def leaf_der(credentials: Credentials) -> bytes:
    """The leaf of a chain, as it appears in `Peer.certificate`."""
    return x509.load_pem_x509_certificate(credentials.chain_pem).public_bytes(serialization.Encoding.DER)


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _dated(builder: x509.CertificateBuilder, starts: float, ends: float) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return builder.not_valid_before(now + starts * DAY).not_valid_after(now + ends * DAY)


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _pem(key: Key) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
