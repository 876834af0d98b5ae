"""How an identity is written into a certificate, and strictly read back: one URI among the alternative names.

    rsocket-broker:client/1/GENERATION/PROOF/DEVICE/APP

Each part is percent-encoded in one way only, so that a URI that is read and written again is the same URI.
The app id is here in full: a common name has room for 64 characters, and stands for a longer id as `com.flipper`.
"""

import re
import urllib.parse

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from rsocket_broker.credentials import APP_ID
from rsocket_broker.errors import AuthorityError
from rsocket_broker.identity import Principal, Proof

SCHEME = "rsocket-broker:"
_PREFIX = f"{SCHEME}client/1/"
"""1 is the version of this form: a reader that does not know a version makes no identity of it."""
MAX_URI = 2048
_GENERATION = re.compile(r"[1-9][0-9]{0,8}", re.ASCII)
_DEVICE_ID = re.compile(r"[\x20-\x7e]{0,128}", re.ASCII)
"""Device ids are the broker's own or come from tools (UDIDs): printable ASCII, or empty where there is none."""


def check_principal(principal: Principal) -> None:
    """Raises AuthorityError when an id cannot stand in a certificate, or nothing has proved it."""
    if not principal.certified:
        raise AuthorityError("Nothing has proved who this client is, so it gets no certificate.")
    check_app_id(principal.app_id)
    check_device_id(principal.device_id)


def check_app_id(app_id: str) -> None:
    """Raises AuthorityError when it cannot stand in a certificate."""
    if not APP_ID.fullmatch(app_id):
        raise AuthorityError("The app id is not made of 1 to 255 letters, digits, '_', '.' and '-'.")


def check_device_id(device_id: str) -> None:
    """Raises AuthorityError when it cannot stand in a certificate. "" is a client without a device."""
    if not _DEVICE_ID.fullmatch(device_id):
        raise AuthorityError("The device id is longer than 128 characters, or not printable ASCII.")


def to_uri(principal: Principal, generation: int) -> str:
    """The URI for a certificate of `principal`, signed by the CA of that generation. Raises AuthorityError."""
    check_principal(principal)
    device, app = (urllib.parse.quote(part, safe="") for part in (principal.device_id, principal.app_id))
    return f"{_PREFIX}{generation}/{principal.proof.value}/{device}/{app}"


def from_uri(uri: str) -> tuple[Principal, int]:
    """The principal and the generation in a URI that `to_uri` wrote. Raises AuthorityError for any other text."""
    parts = uri.removeprefix(_PREFIX).split("/")
    if not uri.startswith(_PREFIX) or len(uri) > MAX_URI or len(parts) != 4 or not _GENERATION.fullmatch(parts[0]):
        raise _not_ours()
    try:
        principal = Principal(
            app_id=urllib.parse.unquote(parts[3], errors="strict"),
            device_id=urllib.parse.unquote(parts[2], errors="strict"),
            proof=Proof(parts[1]),
        )
        generation = int(parts[0])
        written = to_uri(principal, generation)
    except (ValueError, AuthorityError) as error:
        raise _not_ours() from error
    if written != uri:
        raise _not_ours()
    return principal, generation


def read_names(certificate: x509.Certificate) -> tuple[Principal, int]:
    """Whom a client certificate names, and the generation that signed it. The signature is not checked here.

    Raises AuthorityError unless it is for TLS clients and holds exactly one URI of ours.
    """
    try:
        extensions = certificate.extensions
        usage = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        alternatives = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, x509.DuplicateExtension, x509.UnsupportedGeneralNameType, ValueError) as error:
        raise AuthorityError("The certificate does not name a client of this broker.") from error
    if ExtendedKeyUsageOID.CLIENT_AUTH not in usage:
        raise AuthorityError("The certificate is not one for clients.")
    uris = alternatives.get_values_for_type(x509.UniformResourceIdentifier)
    if len(uris) != 1:
        raise _not_ours()
    return from_uri(uris[0])


def _not_ours() -> AuthorityError:
    return AuthorityError("The certificate does not name a client of this broker.")
