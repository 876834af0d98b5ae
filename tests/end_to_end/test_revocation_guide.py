"""docs/howto/revoke-a-client.md, run from its top to its end on a broker: what it prints is what the commands print.

`python tests/end_to_end/test_revocation_guide.py` writes what they print now into the page.
"""

import asyncio
import contextlib
import re
import shlex
import subprocess
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from rsocket_broker import client
from rsocket_broker.authority.crl import KEPT, LIFE
from rsocket_broker.authority.lists import FRESH
from tests.end_to_end.processes import BrokerProcess, clean_environment, program, start_broker

GUIDE = Path(__file__).parent.parent.parent / "docs" / "howto" / "revoke-a-client.md"
CONSOLE = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
APP = "org.example.camera"
PHONES = ("phone-1", "phone-2")


def plain(text: str) -> str:
    """What is the same on every machine and every day."""
    text = re.sub(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d)?([.]\d+)?([+]00:00|Z| UTC)?", "TIME", text)
    text = re.sub(r"\d{4}-\d\d-\d\d", "DAY", text)
    text = re.sub(r"\b(?=[0-9a-f]*[1-9a-f])[0-9a-f]{30,64}\b", "HEX", text)
    return re.sub(r"\b\d+([.]\d+)? ms\b", "N ms", re.sub(r"  +", " ", text)).strip()


@contextlib.asynccontextmanager
async def connected(broker: BrokerProcess, folder: Path, device: str) -> AsyncIterator[None]:
    """The app on one phone, with a certificate that was issued by hand, and a stream that is open."""
    await asyncio.to_thread(
        run, folder, broker.home, f"rsocket-broker ca issue --app-id {APP} --device-id {device} --out {device}"
    )
    async with client.connect(
        app_id=APP,
        app="Camera",
        device=device,
        backoff=client.Backoff(first=60, longest=60),  # the page is not about how it comes back
        directory=folder / device,
        insecure_port=broker.insecure_port,
        secure_port=broker.secure_port,
        resume=False,
    ) as session:
        waiting = asyncio.ensure_future(session.request("echo.never", 1))
        assert await session.request("echo.request", 1) == 1
        yield
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)


async def printed(folder: Path) -> str:
    """The page with what its commands print."""
    broker = start_broker(folder / "home")
    try:
        async with contextlib.AsyncExitStack() as stack:
            for device in PHONES:
                await stack.enter_async_context(connected(broker, folder, device))
            parts = CONSOLE.split(GUIDE.read_text(encoding="utf-8"))
            for index in range(1, len(parts), 2):
                commands = re.findall(r"^\$ (.*)\n", parts[index], re.MULTILINE)
                said = [await asyncio.to_thread(run, folder, broker.home, command) for command in commands]
                shown = "".join(f"$ {command}\n{text}" for command, text in zip(commands, said, strict=True))
                parts[index] = f"```console\n{shown}```"
            return "".join(parts)
    finally:
        assert broker.stop() == 0


def run(folder: Path, home: Path, command: str) -> str:
    """What it prints, on stdout and then on stderr."""
    words = shlex.split(command)
    assert words[0] == "rsocket-broker"
    done = subprocess.run(
        program(home, *words[1:]), cwd=folder, capture_output=True, text=True, env=clean_environment(), check=False
    )
    return done.stdout + done.stderr


@pytest.mark.row("D-3", "A-23")
async def test_the_guide_prints_what_the_commands_print(tmp_path: Path) -> None:
    assert plain(await printed(tmp_path)) == plain(GUIDE.read_text(encoding="utf-8"))


def test_the_guide_names_the_figures_of_the_code() -> None:
    text = GUIDE.read_text(encoding="utf-8")
    assert f"good for {LIFE.days} days" in text and f"leaves it {KEPT.days} days later" in text
    assert FRESH.total_seconds() == 3600 and "at most an hour old" in text


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        GUIDE.write_text(asyncio.run(printed(Path(scratch))), encoding="utf-8")
