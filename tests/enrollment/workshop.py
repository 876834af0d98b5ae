"""An enrolment core with a real home, authority, state and folders, but no sockets; and apps that ask it."""

import contextlib
import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

import attrs
import pytest

from rsocket_broker.authority.authority import Authority
from rsocket_broker.claims import Claims
from rsocket_broker.credentials import CA_FILE, CERTIFICATE_FILE, CSR_FILE, SigningRequest, make_signing_request
from rsocket_broker.enrollment.containers import Containers
from rsocket_broker.enrollment.devices import DeviceRegistry
from rsocket_broker.enrollment.enroller import Enroller
from rsocket_broker.enrollment.grants import Grants
from rsocket_broker.enrollment.journal import Journal
from rsocket_broker.enrollment.mediums.base import Medium
from rsocket_broker.enrollment.mediums.registry import Mediums
from rsocket_broker.enrollment.modes import Gate, Mode
from rsocket_broker.enrollment.throttle import EnrollmentLimits
from rsocket_broker.errors import EnrollmentRefused
from rsocket_broker.grant_tokens import GrantToken
from rsocket_broker.state import State

LOCALHOST = "127.0.0.1"
UDID = "0F5C1D2E-1111-4222-8333-A1B2C3D4E5F6"
SIMULATED = f"Devices/{UDID}/data/Containers/Data/Application/7A1B0000-0000-4000-8000-000000000001"
PLENTY = EnrollmentLimits()


@attrs.define
class Clock:
    """Time that passes when a test says so."""

    seconds: float = 1000.0

    def __call__(self) -> float:
        return self.seconds


@attrs.frozen(kw_only=True)
class Workshop:
    """What a test may look into after an exchange."""

    home: Path
    state: State
    authority: Authority
    mediums: Mediums
    journal: Journal
    containers: Containers
    enroller: Enroller
    clock: Clock
    gate: Gate
    grants: Grants

    def issued(self, app_id: str) -> int:
        return len(self.authority.certificates(app_id))


@contextlib.contextmanager
def open_workshop(
    home: Path,
    *,
    limits: EnrollmentLimits = PLENTY,
    drivers: Mapping[str, Medium] | None = None,
    mode: Mode = Mode.OPEN,
    require_nonce: bool = False,
) -> Iterator[Workshop]:
    """A start of the enrolment core on `home`, which is made when new; closed at the end of the block.

    `drivers` stand beside the bundled ones for apps on this machine.
    """
    with State.open(home / "state.db") as state:
        authority = Authority.open(home, state)
        found = Mediums.load(DeviceRegistry(state), without=("adb",))
        mediums = Mediums({**found.offered, **(drivers or {})}, found.broken)
        journal, clock = Journal(state), Clock()
        containers = Containers(state)
        grants = Grants(home, state, authority.audit)
        gate = Gate(mode, grants, authority.audit, clock=clock)
        enroller = Enroller(
            authority, mediums, journal, containers, limits, gate=gate, require_nonce=require_nonce, clock=clock
        )
        yield Workshop(
            home=home,
            state=state,
            authority=authority,
            mediums=mediums,
            journal=journal,
            containers=containers,
            enroller=enroller,
            clock=clock,
            gate=gate,
            grants=grants,
        )
        authority.audit.close()


@attrs.define
class DesktopApp:
    """An app that keeps its files in a folder of this machine, as an SDK does."""

    folder: Path
    app_id: str = "org.example.demo"
    os: str = "Linux"
    request: SigningRequest = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.folder.mkdir(parents=True, mode=0o700)
        self.make_request()

    def make_request(self) -> None:
        """What every exchange of a real SDK begins with: a new key, a new request, nothing else in the folder."""
        for path in self.folder.iterdir():
            path.unlink()
        self.request = make_signing_request(self.app_id)
        self.request.save(self.folder)

    @property
    def csr(self) -> str:
        return self.request.csr_pem.decode()

    @property
    def claims(self) -> Claims:
        return self.claims_of("bench")

    def claims_of(self, device: str) -> Claims:
        return Claims(os=self.os, device=device, device_id="unknown", app="Demo", sdk_version=4)

    def grant(self, token: str) -> str:
        """What the app shows of a token, for the request in its folder."""
        return GrantToken.parse(token).grant_for(self.csr)

    def message(self, **changes: object) -> bytes:
        """`signCertificate`; a change to None leaves the field out."""
        fields: dict[str, object] = {
            "method": "signCertificate",
            "csr": self.csr,
            "destination": f"{self.folder}/",
            "medium": 1,
            "timestamp": round(datetime.now(UTC).timestamp() * 1000),
        }
        return json.dumps({name: value for name, value in {**fields, **changes}.items() if value is not None}).encode()

    def pair(self) -> tuple[bytes | None, bytes | None]:
        """(anchor, certificate) as they lie in the folder."""
        return _content(self.folder / CA_FILE), _content(self.folder / CERTIFICATE_FILE)

    def leftovers(self) -> list[str]:
        """Whatever lies in the folder and is not the SDK's or a deployed file."""
        known = {CSR_FILE, "privateKey.pem", CA_FILE, CERTIFICATE_FILE, "connection_config.json"}
        return sorted(path.name for path in self.folder.iterdir() if path.name not in known)


async def refused(workshop: Workshop, app: DesktopApp, *, claims: Claims | None = None, **changes: object) -> str:
    """The text of the refusal."""
    with pytest.raises(EnrollmentRefused) as caught:
        await workshop.enroller.serve(app.message(**changes), claims or app.claims, LOCALHOST)
    assert caught.value.remedy
    assert caught.value.public.startswith(f"{caught.value.step}: ")
    return caught.value.public


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None
