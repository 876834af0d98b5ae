"""An enrolment core with the adb driver, and Android apps that ask it, for the tests of the driver."""

import contextlib
import functools
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import attrs
from cryptography.hazmat.primitives.asymmetric import rsa

from rsocket_broker.claims import Claims
from rsocket_broker.credentials import CA_FILE, CERTIFICATE_FILE
from rsocket_broker.enrollment.devices import DeviceRegistry
from rsocket_broker.enrollment.mediums.adb import AdbMedium
from rsocket_broker.enrollment.mediums.base import MediumContext
from rsocket_broker.state import State
from tests.emulated_device import AppSandbox, EmulatedDevice
from tests.enrollment.workshop import Workshop, open_workshop

PACKAGE = "org.example.demo"
CLAIMS = Claims(os="Android", device="Pixel Emulated - 13 - API 33", device_id="unknown", app="Demo", sdk_version=4)


@functools.cache
def app_key(number: int = 0) -> rsa.RSAPrivateKey:
    """A key made once in a run: RSA takes a tenth of a second."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def app_on(device: EmulatedDevice, package: str = PACKAGE, **options: object) -> AppSandbox:
    return AppSandbox(device, package, **{"key": app_key(), **options})  # type: ignore[arg-type]


def adb_medium(address: tuple[str, int], state: State) -> AdbMedium:
    settings = {"server": f"{address[0]}:{address[1]}"}
    return AdbMedium(MediumContext(devices=DeviceRegistry(state), log=logging.getLogger(__name__), settings=settings))


@contextlib.contextmanager
def android_workshop(home: Path, address: tuple[str, int]) -> Iterator[Workshop]:
    """The enrolment core on `home` with the adb driver; a second call on the same home is its next start."""
    with (
        State.open(home / "devices.db") as state,
        open_workshop(home, drivers={"adb": adb_medium(address, state)}) as workshop,
    ):
        yield workshop


@attrs.frozen
class Asker:
    """An app that asks for a certificate."""

    workshop: Workshop
    app: AppSandbox

    async def enrol(self, **changes: object) -> dict[str, object]:
        """The answer; a change to None leaves a field out. `claims` and `csr` can be changed too."""
        claims = changes.pop("claims", CLAIMS)
        assert isinstance(claims, Claims)
        fields: dict[str, object] = {
            "method": "signCertificate",
            "csr": self.app.csr,
            "destination": self.app.destination,
            "medium": 1,
        }
        message = {name: value for name, value in {**fields, **changes}.items() if value is not None}
        self.workshop.clock.seconds += 60  # rates are another test's business
        return await self.workshop.enroller.serve(json.dumps(message).encode(), claims, "127.0.0.1")


def pair(app: AppSandbox) -> tuple[bytes | None, bytes | None]:
    """(anchor, certificate) in the app's folder."""
    return tuple(
        app.file(name).read_bytes() if app.file(name).exists() else None for name in (CA_FILE, CERTIFICATE_FILE)
    )  # type: ignore[return-value]


def leftovers(app: AppSandbox) -> set[str]:
    return app.names() - {"app.csr", "privateKey.pem", CA_FILE, CERTIFICATE_FILE, "connection_config.json"}
