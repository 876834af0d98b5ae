"""What a medium driver is: the way to one kind of app container, to prove who asks and to put certificates there.

A driver is a subclass of `Medium`, named in the entry-point group `rsocket_broker.mediums`:

    [project.entry-points."rsocket_broker.mediums"]
    console = "acme_broker.console:ConsoleMedium"

The broker makes one instance of each, `Driver(context)`. An exchange then goes

    handles(request)  ->  prove(request, checked)  ->  [the broker signs]  ->  deploy(container, bundle)

and `settle(entry)` is called for a deployment that did not reach its end: at once after `deploy` raised, at the next
start after a crash, and again when `Enroller.settle` is told that a device is back.

A driver that `places` is also used while no app asks: to put a renewed certificate, or the anchors of a rotation, into
a container that was proven before (`holds`, then `place`).
"""

import abc
import enum
import logging
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, ClassVar

import attrs

from rsocket_broker.credentials import CA_FILE, CERTIFICATE_FILE
from rsocket_broker.enrollment.exchange import SignRequest, Step
from rsocket_broker.errors import EnrollmentRefused
from rsocket_broker.identity import Principal

if TYPE_CHECKING:
    from rsocket_broker.authority.requests import CheckedRequest
    from rsocket_broker.enrollment.devices import DeviceRegistry
    from rsocket_broker.enrollment.leaf import Leaf

TEMPORARY_SUFFIX = ".new"
"""A file being delivered is written beside its place under this suffix. One exchange at a time per container, so one
name is enough, and what a crash leaves behind is found and removed by name."""
PUBLIC_FILE_MODE = 0o644
"""Mode of the two certificates. They hold no secret, and the app may run as another user than the one who writes."""
MAX_REQUEST_FILE = 64 * 1024
"""Bytes read of an `app.csr`: the size up to which a signing request is looked at."""
FILES = (CA_FILE, CERTIFICATE_FILE)
"""What is delivered, in the order of renaming: an app with a new anchor and its old certificate exchanges again by
itself, one with a new certificate and the old anchor might not."""


@attrs.frozen(slots=True, kw_only=True)
class MediumContext:
    """What a driver is given when it is made.

    `settings` is its own table of the configuration, `[mediums.NAME]`, as read and not validated (empty when absent):
    raise ConfigurationError from `__init__` for what makes no sense. `log` is its own logger.
    """

    devices: "DeviceRegistry"
    log: logging.Logger
    settings: Mapping[str, object] = attrs.field(factory=dict)


@attrs.frozen(slots=True, kw_only=True)
class Container:
    """An app's container that a driver has found and proven: the very same CSR was read out of it.

    `medium` is the driver's name. `location` is all that the driver needs to find the container again after a restart;
    it is kept as JSON, and two containers are the same one exactly when their locations are equal.
    `answer` is added to `{"deviceId": …}` in what the app is told. `device_names` are what an operator may call the
    device besides its id, as the driver itself found them (never as the app says); they are not kept.
    """

    medium: str
    principal: Principal
    location: Mapping[str, str]
    answer: Mapping[str, object] = attrs.field(factory=dict)
    device_names: tuple[str, ...] = attrs.field(default=(), eq=False)


@attrs.frozen(slots=True, kw_only=True)
class Bundle:
    """What is delivered. `csr` (cleaned) is the request that the certificate answers; both files are PEM.

    For `place`, one of the files may be b"": what lies in its place then stays as it is.
    """

    csr: str = attrs.field(repr=False)
    trust_pem: bytes = attrs.field(repr=False)
    certificate_pem: bytes = attrs.field(repr=False)

    def files(self) -> tuple[tuple[str, bytes], ...]:
        """(name, content) of what is delivered, in the order of renaming."""
        both = (FILES[0], self.trust_pem), (FILES[1], self.certificate_pem)
        return tuple((name, content) for name, content in both if content)


