"""A whole broker in this process with apps of our SDK, for the tests of what happens to their identities."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import attrs

from rsocket_broker import client
from rsocket_broker.admin.run_folder import Ports
from rsocket_broker.authority import Authority
from rsocket_broker.broker import Broker
from rsocket_broker.client.folder import AppFolder, Enrolled
from rsocket_broker.enrollment.containers import Containers
from rsocket_broker.lifecycle.spreader import Spread, Which
from rsocket_broker.lifecycle.upkeep import Upkeep
from rsocket_broker.routing.session import Session
from rsocket_broker.settings import ListenSettings, Settings

ANY_PORTS = ListenSettings(insecure_port=0, secure_port=0, ws_secure_port=0)
QUICK = client.Backoff(first=0.01, longest=0.05)


@attrs.frozen
class Lab:
    """A running broker. Parts of it are looked into that have no name on the outside."""

    broker: Broker
    folder: Path
    ports: Ports

    @property
    def authority(self) -> Authority:
        assert self.broker._authority is not None
        return self.broker._authority

    @property
    def containers(self) -> Containers:
        return self.upkeep.spreader._containers

    @property
    def upkeep(self) -> Upkeep:
        assert self.broker._upkeep is not None
        return self.broker._upkeep

    def app(self, name: str = "demo", **changes: Any) -> AbstractAsyncContextManager[client.Session]:
        ports = self.ports
        settings: dict[str, Any] = {
            "app_id": f"org.example.{name}",
            "app": name,
            "directory": self.folder / name,
            "insecure_port": ports.insecure_port,
            "secure_port": ports.secure_port,
            "backoff": QUICK,
            "timeout": 30,
        }
        return client.connect(**(settings | changes))

    def held(self, name: str = "demo") -> Enrolled:
        """What the app's folder holds."""
        return AppFolder(self.folder / name).load()

    def session(self, name: str = "demo") -> Session:
        return self.broker.sessions.find(f"org.example.{name}")

    async def trust(self) -> list[Spread]:
        return [spread async for spread in self.upkeep.spreader.spread_trust()]

    async def pairs(self, which: Which = Which.ALL) -> list[Spread]:
        return [spread async for spread in self.upkeep.spreader.spread_pairs(which)]

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not holds():
                await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def lab(tmp_path: Path, home: Path, **changes: Any) -> AsyncIterator[Lab]:
    broker = Broker(Settings(home=home, **({"listen": ANY_PORTS, "adb": "off"} | changes)))
    try:
        await broker.start()
        yield Lab(broker, tmp_path / "apps", broker.ports)
    finally:
        await broker.stop()
