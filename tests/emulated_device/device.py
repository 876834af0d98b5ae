"""EmulatedDevice: one Android device, as the adb server sees it."""

import asyncio
import contextlib
import itertools
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.emulated_device.faults import Fault
from tests.emulated_device.link import Link, LinkLost, Stream
from tests.emulated_device.reverse import ReverseForwards
from tests.emulated_device.sandbox import Sandbox
from tests.emulated_device.services import run_plain, run_v2, send_exit
from tests.emulated_device.wire import UNCHECKED

FIRST_APP_UID = 10123


class EmulatedDevice:
    """Listens on a loopback port for `adb connect`. Its adb serial is that address, as it is for a device on Wi-Fi.

    `shell_v2`: the device knows exit codes and closable input, as since Android 7. `sdk` is only what getprop says.
    `version`: see Link. Attributes that a test may change at any time: `hung` (accepts the line, answers nothing),
    `authorized`, `commands` (every service asked for, in order), `faults`.
    """

    def __init__(
        self,
        root: Path,
        *,
        serialno: str = "EMULATED0001",
        android_id: str = "f00d0000cafe0001",
        model: str = "Pixel Emulated",
        sdk: int = 33,
        shell_v2: bool = True,
        su: str | None = None,
        version: int = UNCHECKED,
        authorized: bool = True,
    ) -> None:
        self.sandbox = Sandbox(root)
        self.sandbox.facts["properties"] = {
            "ro.serialno": serialno,
            "ro.product.model": model,
            "ro.product.cpu.abi": "x86_64",
            "ro.build.version.sdk": str(sdk),
        }
        self.sandbox.facts["settings"] = {"get secure android_id": android_id} if android_id else {}
        self.sandbox.facts["su"] = su
        self.shell_v2, self.version, self.authorized = shell_v2, version, authorized
        self.hung = False
        self.commands: list[str] = []
        self.faults: Callable[[int, str], Fault | None] = lambda _index, _line: None
        self.reverse = ReverseForwards(self.current_link)
        self.uids = itertools.count(FIRST_APP_UID)
        self.links: set[Link] = set()
        self.lines: set[asyncio.Task[None]] = set()
        self.server: asyncio.Server | None = None
        self.address = ("127.0.0.1", 0)

    def write_log(
        self, tag: str, message: str, *, level: str = "I", pid: int = 1000, tid: int = 1000, at: float | None = None
    ) -> None:
        """Adds an entry to the device's log, one line of it for each of the message. `at` in seconds since 1970."""
        seconds = time.time() if at is None else at
        shown = time.strftime("%m-%d %H:%M:%S", time.gmtime(seconds)) + f".{int(seconds % 1 * 1000):03d}"
        with (self.sandbox.root / "log").open("a", encoding="utf-8") as file:
            for line in message.split("\n"):
                file.write(f"{shown} {pid:5} {tid:5} {level} {tag:<8}: {line}\n")

    def run_process(self, name: str, pid: int) -> None:
        """A process of this name is running from now on."""
        self.sandbox.facts["processes"][pid] = name
        self.sandbox.save()

    @property
    def opened(self) -> list[tuple[str, str]]:
        """The links that apps were asked to open: (package, URI)."""
        path = self.sandbox.root / "opened"
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        return [(line.partition("\t")[0], line.partition("\t")[2]) for line in lines]

    @property
    def serial(self) -> str:
        return f"{self.address[0]}:{self.address[1]}"

    async def __aenter__(self) -> Self:
        self.sandbox.make()
        await self.appear()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.vanish()
        await self.sandbox.stop()

    async def appear(self) -> None:
        """Listens on a free port. What apps kept from before is still there; forwards are not."""
        self.server = await asyncio.start_server(self.answer, "127.0.0.1", 0)
        self.address = self.server.sockets[0].getsockname()[:2]

    async def vanish(self) -> None:
        """The cable is pulled: no line, no listener, no reverse forwards. Commands that run are not told."""
        if self.server is not None:
            self.server.close()
            self.server = None
        for link in list(self.links):
            link.drop()
        self.reverse.clear()
        others = self.lines - {asyncio.current_task()}
        if not any(asyncio.current_task() in link.tasks for link in self.links):
            await asyncio.gather(*others, return_exceptions=True)

    def current_link(self) -> Link:
        for link in self.links:
            return link
        raise LinkLost

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection of the adb server."""
        properties = self.sandbox.facts["properties"]
        features = "shell_v2,cmd" if self.shell_v2 else "cmd"
        banner = f"device::ro.product.model={properties['ro.product.model']};features={features}"
        link = Link(
            reader,
            writer,
            banner=banner.encode(),
            serve=self.serve,
            version=self.version,
            authorized=self.authorized,
        )
        task = asyncio.current_task()
        assert task is not None
        self.lines.add(task)
        self.links.add(link)
        try:
            await link.run()
        finally:
            self.links.discard(link)
            self.lines.discard(task)
            if not self.links:
                self.reverse.clear()  # a device's listeners for an adb server live no longer than the line to it

    async def serve(self, stream: Stream, name: str) -> None:
        """One service that the adb server asked for."""
        if self.hung:
            await asyncio.Event().wait()
        if name.startswith("reverse:"):
            stream.link.accept(stream)
            await self.reverse.serve(stream, name.removeprefix("reverse:"))
            return
        kind, _, line = name.partition(":")
        if kind.partition(",")[0] not in ("shell", "exec") or ("v2" in kind and not self.shell_v2):
            return
        self.commands.append(line)
        fault = self.faults(len(self.commands) - 1, line)
        if fault is Fault.HANG:
            await asyncio.Event().wait()
        if fault is Fault.VANISH_BEFORE:
            await self.vanish()
            return
        stream.link.accept(stream)
        if "v2" in kind:
            await self.run_v2(stream, line, fault)
        else:
            await run_plain(self.sandbox, stream, line, terminal=kind == "shell")

    async def run_v2(self, stream: Stream, line: str, fault: Fault | None) -> None:
        with contextlib.suppress(LinkLost):
            code = await run_v2(self.sandbox, stream, line, half_input=fault is Fault.VANISH_MIDWAY)
            if fault is not None:
                await self.vanish()
            await send_exit(stream, code)
