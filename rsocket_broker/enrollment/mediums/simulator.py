"""Medium 1 for iOS simulators: their apps' containers are folders of this machine, and the path names the device.

Example: `…/CoreSimulator/Devices/<UDID>/data/Containers/Data/Application/<UUID>/Library/Application Support/sonar/`.
"""

import re
from typing import ClassVar

from rsocket_broker.enrollment.exchange import SignRequest
from rsocket_broker.enrollment.mediums.base import unproven
from rsocket_broker.enrollment.mediums.filesystem import FilesystemMedium

_DEVICE = re.compile(r"/Devices/([0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12})/")


class SimulatorMedium(FilesystemMedium):
    """Apps in a simulator. Proof and delivery are those of the file system; the device is the simulator's UDID."""

    name: ClassVar[str] = "simulator"
    systems: ClassVar[frozenset[str]] = frozenset({"iOS"})

    def handles(self, request: SignRequest) -> bool:
        return super().handles(request) and _DEVICE.search(request.destination) is not None

    def device_id(self, directory: str) -> str:
        """The UDID in the resolved path, in the capitals that Apple's tools write it in."""
        found = _DEVICE.search(directory)
        if found is None:  # a link on the way leads out of the simulators' folders
            raise unproven("the destination leads out of the simulator.", "Send the path of the app's own container.")
        return found[1].upper()

    def device_names(self) -> tuple[str, ...]:
        """A simulator has no name but its UDID."""
        return ()
