"""docs/howto/rotate-the-ca.md, run from its top to its end on a broker: what it prints is what the commands print.

`python tests/end_to_end/test_rotation_guide.py` writes what they print now into the page.
"""

import asyncio
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from rsocket_broker import client
from rsocket_broker.authority.generations import ANCHOR_AGE
from tests.end_to_end.processes import clean_environment, program, start_broker

GUIDE = Path(__file__).parent.parent.parent / "docs" / "howto" / "rotate-the-ca.md"
CONSOLE = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SHOWN_HOME = "/var/lib/rsocket-broker"


def steps(block: str) -> list[tuple[str, str]]:
    """Each command of a block with what it prints."""
    found = re.split(r"^\$ (.*)\n", block, flags=re.MULTILINE)[1:]
    return list(zip(found[::2], found[1::2], strict=True))


NOTHING_LEFT = "clients   all of them have what they need", "clients   anchors: 1 done"
"""What runs by itself after each step of a rotation may have brought the one app its anchors before the command did."""


def plain(text: str) -> str:
    """What is the same on every machine and every day."""
    text = re.sub(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d)?([.]\d+)?([+]00:00|Z| UTC)?", "TIME", text)
    text = re.sub(r"\bhost-[0-9a-f]{16}\b", "DEVICE", text)
    text = text.replace(*NOTHING_LEFT)
    return re.sub(r"  +", " ", text).strip()


async def printed(folder: Path) -> str:
    """The page with what its commands print on a broker with its two clients."""
    home = folder / "home"
    broker = start_broker(home, "--http-port", "0")
    page = GUIDE.read_text(encoding="utf-8")
    try:
        await asyncio.to_thread(run, folder, home, "rsocket-broker ca issue --app-id org.example.tablet --out tablet")
        camera = client.connect(
            app_id="org.example.camera",
            app="Camera",
            directory=folder / "camera",
            insecure_port=broker.insecure_port,
            secure_port=broker.secure_port,
        )
        async with camera as session:
            await until_kept(folder, home)
            parts = CONSOLE.split(page)
            for index in range(1, len(parts), 2):
                lines = []
                for command, _ in steps(parts[index]):
                    assert await session.request("echo.request", 1) == 1, "the session goes on"
                    said = await asyncio.to_thread(run, folder, home, command)
                    lines.append(f"$ {command}\n{said}")
                parts[index] = f"```console\n{''.join(lines)}```"
            return "".join(parts)
    finally:
        assert broker.stop() == 0


async def until_kept(folder: Path, home: Path) -> None:
    """The broker writes down what lies in a container once the app has had its answer."""
    async with asyncio.timeout(20):
        while "1 of 1" not in await asyncio.to_thread(run, folder, home, "rsocket-broker ca rotate status"):
            await asyncio.sleep(0.05)


def run(folder: Path, home: Path, command: str) -> str:
    words = command.split()
    assert words[0] == "rsocket-broker"
    done = subprocess.run(
        program(home, *words[1:]), cwd=folder, capture_output=True, text=True, env=clean_environment()
    )
    return (done.stdout + done.stderr).replace(str(home), SHOWN_HOME)


@pytest.mark.timeout(180)
@pytest.mark.row("A-14", "A-15", "A-16", "D-1")
async def test_the_guide_prints_what_the_commands_print(tmp_path: Path) -> None:
    now = CONSOLE.findall(await printed(tmp_path))
    shown = CONSOLE.findall(GUIDE.read_text(encoding="utf-8"))
    for block, expected in zip(now, shown, strict=True):
        for (command, said), (_, wanted) in zip(steps(block), steps(expected), strict=True):
            assert plain(said) == plain(wanted), command


def test_the_figures_are_those_of_the_code() -> None:
    assert f"every {ANCHOR_AGE.days} days" in GUIDE.read_text(encoding="utf-8")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        GUIDE.write_text(asyncio.run(printed(Path(name))), encoding="utf-8")
    sys.stdout.write(f"{GUIDE} is up to date\n")
