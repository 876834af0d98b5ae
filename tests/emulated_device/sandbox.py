"""The folder that stands for a device's file system, and the real shell that runs its commands there."""

import asyncio
import contextlib
import marshal
import os
import shlex
import signal
import sys
from pathlib import Path
from typing import Any

import attrs

from tests.emulated_device import android_tools
from tests.emulated_device.faults import Trouble

TOOLS = tuple(android_tools.PROGRAMS)


@attrs.define(eq=False)
class Process:
    """A running command of the device."""

    child: asyncio.subprocess.Process

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.child.pid, signal.SIGKILL)
        self.close()

    def close(self) -> None:
        """Closes the pipes. By itself asyncio does so only when all that was printed has been read, and until then
        waits for a process that has long ended; nobody may want to read it."""
        self.child._transport.close()  # type: ignore[attr-defined]


class Sandbox:
    """`facts` is what `android_tools.py` reads; change it and call `save`."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        assert shlex.quote(str(self.root)) == str(self.root), "the folder's name must need no quotes in a shell"
        self.facts: dict[str, Any] = {
            "packages": {},
            "properties": {},
            "settings": {},
            "clock_offset": 0,
            "su": None,
            "run_as_knows_users": True,
            "processes": {},
            "old_ps": False,
            "am_fails": 0,
            "picture": b"",
        }
        self.processes: set[Process] = set()

    def make(self) -> None:
        for folder in ("system/bin", "data/local/tmp", "vault"):
            (self.root / folder).mkdir(parents=True, exist_ok=True)
        for tool in TOOLS:
            script = self.root / "system/bin" / tool
            program = shlex.join([sys.executable, "-I", "-S", android_tools.__file__, tool, str(self.root)])
            script.write_text(f'#!/bin/sh\nexec {program} "$@"\n', encoding="utf-8")
            script.chmod(0o755)
        (self.root / "log").touch()
        self.save()

    def save(self) -> None:
        beside = self.root / "device.facts.new"
        beside.write_bytes(marshal.dumps(self.facts))
        beside.rename(self.root / "device.facts")

    def install(self, package: str, user: int, uid: int) -> Path:
        """Adds a package for one user of the device; answers where its container really is."""
        self.facts["packages"][f"{user}/{package}"] = {"uid": uid, "trouble": None}
        self.save()
        container = self.root / "vault" / str(user) / package
        container.mkdir(parents=True, exist_ok=True)
        return container

    def set_trouble(self, package: str, user: int, trouble: Trouble | None) -> None:
        item = self.facts["packages"][f"{user}/{package}"]
        item["trouble"] = {None: None, Trouble.READ_ONLY: "READ_ONLY"}.get(trouble, trouble and trouble.value)
        self.save()

    def inside(self, line: str) -> str:
        """A command line of the device with its absolute data paths moved into this folder."""
        return line.replace("/data/", f"{self.root}/data/")

    def outside(self, output: bytes) -> bytes:
        """Output as the device would print it: user 0's containers under /data/data, the others' under /data/user."""
        vault = f"{self.root}/vault/".encode()
        output = output.replace(vault + b"0/", b"/data/data/").replace(vault, b"/data/user/")
        return output.replace(str(self.root).encode() + b"/", b"/")

    async def start(self, line: str, *, split: bool) -> Process:
        """Runs `line` with the machine's own /bin/sh. `split`: standard error apart from standard output."""
        child = await asyncio.create_subprocess_exec(
            "/bin/sh",
            "-c",
            self.inside(line),
            cwd=self.root,
            env={"PATH": f"{self.root}/system/bin:/usr/bin:/bin", "HOME": str(self.root), "LC_ALL": "C"},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE if split else asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        process = Process(child)
        self.processes.add(process)
        return process

    async def finished(self, process: Process) -> int:
        code = await process.child.wait()
        process.close()
        self.processes.discard(process)
        return code

    async def idle(self) -> None:
        """Waits until every command has ended by itself, those too whose line has dropped."""
        for process in list(self.processes):
            await self.finished(process)

    async def stop(self) -> None:
        for process in list(self.processes):
            process.kill()
            await self.finished(process)
