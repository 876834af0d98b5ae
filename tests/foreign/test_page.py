"""docs/howto/give-a-page-a-session.md, done from its top to its end, the page on rsocket-js 1.0."""

import asyncio
import json
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rsocket_broker import client
from tests.end_to_end.processes import BrokerProcess, start_broker
from tests.interop.libraries import HERE as INTEROP
from tests.interop.libraries import node_modules

PAGE = Path(__file__).parent / "js" / "page.js"
GUIDE = (Path(__file__).parents[2] / "docs" / "howto" / "give-a-page-a-session.md").read_text(encoding="utf-8")
APP = "com.example.desktop"
FORGED = "rsb_" + "A" * 43


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)


def steps() -> dict[str, str]:
    """What the guide says each command prints."""
    found = re.split(r"^\$ (.*)\n", "".join(blocks("console")), flags=re.MULTILINE)[1:]
    return dict(zip(found[::2], found[1::2], strict=True))


def plain(text: str) -> str:
    """What is the same on every machine and every day."""
    text = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", "TIME", text)
    text = re.sub(r"rsb_[\w-]+|rsb_…", "TOKEN", re.sub(r"s-[0-9a-f]{12}", "ID", text))
    text = re.sub(r"@\S+", "@DEVICE", re.sub(r"[\d.]+ ms", "MS", text))
    return re.sub(r" +", " ", text).strip()


@pytest.fixture(scope="module")
def packages() -> Path:
    return node_modules(INTEROP / "js" / "rsocket-1")


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    running = start_broker(tmp_path_factory.mktemp("page") / "home", "--http-port", "0")
    yield running
    assert running.stop() == 0, running.log.read_text()


@pytest.fixture
async def desktop(broker: BrokerProcess, tmp_path: Path) -> AsyncIterator[client.Session]:
    async with client.connect(
        app_id=APP,
        app="Desktop",
        directory=tmp_path / "app",
        insecure_port=broker.insecure_port,
        secure_port=broker.secure_port,
        timeout=15,
    ) as session:
        yield session


def address(broker: BrokerProcess) -> str:
    return f"ws://localhost:{broker.ports['http_port']}/rsocket"


class Page:
    """A run of page.js."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def line(self) -> str:
        assert self._process.stdout is not None
        return (await asyncio.wait_for(self._process.stdout.readline(), 15)).decode().strip()

    async def rest(self) -> str:
        out, _ = await asyncio.wait_for(self._process.communicate(), 15)
        return out.decode().strip()


OpenPage = Callable[[str], Awaitable[Page]]


@pytest.fixture
async def page(broker: BrokerProcess, packages: Path) -> AsyncIterator[OpenPage]:
    """`await page(token)`: page.js at work against the broker."""
    running: list[asyncio.subprocess.Process] = []

    async def run(token: str) -> Page:
        process = await asyncio.create_subprocess_exec(
            "node",
            str(PAGE),
            address(broker),
            token,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, "NODE_PATH": str(packages)},
        )
        running.append(process)
        return Page(process)

    yield run
    for process in running:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def command(broker: BrokerProcess, *arguments: str) -> str:
    done = await asyncio.to_thread(broker.command, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stderr + done.stdout


async def made_as_the_guide_does(session: client.Session) -> dict[str, Any]:
    names: dict[str, Any] = {"session": session}
    code = "async def step():\n" + "".join(f"    {line}\n" for line in blocks("python")[0].splitlines())
    exec(code + "    return made\n", names)
    made: dict[str, Any] = await names["step"]()
    return made


@pytest.mark.row("W-2", "W-6", "W-7", "W-11", "W-12", "A-60", "A-59")
async def test_the_guide_from_its_top_to_its_end(
    broker: BrokerProcess, desktop: client.Session, page: OpenPage
) -> None:
    expected = steps()
    made = await made_as_the_guide_does(desktop)
    assert plain(json.dumps(made)) == plain(json.dumps(json.loads(blocks("json")[0]), ensure_ascii=False))
    token, node = made["token"], made["id"]

    assert PAGE.read_text(encoding="utf-8") == blocks("javascript")[0]
    inspector = await page(token)
    said = [await inspector.line(), await inspector.line()]
    assert said == expected["node page.js ws://localhost:8080/rsocket rsb_…"].splitlines()

    login = "sessions login com.example.desktop --name bench --for 1h --scope 'echo.*'"
    said_of_bench = await command(broker, *login.replace("'", "").split())
    assert plain(said_of_bench) == plain(expected[f"rsocket-broker {login}"])

    assert plain(await command(broker, "sessions", "list")) == plain(expected["rsocket-broker sessions list"])

    revoke = next(one for one in expected if " sessions revoke " in one)
    receipt = await command(broker, "sessions", "revoke", node)
    assert plain(receipt) == plain(expected[revoke])
    closed, refused = blocks("text")
    assert await inspector.rest() == closed.strip()

    late = await page(token)
    assert refused.strip() in await late.rest()


@pytest.mark.row("A-33")
async def test_a_stranger_gets_nothing_from_the_port(broker: BrokerProcess, page: OpenPage) -> None:
    assert "There is no session for this token here" in await (await page(FORGED)).rest()


@pytest.mark.row("W-12", "A-59", "W-4")
async def test_pages_end_with_the_app(broker: BrokerProcess, page: OpenPage, tmp_path: Path) -> None:
    async with client.connect(
        app_id="com.example.leaving",
        app="Leaving",
        directory=tmp_path / "app",
        insecure_port=broker.insecure_port,
        secure_port=broker.secure_port,
        timeout=15,
    ) as session:
        made = await session.request("sessions.login", {"name": "page"})
        inspector = await page(made["token"])
        assert await inspector.line() == "{ hello: 'broker' }"
    assert "closed: This session has ended" in await inspector.rest()
    assert "has ended" in await (await page(made["token"])).rest()