@attrs.frozen(slots=True, kw_only=True)
class JournalEntry:
    """A deployment that was begun and not seen to end. `started` is aware, in UTC.

    `leaf` is what its certificate says, where that is known without reading it (`leaf.delivered` reads it elsewhere).
    """

    number: int
    container: Container
    bundle: Bundle
    started: datetime
    leaf: "Leaf | None" = attrs.field(default=None, eq=False, repr=False)


class Outcome(enum.Enum):
    """How a deployment was brought to its end."""

    FINISHED = "finished"
    """The container holds the new pair."""
    UNDONE = "undone"
    """The container holds what it held before, or what its app has made of it since; nothing of ours is left over."""


@attrs.frozen(slots=True)
class Settled:
    """The deployment has ended, one way or the other; its journal entry can go."""

    outcome: Outcome


@attrs.frozen(slots=True)
class StillPending:
    """The container cannot be reached now. The entry is kept, and tried again when the device is back."""

    reason: str


class Medium(abc.ABC):
    """One way to reach app containers. Methods run on the event loop: what blocks goes to a thread.

    Every refusal is an EnrollmentRefused with step "proof" or "deploy", whose remedy says what a developer can do.
    """

    name: ClassVar[str]
    """As in the entry point, in the settings and in the journal."""
    number: ClassVar[int]
    """The `medium` of the requests that it serves: 1 for file-system access."""
    systems: ClassVar[frozenset[str]] = frozenset()
    """Values of `os` that it serves. One that the broker does not know yet becomes known by standing here."""
    needs_destination: ClassVar[bool] = True
    """Whether a request without `destination` is refused before the driver sees it."""
    secures_later: ClassVar[bool] = False
    """Whether `deploy` leaves it to `secure` to wait for the disk. For a driver whose `settle` makes good a loss of
    power: whatever is left of a deployment then, it finishes it."""

    places: ClassVar[bool] = False
    """Whether the driver can reach a container without its app asking: it has `holds` and `place`. Where it cannot,
    apps get a new certificate only when they ask for one, and operators are told so."""

    writes_nonces: ClassVar[bool] = False
    """Whether the driver has `write_nonce` and `remove_nonce`. Only then can an asker be held to prove that it reads
    the container and has the request's key, before anything is signed; see `rsocket_broker.nonce_proof`."""

    needs_voucher: ClassVar[bool] = False
    """Whether `prove` can see nothing of the asker: then a token of a grant, or an operator's word, must vouch for the
    request first (`request.voucher`), or `prove` is never called."""
    shows_key: ClassVar[bool] = False
    """Whether the operator has to show a key to the device when he vouches (`request.voucher.key`)."""
    fallback: ClassVar[bool] = False
    """Whether the driver is used only where another one of its number did not reach the app."""

    def __init__(self, context: MediumContext) -> None:
        """Raises ConfigurationError when this machine or the settings cannot carry the driver."""
        self.context = context

    def handles(self, request: SignRequest) -> bool:
        """Whether a request of this driver's medium number is for it. Must not block or raise."""
        return request.claims.os in self.systems

    @abc.abstractmethod
    async def prove(self, request: SignRequest, checked: "CheckedRequest") -> Container:
        """Find the container that the asker claims, and read the very same CSR (`same_request`) back out of it.

        Nothing has been signed yet, and nothing will be unless this returns. May be cancelled at any await.
        Raises EnrollmentRefused (step "proof").
        """

    @abc.abstractmethod
    async def deploy(self, container: Container, bundle: Bundle) -> None:
        """Put both files of the bundle into the container, so that it holds the old pair or the new pair.

        Read the CSR again and refuse when it is another one by now; write each file beside its place under
        TEMPORARY_SUFFIX, onto the disk; read it back and compare; set PUBLIC_FILE_MODE; only then rename, in the order
        of FILES. A file that is in place already is left alone, so that finishing never passes through a state that
        looks like the start; leftovers of an earlier attempt go first. The journal entry is on the disk by then.
        Raises EnrollmentRefused (step "deploy"); `settle` is called next and cleans up.
        """

    async def answered(self, checked: "CheckedRequest") -> Mapping[str, object] | None:
        """What the very same request was answered with, while that still stands; None for a request that is to be
        served. Asked of a driver that `needs_voucher`, before anybody is asked to vouch."""
        del checked
        return None

    async def begin_pickup(self, device_id: str) -> bytes | None:
        """A challenge for whoever wants to fetch what lies here for `device_id`; None when nothing is fetched here."""
        del device_id
        return None

    async def pick_up(self, device_id: str, challenge: bytes, proof: str) -> Mapping[str, object]:
        """What lies here, once, for whoever has signed the challenge with the key of the request (`nonce_proof`).
        Raises EnrollmentRefused (step "pickup"), in the same words for an id that never was."""
        raise EnrollmentRefused(Step.PICKUP, "nothing is fetched here.", "Ask the operator where.")

    async def holds(self, container: Container, csr: str) -> bool | StillPending:
        """Whether a container that was proven before holds the very same request still (`same_request`).

        False when it has gone or holds another one: then nothing will ever be put there again. StillPending with the
        reason while it is out of reach. Only asked of a driver that `places`; nothing is signed unless this is True.
        """
        del csr
        return StillPending(f"the driver {container.medium} cannot look into containers by itself")

    async def place(self, container: Container, bundle: Bundle) -> None:
        """As `deploy`, for a container whose app has not asked, and for the files that the bundle has: one, or both.

        Raises EnrollmentRefused (step "deploy"); `settle`, which is given a bundle of the same files, is called next.
        """
        del bundle
        raise undelivered(
            f"the driver {container.medium} cannot put files in place by itself.", "The app must ask for them."
        )

    async def write_nonce(self, container: Container, name: str, content: bytes) -> None:
        """Put a new file beside the request in `container`, which `prove` has just given, for its app alone to read.

        `name` is the broker's own (`nonce_proof.FILE_NAME`); `content` is some 64 bytes of ASCII. Follow no link, put
        nothing in the place of a file that is there, and let no other user read it. It need not survive a loss of
        power. Raises EnrollmentRefused (step "proof") when it cannot be written; `remove_nonce` is called then too.
        """
        del content
        raise unproven(f"the driver {container.medium} cannot write {name}.", "Ask its author for nonces.")

    async def remove_nonce(self, container: Container, name: str) -> StillPending | None:
        """Take such a file away again: None when it is not there any more, or its container is not; StillPending with
        the reason while that is out of reach. Called again then; must not raise for a bad container."""
        del container, name
        return None

    async def secure(self, containers: Sequence[Container]) -> None:  # noqa: B027  most drivers have nothing to do
        """Wait until what `deploy` has put into these is on the disk; a container that has gone is passed over.

        Awaited within a second or so of `deploy` when the driver `secures_later`; the journal entries go after it.
        """

    @abc.abstractmethod
    async def settle(self, entry: JournalEntry) -> Settled | StillPending:
        """Bring a deployment to its end, whatever point it had reached.

        Gone container, or another CSR in it: remove the temporary files, UNDONE. Same CSR and the first file already
        renamed: finish, FINISHED. Same CSR and nothing renamed: finish as well, or remove the temporary files, UNDONE.
        One file alone (of `place`) is finished wherever that can be.
        Out of reach: StillPending with the reason. Safe to call again and again; does not raise for a bad container.
        """


def unproven(reason: str, remedy: str) -> EnrollmentRefused:
    """The refusal of a driver that did not find what it needs to see before anything is signed."""
    return EnrollmentRefused(Step.PROOF, reason, remedy)


def undelivered(reason: str, remedy: str) -> EnrollmentRefused:
    """The refusal of a driver that could not put the files in place."""
    return EnrollmentRefused(Step.DEPLOY, reason, remedy)
