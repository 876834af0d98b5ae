"""An app with an emulated Flipper SDK on an emulated device, behind a real adb server, and a broker in this process."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, ClassVar

from emulated_apps import AppPlugin, Databases
from emulated_apps.core import FlipperCore
from emulated_apps.plugin import Params, Receiver
from emulated_apps.sdk import Profile, Sdk
from emulated_apps.sonar_folder import SonarFolder
from emulated_apps.websocket_sdk import WebSocketSdk
from rsocket_broker.broker import Broker
from rsocket_broker.routing.session import Session
from rsocket_broker.settings import ListenSettings, Settings
from tests.emulated_device import AdbServer, AppSandbox, EmulatedDevice
from tests.end_to_end.processes import run_here
from tests.until import until

RECORDER = Path(__file__).parent / "recorder_plugin.py"
ANY_PORTS = ListenSettings(insecure_port=0, secure_port=0)
PATIENCE = 30.0
RETRY = 0.05
"""Seconds between two tries of an emulated SDK in a test."""


class Recorder(AppPlugin):
    """The app's side of `recorder_plugin.py`."""

    id: ClassVar[str] = "Recorder"
    background: ClassVar[bool] = True

    def receivers(self) -> dict[str, Receiver]:
        return {"reverse": self._reverse}

    def _reverse(self, params: Params) -> object:
        return {"text": params["text"][::-1]}


@contextlib.asynccontextmanager
async def running(home: Path, adb: AdbServer | None = None, **changes: Any) -> AsyncIterator[Broker]:
    """A broker with the recorder plugin."""
    settings: dict[str, Any] = {
        "listen": ANY_PORTS,
        "adb": "off" if adb is None else f"{adb.address[0]}:{adb.address[1]}",
        "plugins": (str(RECORDER),),
    }
    broker = Broker(Settings(home=home, **(settings | changes)))
    try:
        await broker.start()
        yield broker
    finally:
        await broker.stop()


async def command(home: Path, *arguments: str) -> tuple[int, str]:
    """`rsocket-broker ARGUMENTS`: exit code, and all that it said."""
    return await asyncio.to_thread(run_here, home, *arguments)


async def rotate(home: Path, step: str) -> None:
    code, text = await command(home, "ca", "rotate", step)
    assert code == 0, text


class Phone:
    """One app on one device. `sdk()` makes the next life of its process; its files stay from life to life."""

    def __init__(self, device: EmulatedDevice, era: Callable[..., Sdk], ports: tuple[int, int], package: str) -> None:
        self.device, self.era, self.ports = device, era, ports
        self.sandbox = AppSandbox(device, package)
        self.folder = SonarFolder(self.sandbox.folder, self.sandbox.destination)
        self.profile = Profile(package, app="Phone")
        self.recorder = Recorder()
        self.databases = Databases(self.sandbox.container / "databases")

    def sdk(self, **changes: Any) -> Sdk:
        insecure, secure = self.ports
        settings: dict[str, Any] = {
            "insecure_port": lambda: self.device.reverse.port(insecure),
            "secure_port": lambda: self.device.reverse.port(secure),
            "host": "127.0.0.1",
            "retry": RETRY,
        }
        if self.era is WebSocketSdk:
            settings["connect_limit"] = PATIENCE
        return self.era(self.profile, self.folder, FlipperCore([self.recorder, self.databases]), **settings | changes)

    def session(self, broker: Broker) -> Session:
        return broker.sessions.find(self.profile.app_id)


async def exchange_both_ways(phone: Phone, broker: Broker, sdk: Sdk) -> None:
    """getPlugins, init and execute, from both sides."""
    await until(lambda: phone.recorder.active)
    session = phone.session(broker)
    asked = [message["method"] for message in sdk.core.asked]
    assert asked[:2] == ["getPlugins", "getBackgroundPlugins"]
    assert await session.to_app.call("Recorder", "reverse", {"text": "abc"}, PATIENCE) == {"text": "cba"}
    plugin = broker.plugin("Recorder")
    number = len(plugin.events)  # type: ignore[attr-defined]
    phone.recorder.emit("noted", {"n": number})
    await until(lambda: len(plugin.events) > number)  # type: ignore[attr-defined]
    assert plugin.events[-1] == {"app_id": phone.profile.app_id, "params": {"n": number}}  # type: ignore[attr-defined]
