"""A signing request (PKCS#10, RFC 2986) from a stranger: what may be signed, and why the rest may not.

Only its public key and its common name are ever used. Flipper's SDKs write version 1 where the RFC knows only 0, and
sign that, so a copy with version 0 is parsed while the signature is checked over the bytes as they came.
"""

import base64
import binascii
import re

import attrs
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding
from cryptography.x509.oid import NameOID

from rsocket_broker.authority.keys import PublicKey, WeakKey, accept, key_fingerprint
from rsocket_broker.credentials import NONCE_ATTRIBUTE, WANTS_NONCE, clean
from rsocket_broker.errors import EnrollmentRefused

MAX_REQUEST = 64 * 1024
"""An RSA-8192 request takes 4 KiB; what is larger carries something that we would drop anyway."""
COMMON_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}", re.ASCII)
STEP = "signing request"

_PEM = re.compile(
    r"-----BEGIN (NEW )?CERTIFICATE REQUEST-----\n([A-Za-z0-9+/=\n]+)\n-----END (NEW )?CERTIFICATE REQUEST-----",
    re.ASCII,
)
_SEQUENCE, _INTEGER = 0x30, 0x02
_STRONG_HASHES = (hashes.SHA256, hashes.SHA384, hashes.SHA512)
_UNREADABLE = (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion)

_MAKE_ANEW = "Remove the app's credentials, so that it makes a new request."


class DerError(ValueError):
    """The bytes are not the DER element that was expected."""


@attrs.frozen(slots=True)
class CheckedRequest:
    """A request that may be signed. `csr_pem` is its text without carriage returns and outer white space.

    `wants_nonce`: whoever made it answers nonces, and wants nobody to get it signed without; see `NONCE_ATTRIBUTE`.
    """

    common_name: str
    public_key: PublicKey = attrs.field(repr=False)
    csr_pem: str = attrs.field(repr=False)
    key_fingerprint: str
    wants_nonce: bool = False


def same_request(one: str | bytes, other: str | bytes) -> bool:
    """Whether two texts are the very same request, but for line ends and outer white space. Empty is never the same."""
    return clean(one) == clean(other) != ""


def check_request(csr: str | bytes) -> CheckedRequest:
    """The request in `csr` (PEM), if it may be signed; else raises EnrollmentRefused: why not, and what to do.

    It may when: it is at most 64 KiB; signed by its own key with SHA-256 or better; the key is RSA of 2048 to 8192
    bits, P-256, P-384 or Ed25519; it has one common name of letters, digits, `_`, `.`, `-`; and asks for no CA.
    """
    if len(csr) > MAX_REQUEST:
        raise _refused(f"it is larger than {MAX_REQUEST} bytes.", "Send one PEM certificate request and nothing else.")
    pem = clean(csr)
    der = _decode(pem)
    try:
        request, signed = _parse(der)
        public_key = accept(request.public_key())
    except WeakKey as error:
        raise _refused(f"{error}.", "Use RSA of 2048 to 8192 bits, P-256, P-384 or Ed25519.") from error
    except _UNREADABLE as error:
        raise _refused("it is not a well-formed PKCS#10 request.", _MAKE_ANEW) from error
    _check_signature(request, public_key, signed)
    _check_extensions(request)
    return CheckedRequest(
        _common_name(request), public_key, pem, key_fingerprint(public_key), wants_nonce=_wants_nonce(request)
    )


def signed_part(der: bytes) -> tuple[int, int]:
    """Where the CertificationRequestInfo, which the signature covers, begins and ends in a request.

    Raises DerError when the outer form is not that of RFC 2986: SEQUENCE { info, algorithm, signature }, nothing more.
    """
    start, end = _element(der, 0, len(der), _SEQUENCE)
    if end != len(der):
        raise DerError("bytes follow the request")
    _, info_end = _element(der, start, end, _SEQUENCE)
    return start, info_end


def _decode(pem: str) -> bytes:
    if not pem:
        raise _refused("it is empty.", "Send the app's request (app.csr) as PEM text.")
    match = _PEM.fullmatch(pem)
    if match is None or match[1] != match[3]:
        raise _refused("it is not a PEM certificate request.", "Send the app's request (app.csr) as PEM text.")
    try:
        return base64.b64decode(match[2].replace("\n", ""), validate=True)
    except binascii.Error as error:
        raise _refused("its base64 is damaged.", _MAKE_ANEW) from error


