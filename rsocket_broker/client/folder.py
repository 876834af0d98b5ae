"""The app's own folder: the only place whose certificates are trusted.

    app.csr  privateKey.pem           written here, by the app
    sonarCA.crt  device.crt           written by the broker; whoever can write here is trusted, and nobody else
    connection_config.json            written here, from the broker's answer: the exchange was completed

The folder has mode 0700 and belongs to the user; links, foreign files and files that others may change do not count.
"""

import contextlib
import itertools
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path

import attrs
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from rsocket_broker.client.profile import MEDIUM_FILE_SYSTEM, MEDIUM_PAIRING, MEDIUM_UPLOAD
from rsocket_broker.credentials import (
    CA_FILE,
    CERTIFICATE_FILE,
    CONFIG_FILE,
    CSR_FILE,
    KEY_FILE,
    Credentials,
    SigningRequest,
    make_signing_request,
)
from rsocket_broker.errors import AuthorityError, HomeError
from rsocket_broker.files import PRIVATE_FILE, ensure_private_directory, read_owned, read_private, write_private
from rsocket_broker.jsontext import JsonError, dump, parse_object
from rsocket_broker.nonce_proof import FILE_NAME, NONCE_BYTES, sign

EXCHANGE_FILES = (CONFIG_FILE, CERTIFICATE_FILE, CA_FILE, CSR_FILE, KEY_FILE, "device.p12", "certificates.enc")
"""Everything that an exchange leaves in the folder, whichever SDK did it; all of it goes when a new one begins.
The configuration first: without it the rest counts as nothing, wherever we are stopped."""

_WHOLE = (KEY_FILE, CSR_FILE, CA_FILE, CERTIFICATE_FILE, CONFIG_FILE)

_MEDIUMS = (MEDIUM_FILE_SYSTEM, MEDIUM_UPLOAD, MEDIUM_PAIRING)
"""Whichever it was: what lies here is as good, and is renewed in the same way."""

PUBLIC_FILE = 0o644
"""Mode of the two certificates, as brokers write them too."""

MAX_ANCHORS = 8
"""A broker that rotates has two."""


@attrs.frozen(slots=True)
class Enrolled:
    """A completed exchange, read back from the folder and checked."""

    device_id: str
    csr_pem: str
    credentials: Credentials


def _absolute(path: str | PathLike[str]) -> Path:
    return Path(path).absolute()


@attrs.frozen(slots=True)
class AppFolder:
    """The folder of one app. Everything here blocks: call it off the event loop."""

    path: Path = attrs.field(converter=_absolute)

    @property
    def destination(self) -> str:
        """The folder as it is named to a broker: absolute, with a separator at its end."""
        return f"{self.path}/"

    def load(self) -> Enrolled:
        """The result of the last exchange.

        Raises HomeError for a missing or unsafe file, AuthorityError for files that do not belong together.
        """
        device_id = _device_id(read_private(self.path / CONFIG_FILE))
        credentials = Credentials.load(self.path)
        _check_issuer(credentials)
        csr_pem = read_owned(self.path / CSR_FILE).decode("ascii", "replace")
        if not csr_pem.strip():
            raise AuthorityError(f"{self.path / CSR_FILE} is empty. Enrol again.")
        return Enrolled(device_id, csr_pem, credentials)

    def begin(self, app_id: str) -> str:
        """Throws away all of the last exchange and makes a new key and request; returns the request (PEM).

        Raises HomeError when the folder is not ours alone, or cannot be written.
        """
        ensure_private_directory(self.path)
        self._clear()
        request = make_signing_request(app_id, wants_nonce=True)
        request.save(self.path)
        return request.csr_pem.decode()

    def answer_nonce(self, name: str, csr_pem: str) -> str:
        """The answer to the nonce that a broker has put here as `name`; no other file is ever read for it.

        Raises HomeError for another name, or when there is no such file of ours; AuthorityError for what is no nonce.
        """
        if not FILE_NAME.fullmatch(name):
            raise HomeError("the broker has asked for a file that is no nonce.")
        nonce = read_private(self.path / name, 4 * NONCE_BYTES).strip()
        try:
            return sign(read_private(self.path / KEY_FILE), bytes.fromhex(nonce.decode("ascii")), csr_pem)
        except ValueError as error:
            raise AuthorityError(f"{self.path / name} holds no nonce.") from error

    def held(self) -> dict[str, bytes]:
        """The files of the last exchange, for `put_back`; none where they do not make a whole."""
        try:
            self.load()
            return {name: read_owned(self.path / name) for name in _WHOLE}
        except (HomeError, AuthorityError):
            return {}

    def put_back(self, held: Mapping[str, bytes]) -> None:
        """Undoes `begin`: what `held` gave is there again, the configuration last. Raises HomeError."""
        self._clear()
        for name in _WHOLE:
            if name in held:
                public = name in (CA_FILE, CERTIFICATE_FILE)
                write_private(self.path / name, held[name], PUBLIC_FILE if public else PRIVATE_FILE)

    def complete(self, device_id: str) -> Enrolled:
        """Notes the broker's answer, and gives back what it has put here. Raises as `load` does."""
        write_private(self.path / CONFIG_FILE, dump({"deviceId": device_id, "medium": MEDIUM_FILE_SYSTEM}))
        try:
            return self.load()
        except (HomeError, AuthorityError):
            (self.path / CONFIG_FILE).unlink(missing_ok=True)
            raise

    def adopt(
        self, request: SigningRequest, certificate_pem: bytes, trust_pem: bytes, device_id: str, medium: int
    ) -> Enrolled:
        """Puts a new key and request, and what was issued for them by another medium than files, in the place of all
        that lies here.

        Raises AuthorityError, and changes nothing, when they do not belong together; HomeError when the folder is not
        ours alone, or cannot be written.
        """
        made = Credentials(request.key_pem, certificate_pem, trust_pem)
        _check_anchors(trust_pem)
        _check_renewal(made)
        ensure_private_directory(self.path)
        self._clear()
        request.save(self.path)
        write_private(self.path / CA_FILE, trust_pem, PUBLIC_FILE)
        write_private(self.path / CERTIFICATE_FILE, certificate_pem, PUBLIC_FILE)
        write_private(self.path / CONFIG_FILE, dump({"deviceId": device_id, "medium": medium}))
        return self.load()

    def store_trust(self, trust_pem: bytes) -> Enrolled:
        """Puts these anchors in the place of the ones there, and gives back what the folder holds then.

        Raises AuthorityError, and changes nothing, for what is no set of anchors, or one that our own certificate was
        not issued by: with it the folder would hold half a pair. HomeError when it cannot be written.
        """
        held = self.load()
        _check_anchors(trust_pem)
        _check_issuer(attrs.evolve(held.credentials, trust_pem=trust_pem))
        self._write(CA_FILE, trust_pem)
        return self.load()

    def store_renewal(self, certificate_pem: bytes, trust_pem: bytes) -> Enrolled:
        """Puts a renewed certificate and its anchors in their places, and gives back what the folder holds then.

        At every moment the certificate that lies here was issued by an anchor that lies here, so that a crash leaves a
        pair to connect with. Raises AuthorityError, and changes nothing, when they do not fit each other or our key;
        HomeError when they cannot be written.
        """
        held = self.load()
        renewed = Credentials(held.credentials.key_pem, certificate_pem, trust_pem)
        _check_anchors(trust_pem)
        _check_renewal(renewed)
        if not _is_issued(held.credentials.chain_pem, trust_pem):
            self._write(CA_FILE, trust_pem + held.credentials.trust_pem)
        else:
            self._write(CA_FILE, trust_pem)
        self._write(CERTIFICATE_FILE, certificate_pem)
        self._write(CA_FILE, trust_pem)
        return self.load()

    def _write(self, name: str, content: bytes) -> None:
        path = self.path / name
        try:
            if read_owned(path) == content:
                return
        except HomeError:  # whatever is wrong with it goes with it
            pass
        write_private(path, content, PUBLIC_FILE)

    def _clear(self) -> None:
        for name in EXCHANGE_FILES:
            try:
                (self.path / name).unlink(missing_ok=True)  # a link goes, not what it points to
            except OSError as error:
                raise HomeError(f"{self.path / name} cannot be removed: {error.strerror}.") from error
        for path in self.path.glob("nonce-*"):  # of a broker that has not come back since
            if FILE_NAME.fullmatch(path.name):
                with contextlib.suppress(OSError):
                    path.unlink()


