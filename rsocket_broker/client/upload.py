"""Medium 2 from the app's side: a token or the operator vouches for our key, and the certificate is fetched, sealed.

What was fetched counts once our own key opens it, bound to our own request and the id that we were told. Anybody could
have sealed it, so that its anchors count only with a proof of the broker that made our token, or as the fingerprint
that we were given; without either they are as sure as the line that the id came over.
"""

import asyncio
import base64
import binascii
import hashlib
import re
import time
from collections.abc import Awaitable, Callable

import attrs
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from rsocket_broker.client.folder import AppFolder, Enrolled
from rsocket_broker.client.line import Address
from rsocket_broker.client.profile import MEDIUM_UPLOAD, AppProfile
from rsocket_broker.client.questions import ask, asking, device_id_in, not_understood
from rsocket_broker.connection import Connection
from rsocket_broker.credentials import SigningRequest, make_signing_request
from rsocket_broker.errors import AuthorityError, EnrollmentRefused, HomeError, RequestFailed
from rsocket_broker.grant_tokens import GrantToken
from rsocket_broker.nonce_proof import PICKUP_PURPOSE, sign
from rsocket_broker.sealed_bundle import Unsealed, unseal

ANSWER_TIMEOUT = 180.0
"""Seconds for one answer: a broker keeps us waiting for its operator for up to two minutes."""
WAIT_S = 600.0
"""Seconds that an operator is waited for in all, over several questions with the same request."""
PAUSE_S = 2.0
"""Between two of those questions."""
CHALLENGE_BYTES = 32
_DEVICE_ID = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
"""Of a broker: it becomes a part of an address, and whoever stands between must not choose another one by it."""

Fetch = Callable[[str], Awaitable[bytes]]
"""Gets the sealed bundle for a device id from wherever the operator's uploader has put it; it may raise OSError."""
Tell = Callable[[str], object]


async def upload(
    profile: AppProfile,
    folder: AppFolder,
    address: Address,
    *,
    token: GrantToken | None = None,
    fetch: Fetch | None = None,
    wait_s: float = WAIT_S,
    anchor: str | None = None,
    tell: Tell = lambda step: None,
) -> Enrolled:
    """A certificate by medium 2, in the place of what lay in the folder, which stays as it was until the end.

    Without a `token` the operator has to approve the fingerprint that `tell` is told. Without a `fetch` the bundle is
    fetched from the broker itself. With an `anchor` (SHA-256 of a certificate in hex) only that one is trusted.
    Raises EnrollmentRefused when nobody vouches for us within `wait_s` seconds, or what was fetched cannot be used, or
    is not from our broker as far as that can be told; HomeError, OSError and ConnectionClosed as `enroll`.
    """
    request = await asyncio.to_thread(make_signing_request, profile.app_id)
    claims = attrs.evolve(profile, medium=MEDIUM_UPLOAD).plain_claims()
    tell(f"asking the broker at {address}")
    if token is None:
        tell(f"waiting for the operator to approve {fingerprint(request)}")
    async with asking(address, claims) as connection:
        answer = await _vouched(connection, request, token, time.monotonic() + wait_s)
        device_id = device_id_in(answer)
        if not _DEVICE_ID.fullmatch(device_id):
            raise not_understood("the broker's answer names no device that anything could be fetched for.")
        tell("fetching the certificate")
        bundle = await (_pickup(connection, request, device_id) if fetch is None else fetch(device_id))
    csr = request.csr_pem.decode()
    try:
        found: Unsealed = await asyncio.to_thread(unseal, request.key_pem, csr, device_id, bundle)
        if token is not None and not token.is_answered(answer.get("vouched"), csr, device_id, found.trust_pem):
            raise EnrollmentRefused(
                "pickup",
                "what was fetched is not from the broker that has made the token: somebody may stand between the two.",
                "Nothing was stored. Begin anew with a new token, over another network.",
            )
        trust_pem = found.trust_pem if anchor is None else pinned(found.trust_pem, anchor)
        return await asyncio.to_thread(
            folder.adopt, request, found.certificate_pem, trust_pem, device_id, MEDIUM_UPLOAD
        )
    except (AuthorityError, HomeError) as error:
        raise EnrollmentRefused("pickup", "what was fetched cannot be stored.", error.public) from error


def pinned(trust_pem: bytes, anchor: str) -> bytes:
    """The one of the anchors that has this fingerprint. Raises AuthorityError where none has."""
    try:
        anchors = x509.load_pem_x509_certificates(trust_pem)
    except ValueError as error:
        raise AuthorityError("What was sent as the broker's authority is no certificate.") from error
    for one in anchors:
        if one.fingerprint(hashes.SHA256()).hex() == anchor:
            return one.public_bytes(Encoding.PEM)
    raise AuthorityError(
        "The broker's authority has another fingerprint than the one that was given: somebody may stand between the "
        "two. Nothing was stored."
    )


def fingerprint(request: SigningRequest) -> str:
    """Of the request's key, as the operator sees it: SHA-256 of the SubjectPublicKeyInfo, in hex."""
    key = load_pem_private_key(request.key_pem, None).public_key()
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


async def _vouched(
    connection: Connection, request: SigningRequest, token: GrantToken | None, until: float
) -> dict[str, object]:
    """The answer, once somebody has vouched for the request. `until`: seconds of the monotonic clock."""
    csr = request.csr_pem.decode()
    question: dict[str, object] = {
        "method": "signCertificate",
        "csr": csr,
        "medium": MEDIUM_UPLOAD,
        "timestamp": int(time.time() * 1000),
    }
    if token is not None:
        question["grant"] = token.grant_for(csr)
    while True:
        try:
            return await ask(connection, question, ANSWER_TIMEOUT)
        except RequestFailed as error:
            waits = error.public.startswith("approval: the operator has not approved it yet")
            if not waits or time.monotonic() + PAUSE_S > until:
                raise
            await asyncio.sleep(PAUSE_S)


async def _pickup(connection: Connection, request: SigningRequest, device_id: str) -> bytes:
    begun = await ask(connection, {"method": "pickupBegin", "deviceId": device_id}, ANSWER_TIMEOUT)
    try:
        challenge = base64.b64decode(str(begun.get("challenge")), validate=True)
    except binascii.Error:
        challenge = b""
    if len(challenge) != CHALLENGE_BYTES:
        raise not_understood("the broker has given no challenge.")
    proof = await asyncio.to_thread(sign, request.key_pem, challenge, device_id, PICKUP_PURPOSE)
    answer = await ask(connection, {"method": "pickup", "deviceId": device_id, "proof": proof}, ANSWER_TIMEOUT)
    return str(answer.get("bundle")).encode()
