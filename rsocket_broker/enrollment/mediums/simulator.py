"""Medium 1 for iOS simulators: their apps' containers are folders of this machine, and the path names the device.

Example: `…/CoreSimulator/Devices/<UDID>/data/Containers/Data/Application/<UUID>/Library/Application Support/sonar/`.
"""

import re
from typing import TYPE_CHECKING, ClassVar

import attrs

from rsocket_broker.enrollment.command import CommandFailed
from rsocket_broker.enrollment.exchange import SignRequest
from rsocket_broker.enrollment.mediums.base import Container, unproven
from rsocket_broker.enrollment.mediums.filesystem import FilesystemMedium
from rsocket_broker.enrollment.simulators import booted

if TYPE_CHECKING:
    from rsocket_broker.authority.requests import CheckedRequest

DEVICE_PATH = re.compile(r"/Devices/([0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12})/")


class SimulatorMedium(FilesystemMedium):
    """Apps in a simulator. Proof and delivery are those of the file system; the device is the simulator's UDID."""

    name: ClassVar[str] = "simulator"
    systems: ClassVar[frozenset[str]] = frozenset({"iOS"})

    def handles(self, request: SignRequest) -> bool:
        return super().handles(request) and DEVICE_PATH.search(request.destination) is not None

    def device_id(self, directory: str) -> str:
        """The UDID in the resolved path, in the capitals that Apple's tools write it in."""
        found = DEVICE_PATH.search(directory)
        if found is None:  # a link on the way leads out of the simulators' folders
            raise unproven("the destination leads out of the simulator.", "Send the path of the app's own container.")
        return found[1].upper()

    async def prove(self, request: SignRequest, checked: "CheckedRequest") -> Container:
        """The proof is that of the folder; its name, for grants, is asked of Xcode where there is one."""
        container = await super().prove(request, checked)
        udid = container.principal.device_id
        try:
            names = {one.udid: one.name for one in await booted() or ()}
        except CommandFailed as problem:
            self.context.log.info("the simulator's name is not known: %s", problem.public)
            names = {}
        return attrs.evolve(container, device_names=(names[udid],) if udid in names else ())
