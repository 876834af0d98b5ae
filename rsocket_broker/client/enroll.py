"""The certificate exchange, from the app's side: key and request into the own folder, one question, and the files
that the broker has put there meanwhile. Nothing that comes over the wire is trusted; only what lies in the folder is.
"""

import asyncio
import contextlib
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from os import PathLike

import attrs

from rsocket_broker.client.folder import AppFolder, Enrolled
from rsocket_broker.client.line import Address
from rsocket_broker.client.pairing import Pairing, Tell, pair
from rsocket_broker.client.profile import MEDIUM_FILE_SYSTEM, AppProfile
from rsocket_broker.client.questions import ask, asking, device_id_in
from rsocket_broker.connection import Connection
from rsocket_broker.errors import (
    AuthorityError,
    ConfigurationError,
    ConnectionClosed,
    EnrollmentRefused,
    HomeError,
    Rejected,
)
from rsocket_broker.grant_tokens import GrantToken
from rsocket_broker.jsontext import dump
from rsocket_broker.nonce_proof import LEVEL
from rsocket_broker.payload import Payload

ANSWER_TIMEOUT = 90.0
"""Seconds. The broker may have to ask several devices, each with a time limit of its own."""


def _digits(text: str | None) -> str | None:
    return None if text is None else text.replace(":", "").lower()


@attrs.frozen(slots=True)
class Upload:
    """How a certificate is fetched that the broker cannot bring. `fetch` gets the sealed bundle for a device id from
    wherever the operator's uploader puts it, None from the broker itself; `wait_s` is how long the operator is awaited.

    `anchor` is the fingerprint of the broker's authority (SHA-256 of the certificate in hex, as `ca show` prints it):
    nothing else is trusted then. With a token it is not needed. Without both, whoever stands between this app and the
    plain port could give it another authority. Raises ConfigurationError for what is no fingerprint.
    """

    fetch: Callable[[str], Awaitable[bytes]] | None = None
    wait_s: float = 600.0
    anchor: str | None = attrs.field(default=None, converter=_digits)

    def __attrs_post_init__(self) -> None:
        if self.anchor is not None and not re.fullmatch("[0-9a-f]{64}", self.anchor):
            raise ConfigurationError(
                "that is no fingerprint of an authority: give the 64 hex digits that `rsocket-broker ca show` prints."
            )


async def enroll(
    *,
    app_id: str,
    app: str,
    directory: str | PathLike[str],
    host: str = "localhost",
    insecure_port: int = 8089,
    device: str | None = None,
    token: str | None = None,
    pairing: Pairing | None = None,
    upload: Upload | None = None,
    tell: Tell = lambda step: None,
) -> Enrolled:
    """Obtains a certificate for `app_id` into `directory`, in the place of what was there; the broker must be running.

    A refusal, a line that is lost, or being cancelled, leaves a certificate that was there as it was.

    With `pairing` the certificate comes over the line from the broker that its code leads to, once people have said on
    both sides that both show the same digits. With `upload` it is fetched, once the token or the broker's operator has
    vouched for our key, whose fingerprint `tell` hears. Else the broker puts it into `directory`. `tell` hears of each
    step.
    `token` is that of a grant, for a broker that enrols by token only; it works as often as the grant says, and does
    not cross the wire.
    `directory` is made with mode 0700 where missing. For files it must be one that the broker can write to: on the same
    machine, as the same user. Raises EnrollmentRefused with the broker's words, HomeError for a folder that is not
    safe, ConfigurationError for an app id that no certificate could carry or a token that is none, OSError
    (TimeoutError is one) or ConnectionClosed when the broker cannot be reached or goes away.
    """
    profile = (
        AppProfile(app_id=app_id, app=app) if device is None else AppProfile(app_id=app_id, app=app, device=device)
    )
    folder, grant = AppFolder(directory), parse_token(token)
    if pairing is not None:
        return await pair(profile, folder, pairing, tell)
    if upload is not None:
        return await fetched(profile, folder, Address(host, insecure_port), upload, grant, tell)
    tell(f"asking the broker at {host}:{insecure_port}")
    held = await asyncio.to_thread(folder.held)
    try:
        return await exchange(profile, folder, Address(host, insecure_port), token=grant)
    except (EnrollmentRefused, ConnectionClosed, OSError, asyncio.CancelledError):
        if held:
            await asyncio.to_thread(folder.put_back, held)
        raise


