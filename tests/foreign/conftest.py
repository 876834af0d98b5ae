"""A broker for clients that are not ours, and the means to run those that are not Python."""

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.processes import BrokerProcess, start_broker
from tests.foreign.programs import Lines

HERE = Path(__file__).parent
HEARD_WITHIN = 15.0


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    running = start_broker(
        tmp_path_factory.mktemp("foreign") / "home", "--plugin", str(HERE / "recorder_plugin.py"), "--plugin", "echo"
    )
    yield running
    assert running.stop() == 0, running.log.read_text()


@pytest.fixture(scope="session")
def java(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lines]:
    """`java/Verifier.java`, compiled and running."""
    if shutil.which("java") is None or shutil.which("javac") is None:
        pytest.skip("needs java and javac")
    classes = tmp_path_factory.mktemp("classes")
    subprocess.run(["javac", "-d", str(classes), str(HERE / "java" / "Verifier.java")], check=True)
    program = Lines("java", "-cp", str(classes), "Verifier")
    yield program
    program.close()


class JsApp:
    """One run of `js/flipper_app.js`. What it tells is kept in `told`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.told: list[dict[str, Any]] = []
        self._news = asyncio.Condition()
        self._reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            async with self._news:
                self.told.append(json.loads(line))
                self._news.notify_all()
        async with self._news:
            self.told.append({"happened": "end"})
            self._news.notify_all()

    async def heard(self, happened: str, **fields: object) -> dict[str, Any]:
        """The first thing told, so far or soon, with these fields."""
        wanted = {"happened": happened, **fields}

        def found() -> dict[str, Any] | None:
            return next((one for one in self.told if wanted.items() <= one.items()), None)

        async with asyncio.timeout(HEARD_WITHIN), self._news:
            await self._news.wait_for(lambda: found() or {"happened": "end"} in self.told)
        answer = found()
        assert answer is not None, f"the app ended without {wanted}; it told {self.told}"
        return answer

    def command(self, **fields: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(fields).encode() + b"\n")

    async def end(self) -> None:
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()
        await self.process.wait()
        await self._reader


RunJsApp = Callable[..., AbstractAsyncContextManager[JsApp]]


@contextlib.asynccontextmanager
async def run_js_app(
    broker: BrokerProcess, node_path: Path, folder: Path, app_id: str, **options: object
) -> AsyncIterator[JsApp]:
    """The app at work against a broker, from the folder that holds its key and request."""
    settings = {
        "host": "localhost",
        "insecurePort": broker.insecure_port,
        "securePort": broker.secure_port,
        "directory": str(folder),
        "app": "Foreign",
        "appId": app_id,
        "plugins": ["Recorder", "Screen"],
        "backgroundPlugins": ["Recorder"],
    } | options
    process = await asyncio.create_subprocess_exec(
        "node",
        str(HERE / "js" / "flipper_app.js"),
        json.dumps(settings),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "NODE_PATH": str(node_path)},
    )
    app = JsApp(process)
    try:
        yield app
    finally:
        await app.end()


@pytest.fixture
def js_app(node_path: Path, broker: BrokerProcess) -> RunJsApp:
    """`async with js_app(folder, app_id, **options) as app`: against the broker of the module."""
    return partial(run_js_app, broker, node_path)
