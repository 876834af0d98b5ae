"""What an app says about itself: the JSON in the SETUP frames of both ports. Only the broker's proof makes it count."""

import platform
import sys
from collections.abc import Mapping

import attrs

from rsocket_broker.credentials import APP_ID, MAX_APP_ID
from rsocket_broker.errors import ConfigurationError
from rsocket_broker.jsontext import dump

PROTOCOL_LEVEL = 4
"""The level of the Flipper protocol spoken here: background plugins are started by the broker."""

MEDIUM_FILE_SYSTEM = 1
"""The broker puts the certificates into the app's own folder."""
MEDIUM_UPLOAD = 2
"""The broker puts them where the app can fetch them."""
MEDIUM_PAIRING = 4
"""They come over the line on which the app has asked, once people have compared both sides."""

RENEWS = 1
"""The level of the exchange by which certificates and anchors are renewed over a session."""

UNKNOWN_DEVICE = "unknown"
"""The device id of an app that has not been told its own: the broker finds it out during the exchange."""

_OS_NAMES: Mapping[str, str] = {"darwin": "MacOS", "win32": "Windows"}


def os_name(platform_name: str = sys.platform) -> str:
    """The name of this operating system on the wire; every other Unix is Linux to a broker."""
    return _OS_NAMES.get(platform_name, "Linux")


def _check_app_id(profile: "AppProfile", attribute: "attrs.Attribute[str]", value: str) -> None:
    if not APP_ID.fullmatch(value):
        raise ConfigurationError(
            f"{value!r} is not an app id: use 1 to {MAX_APP_ID} letters, digits, '_', '.' and '-', "
            "and begin with a letter, a digit or '_'."
        )


@attrs.frozen(slots=True, kw_only=True)
class AppProfile:
    """One app on one machine. Raises ConfigurationError for an app id that no certificate could carry."""

    app_id: str = attrs.field(validator=_check_app_id)
    app: str
    """The name for people to read."""
    device: str = attrs.field(factory=platform.node)
    os: str = attrs.field(factory=os_name)
    medium: int = MEDIUM_FILE_SYSTEM
    """How the app comes to its certificates."""

    @property
    def device_name(self) -> str:
        """An empty field counts as a missing one."""
        return self.device or "this machine"

    def plain_claims(self) -> bytes:
        """SETUP data for the plain port."""
        return dump(self._claims(UNKNOWN_DEVICE))

    def secure_claims(self, device_id: str, csr: str, csr_path: str, *, renews: bool = True) -> bytes:
        """SETUP data for the secure port; `csr` (PEM) and `csr_path` let the broker find the device again.

        `renews` says that we change our certificate over the session, which is only for lines with TLS.
        """
        fields = self._claims(device_id) | {"csr": csr, "csr_path": csr_path}
        return dump(fields | {"identity": RENEWS} if renews else fields)

    def _claims(self, device_id: str) -> dict[str, object]:
        return {
            "os": self.os,
            "device": self.device_name,
            "device_id": device_id,
            "app": self.app or self.app_id,
            "app_id": self.app_id,
            "sdk_version": PROTOCOL_LEVEL,
            "medium": self.medium,
        }
