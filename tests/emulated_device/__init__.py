"""An Android device for tests and demonstrations: it speaks the device's half of the adb protocol to a real adb server.

    async with AdbServer(folder) as server, EmulatedDevice(folder / "phone") as device:
        app = AppSandbox(device, "org.example.app")
        await server.connect(device)

Every command that it is sent is run by a real `/bin/sh`, in a folder that stands for the device's file system: a
command that escapes its quotes does real harm there, and a test can see it.
"""

from tests.emulated_device.app import AppSandbox
from tests.emulated_device.device import EmulatedDevice
from tests.emulated_device.faults import Fault, Trouble
from tests.emulated_device.server import ADB_MISSING, AdbServer, adb_program

__all__ = ["ADB_MISSING", "AdbServer", "AppSandbox", "EmulatedDevice", "Fault", "Trouble", "adb_program"]