async def exchange(
    profile: AppProfile,
    folder: AppFolder,
    address: Address,
    clock: Callable[[], float] = time.time,
    token: GrantToken | None = None,
) -> Enrolled:
    """One exchange, as `enroll`. The old files are thrown away only once somebody listens. `clock`: the time of day."""
    async with asking(address, profile.plain_claims()) as connection:
        csr = await asyncio.to_thread(folder.begin, profile.app_id)
        grant = None if token is None else token.grant_for(csr)
        question = signing_fields(csr, folder.destination, clock(), grant)
        answer = await ask(connection, question, ANSWER_TIMEOUT)
        if (name := nonce_in(answer)) is not None:
            proof = await asyncio.to_thread(_answer_nonce, folder, name, csr)
            answer = await ask(connection, question | {"proof": proof}, ANSWER_TIMEOUT)
        device_id = device_id_in(answer)
        try:
            enrolled = await asyncio.to_thread(folder.complete, device_id)
        except (HomeError, AuthorityError) as error:
            await _acknowledge(connection, has_files=False)
            raise _not_deployed(folder, error) from error
        await _acknowledge(connection, has_files=True)
        return enrolled


async def fetched(
    profile: AppProfile, folder: AppFolder, address: Address, upload: Upload, token: GrantToken | None, tell: Tell
) -> Enrolled:
    """As `enroll` with `upload`."""
    from rsocket_broker.client import upload as medium  # what opens the bundle is loaded slowly, and most need it never

    return await medium.upload(
        profile,
        folder,
        address,
        token=token,
        fetch=upload.fetch,
        wait_s=upload.wait_s,
        anchor=upload.anchor,
        tell=tell,
    )


def parse_token(text: str | None) -> GrantToken | None:
    """Raises ConfigurationError for what is no token."""
    return None if text is None else GrantToken.parse(text)


def signing_fields(csr_pem: str, destination: str, now: float, grant: str | None = None) -> dict[str, object]:
    """The question; `now` is the time of day in seconds, by which the broker finds clocks that are wrong."""
    fields: dict[str, object] = {
        "method": "signCertificate",
        "csr": csr_pem,
        "destination": destination,
        "medium": MEDIUM_FILE_SYSTEM,
        "timestamp": int(now * 1000),
        "logs": [],
        "nonce": LEVEL,
    }
    return fields if grant is None else {**fields, "grant": grant}


def nonce_in(answer: Mapping[str, object]) -> str | None:
    """The name under which the broker has put a nonce into our folder, if it wants that answered first."""
    name = answer.get("nonce")
    return name if isinstance(name, str) else None


def _answer_nonce(folder: AppFolder, name: str, csr: str) -> str:
    try:
        return folder.answer_nonce(name, csr)
    except (HomeError, AuthorityError) as error:
        raise EnrollmentRefused(
            "proof",
            f"the broker has asked for a nonce in {folder.path}, and there is none that can be read. {error.public}",
            "Does the broker run on this machine, as this user?",
        ) from error


def _not_deployed(folder: AppFolder, error: HomeError | AuthorityError) -> EnrollmentRefused:
    return EnrollmentRefused(
        "deployment",
        f"the broker answered, but what lies in {folder.path} cannot be used. {error.public}",
        "Does the broker run on this machine, as this user?",
    )


async def _acknowledge(connection: Connection, *, has_files: bool) -> None:
    """Tells the broker whether its files arrived: for its log, no answer is expected."""
    fields = {"method": "signCertificateAck", "isError": not has_files, "hasRequiredFiles": has_files, "logs": []}
    with contextlib.suppress(ConnectionClosed, Rejected):  # the exchange is done, whether or not they hear of it
        connection.fire_and_forget(Payload(dump(fields)))
        await connection.drain()
