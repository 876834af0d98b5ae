"""From who a client is to the device that it runs on: the very one whose container proved it, and no other."""

import re
from collections.abc import Mapping

from rsocket_broker.enrollment.mediums.adb import AWAY, AdbMedium
from rsocket_broker.enrollment.mediums.base import Medium
from rsocket_broker.errors import ApplicationError, BrokerError
from rsocket_broker.identity import Identity, Proof
from rsocket_broker.plugin_api.device import Device

UDID = r"[0-9A-F]{8}(?:-[0-9A-F]{4}){3}-[0-9A-F]{12}"
"""The id of a simulator, as its medium writes it."""


class DeviceAccess:
    """Finds devices for plugins. `drivers` are the medium drivers by name: the one for adb knows its devices."""

    def __init__(self, drivers: Mapping[str, Medium]) -> None:
        self._adb = next((driver for driver in drivers.values() if isinstance(driver, AdbMedium)), None)

    async def __call__(self, identity: Identity) -> Device:
        """The device. Raises ApplicationError that says why it cannot be reached, and what to do."""
        if identity.proof is Proof.ADB:
            return await self._android(identity.device_id)
        if identity.proof is Proof.FILESYSTEM and re.fullmatch(UDID, identity.device_id):
            from rsocket_broker.enrollment.simulator_device import (
                SimulatorDevice,
            )  # seldom wanted, and not at the start

            return SimulatorDevice(identity.device_id)
        raise ApplicationError(
            f"The device of {identity.app_id} cannot be reached: that takes an Android device on adb, or an iOS "
            f"simulator on this machine, and this client was let in by {identity.proof.value}."
        )

    async def _android(self, device_id: str) -> Device:
        if self._adb is None:
            raise ApplicationError("This broker has no driver for adb.")
        try:
            server, serial = await self._adb.attached(device_id)
        except BrokerError as problem:
            raise ApplicationError(f"The device {device_id} cannot be reached: {problem.public}") from problem
        if serial is None:
            raise ApplicationError(f"{device_id} cannot be reached: {AWAY}. Attach it, and check `adb devices`.")
        from rsocket_broker.enrollment.android_device import AndroidDevice  # as above

        return AndroidDevice(server, serial)