def _parse(der: bytes) -> tuple[x509.CertificateSigningRequest, bytes]:
    """The request, and the bytes that its signature covers as they came. Raises what is in _UNREADABLE."""
    start, end = signed_part(der)
    info, _ = _element(der, start, end, _SEQUENCE)
    version, version_end = _element(der, info, end, _INTEGER)
    if der[version:version_end] == b"\x01":
        parsed = x509.load_der_x509_csr(der[:version] + b"\x00" + der[version_end:])
    else:
        parsed = x509.load_der_x509_csr(der)
    return parsed, der[start:end]


def _element(der: bytes, position: int, limit: int, tag: int) -> tuple[int, int]:
    """Where the content of the element at `position` begins and ends.

    Raises DerError unless it has that tag, a definite length in the shortest form (X.690, 10.1) and ends by `limit`.
    """
    if position + 2 > limit or der[position] != tag:
        raise DerError(f"no element with tag {tag:#04x} at {position}")
    length, content = der[position + 1], position + 2
    if length >= 0x80:
        octets = length & 0x7F
        encoded = der[content : min(content + octets, limit)]
        length = int.from_bytes(encoded)
        if not 1 <= octets <= 4 or len(encoded) != octets or length < max(0x80, 1 << 8 * (octets - 1)):
            raise DerError(f"bad length at {position}")
        content += octets
    if content + length > limit:
        raise DerError(f"the element at {position} ends too late")
    return content, content + length


def _check_signature(request: x509.CertificateSigningRequest, public_key: PublicKey, signed: bytes) -> None:
    try:
        algorithm = request.signature_hash_algorithm
        parameters = request.signature_algorithm_parameters
    except _UNREADABLE as error:
        raise _refused("it is signed in an unknown way.", "Sign it with SHA-256.") from error
    if algorithm is not None and not isinstance(algorithm, _STRONG_HASHES):
        raise _refused(f"it is signed with {algorithm.name}, which is too weak.", "Sign it with SHA-256.")
    try:
        if isinstance(public_key, ed25519.Ed25519PublicKey):
            _require(algorithm is None)
            public_key.verify(request.signature, signed)
        elif isinstance(public_key, ec.EllipticCurvePublicKey):
            _require(isinstance(parameters, ec.ECDSA))
            assert isinstance(parameters, ec.ECDSA)
            public_key.verify(request.signature, signed, parameters)
        else:
            _require(isinstance(parameters, padding.PKCS1v15 | padding.PSS) and algorithm is not None)
            assert isinstance(parameters, padding.PKCS1v15 | padding.PSS)
            assert algorithm is not None
            public_key.verify(request.signature, signed, parameters, algorithm)
    except (InvalidSignature, *_UNREADABLE) as error:
        raise _refused("it is not signed by the key that it holds.", _MAKE_ANEW) from error


def _require(fits: bool) -> None:
    """The signature's algorithm must be one of the key's kind."""
    if not fits:
        raise InvalidSignature


def _check_extensions(request: x509.CertificateSigningRequest) -> None:
    """Extensions asked for are dropped, whatever they say; but who asks to be a CA is told so."""
    try:
        asked = {type(extension.value): extension.value for extension in request.extensions}
    except (x509.DuplicateExtension, x509.UnsupportedGeneralNameType, *_UNREADABLE) as error:
        raise _refused("the extensions that it asks for cannot be read.", "Ask for none; they are not used.") from error
    constraints, usage = asked.get(x509.BasicConstraints), asked.get(x509.KeyUsage)
    wants_ca = isinstance(constraints, x509.BasicConstraints) and constraints.ca
    if wants_ca or (isinstance(usage, x509.KeyUsage) and usage.key_cert_sign):
        raise _refused("it asks to be a certificate authority.", "Ask for no extensions; they are not used.")


def _wants_nonce(request: x509.CertificateSigningRequest) -> bool:
    """The attribute is in what the request's own key has signed: nobody can take it out. Others mean nothing here."""
    try:
        value: bytes = request.attributes.get_attribute_for_oid(NONCE_ATTRIBUTE).value
    except (x509.AttributeNotFound, *_UNREADABLE):
        return False
    return value == WANTS_NONCE


def _common_name(request: x509.CertificateSigningRequest) -> str:
    remedy = "Name the app (its package or bundle id) there: letters, digits, '_', '.' and '-'."
    try:
        values = [attribute.value for attribute in request.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    except _UNREADABLE as error:
        raise _refused("its subject cannot be read.", remedy) from error
    if len(values) != 1:
        number = "no common name (CN)" if not values else "more than one common name (CN)"
        raise _refused(f"it has {number} in its subject.", remedy)
    if not isinstance(values[0], str) or not COMMON_NAME.fullmatch(values[0]):
        raise _refused("its common name (CN) is not an app id.", remedy)
    return values[0]


def _refused(reason: str, remedy: str) -> EnrollmentRefused:
    return EnrollmentRefused(STEP, reason, remedy)
