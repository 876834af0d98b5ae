"""The app's own folder: the only place whose certificates are trusted.

    app.csr  privateKey.pem           written here, by the app
    sonarCA.crt  device.crt           written by the broker; whoever can write here is trusted, and nobody else
    connection_config.json            written here, from the broker's answer: the exchange was completed

The folder has mode 0700 and belongs to the user; links, foreign files and files that others may change do not count.
"""

import contextlib
from os import PathLike
from pathlib import Path

import attrs
from cryptography import x509
from cryptography.exceptions import InvalidSignature

from rsocket_broker.client.profile import MEDIUM_FILE_SYSTEM
from rsocket_broker.credentials import (
    CA_FILE,
    CERTIFICATE_FILE,
    CONFIG_FILE,
    CSR_FILE,
    KEY_FILE,
    Credentials,
    make_signing_request,
)
from rsocket_broker.errors import AuthorityError, HomeError
from rsocket_broker.files import ensure_private_directory, read_owned, read_private, write_private
from rsocket_broker.jsontext import JsonError, dump, parse_object

EXCHANGE_FILES = (CONFIG_FILE, CERTIFICATE_FILE, CA_FILE, CSR_FILE, KEY_FILE, "device.p12", "certificates.enc")
"""Everything that an exchange leaves in the folder, whichever SDK did it; all of it goes when a new one begins.
The configuration first: without it the rest counts as nothing, wherever we are stopped."""


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
        request = make_signing_request(app_id)
        request.save(self.path)
        return request.csr_pem.decode()

    def complete(self, device_id: str) -> Enrolled:
        """Notes the broker's answer, and gives back what it has put here. Raises as `load` does."""
        write_private(self.path / CONFIG_FILE, dump({"deviceId": device_id, "medium": MEDIUM_FILE_SYSTEM}))
        try:
            return self.load()
        except (HomeError, AuthorityError):
            (self.path / CONFIG_FILE).unlink(missing_ok=True)
            raise

    def _clear(self) -> None:
        for name in EXCHANGE_FILES:
            try:
                (self.path / name).unlink(missing_ok=True)  # a link goes, not what it points to
            except OSError as error:
                raise HomeError(f"{self.path / name} cannot be removed: {error.strerror}.") from error


def _device_id(config: bytes) -> str:
    try:
        fields = parse_object(config)
    except JsonError as error:
        raise AuthorityError(f"{CONFIG_FILE} is damaged: {error}. Enrol again.") from error
    device_id = fields.get("deviceId")
    if fields.get("medium") != MEDIUM_FILE_SYSTEM or not isinstance(device_id, str):
        raise AuthorityError(f"{CONFIG_FILE} tells of an exchange by other means. Enrol again.")
    return device_id


def _check_issuer(credentials: Credentials) -> None:
    """The broker's certificate for us must come from a CA that it put beside it: else we were given half a pair."""
    leaf = x509.load_pem_x509_certificates(credentials.chain_pem)[0]
    for anchor in x509.load_pem_x509_certificates(credentials.trust_pem):
        with contextlib.suppress(ValueError, TypeError, InvalidSignature):
            leaf.verify_directly_issued_by(anchor)
            return
    raise AuthorityError(f"{CERTIFICATE_FILE} was not issued by the authority in {CA_FILE}. Enrol again.")