def _device_id(config: bytes) -> str:
    try:
        fields = parse_object(config)
    except JsonError as error:
        raise AuthorityError(f"{CONFIG_FILE} is damaged: {error}. Enrol again.") from error
    device_id = fields.get("deviceId")
    if fields.get("medium") not in _MEDIUMS or not isinstance(device_id, str):
        raise AuthorityError(f"{CONFIG_FILE} tells of an exchange by other means. Enrol again.")
    return device_id


def _check_issuer(credentials: Credentials) -> None:
    """The broker's certificate for us must come from a CA that it put beside it: else we were given half a pair."""
    if not _is_issued(credentials.chain_pem, credentials.trust_pem):
        raise AuthorityError(f"{CERTIFICATE_FILE} was not issued by the authority in {CA_FILE}. Enrol again.")


def _is_issued(chain_pem: bytes, trust_pem: bytes) -> bool:
    """Whether one of the anchors has issued the certificate, or has issued what stands behind it in its chain."""
    chain = x509.load_pem_x509_certificates(chain_pem)
    return any(_leads_to(chain, anchor) for anchor in x509.load_pem_x509_certificates(trust_pem))


def _leads_to(chain: Sequence[x509.Certificate], anchor: x509.Certificate) -> bool:
    for certificate, issuer in itertools.zip_longest(chain, chain[1:], fillvalue=anchor):
        if _was_issued_by(certificate, anchor):
            return True
        if not _was_issued_by(certificate, issuer):
            return False
    return False


def _was_issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    with contextlib.suppress(ValueError, TypeError, InvalidSignature):
        certificate.verify_directly_issued_by(issuer)
        return True
    return False


def _check_anchors(trust_pem: bytes) -> None:
    """Raises AuthorityError for what is not a few CA certificates."""
    try:
        anchors = x509.load_pem_x509_certificates(trust_pem)
        are_authorities = all(
            anchor.extensions.get_extension_for_class(x509.BasicConstraints).value.ca for anchor in anchors
        )
    except (ValueError, x509.ExtensionNotFound) as error:
        raise AuthorityError("What the broker sent as its authority is no CA certificate.") from error
    if not are_authorities or len(anchors) > MAX_ANCHORS:
        raise AuthorityError(f"What the broker sent as its authority is not 1 to {MAX_ANCHORS} CA certificates.")


def _check_renewal(renewed: Credentials) -> None:
    """Raises AuthorityError unless the certificate is for our key, and comes from its anchors."""
    try:
        leaf = x509.load_pem_x509_certificates(renewed.chain_pem)[0]
    except ValueError as error:
        raise AuthorityError("What the broker sent as a renewed certificate is none.") from error
    key = load_pem_private_key(renewed.key_pem, None)
    if key.public_key() != leaf.public_key():
        raise AuthorityError("The renewed certificate is for another key than ours.")
    _check_issuer(renewed)
