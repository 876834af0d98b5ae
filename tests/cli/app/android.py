"""An Android app with every plugin of a device, behind a real adb server, and a broker, on a loop of their own."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs

from emulated_apps import CrashReporter, Fresco, Image, Inspector, LeakCanary, Navigation, UiDebugger, View
from emulated_apps.core import FlipperCore
from emulated_apps.rsocket_sdk import RSocketSdk
from emulated_apps.sdk import Profile
from emulated_apps.sonar_folder import SonarFolder
from rsocket_broker.broker import Broker
from rsocket_broker.settings import ListenSettings, Settings
from tests.cli.beside import kept_open
from tests.cli.conftest import Said, say
from tests.emulated_device import AdbServer, AppSandbox, EmulatedDevice

PACKAGE = "org.example.shop"
PID = 4242
PATIENCE = 20.0


def screen() -> View:
    return View(
        "DecorView",
        View("TextView", text="Your cart", key="title", bounds=(10, 20, 60, 40)),
        View("Button", text="Pay", key="pay", bounds=(10, 90, 80, 30)),
        bounds=(0, 0, 100, 200),
    )


@attrs.define
class Android:
    """The app's side of each plugin, its device, and the broker's home. What the app does, it does by `do`."""

    home: Path
    device: EmulatedDevice
    loop: asyncio.AbstractEventLoop
    broker: Broker
    crashes: CrashReporter
    navigation: Navigation
    images: Fresco
    leaks: LeakCanary
    inspector: Inspector
    debugger: UiDebugger

    def do(self, work: Callable[[], object]) -> None:
        async def here() -> None:
            work()

        asyncio.run_coroutine_threadsafe(here(), self.loop).result(PATIENCE)

    def until(self, holds: Callable[[], object]) -> None:
        async def here() -> None:
            async with asyncio.timeout(PATIENCE):
                while not holds():
                    await asyncio.sleep(0.01)

        asyncio.run_coroutine_threadsafe(here(), self.loop).result(PATIENCE + 5)

    def say(self, *arguments: str) -> Said:
        """`rsocket-broker app ARGUMENTS`."""
        return say(self.home, "app", *arguments)


@contextlib.asynccontextmanager
async def _running(adb: AdbServer, folder: Path):  # type: ignore[no-untyped-def]
    root = screen()
    sides = CrashReporter(), Navigation(), Fresco(), LeakCanary(), Inspector(root), UiDebugger(root)
    listen = ListenSettings(insecure_port=0, secure_port=0, ws_insecure_port=None, ws_secure_port=None)
    broker = Broker(Settings(home=folder / "home", listen=listen, adb=f"{adb.address[0]}:{adb.address[1]}"))
    async with adb.attached(EmulatedDevice(folder / "phone")) as device:
        device.run_process(PACKAGE, PID)
        sandbox = AppSandbox(device, PACKAGE)
        try:
            await broker.start()
            sdk = RSocketSdk(
                Profile(PACKAGE, app="Shop"),
                SonarFolder(sandbox.folder, sandbox.destination),
                FlipperCore(list(sides)),
                insecure_port=lambda: device.reverse.port(8089),
                secure_port=lambda: device.reverse.port(8088),
                host="127.0.0.1",
                retry=0.05,
            )
            async with sdk:
                await sdk.connected()
                yield Android(folder / "home", device, asyncio.get_running_loop(), broker, *sides)
        finally:
            await broker.stop()


@contextlib.contextmanager
def android(adb: AdbServer, folder: Path) -> Iterator[Android]:
    """All of it, running, for as long as the block."""
    with kept_open(lambda: _running(adb, folder)) as (one, _):
        one.until(lambda: one.navigation.active and one.crashes.active and one.images.active and one.leaks.active)
        one.do(lambda: one.images.load(Image("https://x.example/a.png", 10, 20)))
        yield one
