"""AdbServer: a private, real adb server, with a home and a port of its own."""

import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.emulated_device.device import EmulatedDevice

ADB_MISSING = "needs adb: `apt-get install adb` (Debian, Ubuntu) or `brew install android-platform-tools` (macOS)"
PATIENCE = 20.0
"""Seconds for the server to start; the first start in a new home makes an RSA key."""
POLL = 0.02
LAST_WORDS = 2000
"""Characters of its log that are shown when the server has ended by itself."""


def adb_program() -> str | None:
    return shutil.which("adb")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class AdbServer:
    """`async with AdbServer(folder) as server:`; `folder` becomes its HOME. It may outlive the event loop."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = 0
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> tuple[str, int]:
        return ("127.0.0.1", self.port)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    async def start(self) -> None:
        """Starts the server on `port`; a second start after `stop` uses the same port and the same home."""
        self.port = self.port or free_port()
        program = adb_program()
        assert program is not None, ADB_MISSING
        self.folder.mkdir(parents=True, exist_ok=True)
        # The highest port equal to the lowest: no search for real emulators on this machine.
        quiet = {"HOME": str(self.folder), "ANDROID_SDK_HOME": str(self.folder), "ADB_LOCAL_TRANSPORT_MAX_PORT": "5554"}
        with (self.folder / "adb.log").open("ab") as log:
            self.process = subprocess.Popen(
                [program, "-L", f"tcp:localhost:{self.port}", "server", "nodaemon"],
                env={**os.environ, **quiet},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        async with asyncio.timeout(PATIENCE):
            while not await self.answers():
                await asyncio.sleep(POLL)

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    @property
    def ended(self) -> bool:
        """Whether the server has ended by itself."""
        return self.process is not None and self.process.poll() is not None

    async def answers(self) -> bool:
        try:
            await self.exchange("host:version")
        except (OSError, asyncio.IncompleteReadError):
            return False
        return True

    async def ask(self, request: str) -> str:
        """One request of the host protocol whose answer is a string.

        Raises AssertionError when the server says no, and with its last words when it has ended.
        """
        try:
            return await self.exchange(request)
        except (OSError, asyncio.IncompleteReadError):
            assert not self.ended, f"the adb server ended by itself: {self.last_words()}"
            raise

    def last_words(self) -> str:
        return (self.folder / "adb.log").read_text(encoding="utf-8", errors="replace")[-LAST_WORDS:]

    async def exchange(self, request: str) -> str:
        reader, writer = await asyncio.open_connection(*self.address)
        try:
            writer.write(f"{len(request):04x}{request}".encode())
            status = await reader.readexactly(4)
            size = int(await reader.readexactly(4), 16)
            text = (await reader.readexactly(size)).decode()
            assert status == b"OKAY", text
            return text
        finally:
            writer.close()

    async def connect(self, device: EmulatedDevice) -> None:
        """`adb connect`, and waits until the device can be used. Raises TimeoutError if it never can."""
        await self.attach(device)
        await self.wait_state(device, "device")

    async def bring_back(self, device: EmulatedDevice) -> None:
        """A device that vanished is there again, under another adb serial, as emulators do.

        Under the same serial it would be truer to a phone on a cable, but adb 29 aborts when it is told to connect to
        an address while it is still busy with the old line to it.
        """
        await self.wait_state(device, "offline", "")
        if device.serial in await self.states():
            await self.disconnect(device)
        await device.appear()
        await self.connect(device)

    @contextlib.asynccontextmanager
    async def attached(self, device: EmulatedDevice) -> AsyncIterator[EmulatedDevice]:
        """Connects a device for the length of the block; the server has forgotten it at the end."""
        async with device:
            await self.connect(device)
            try:
                yield device
            finally:
                if self.process is not None and not self.ended and device.serial in await self.states():
                    await self.disconnect(device)

    async def attach(self, device: EmulatedDevice) -> str:
        """`adb connect` alone: answers what the server says about it."""
        return await self.ask(f"host:connect:{device.serial}")

    async def disconnect(self, device: EmulatedDevice) -> None:
        """`adb disconnect`: the server forgets the device."""
        await self.ask(f"host:disconnect:{device.serial}")

    async def states(self) -> dict[str, str]:
        """adb serial → `device`, `offline`, `unauthorized`…"""
        lines = (await self.ask("host:devices")).splitlines()
        return dict(line.split("\t", 1) for line in lines)

    async def wait_state(self, device: EmulatedDevice, *wanted: str) -> None:
        """Waits until the server says that the device is in one of the states `wanted`; "" stands for "not listed"."""
        async with asyncio.timeout(PATIENCE):
            while (await self.states()).get(device.serial, "") not in wanted:
                await asyncio.sleep(POLL)
