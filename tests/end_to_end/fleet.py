"""Many clients at work on one broker: some call all the time, some come and go. What goes wrong for any is kept."""

import asyncio
import contextlib
import re
import socket
import urllib.request
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import attrs

from rsocket_broker import client
from rsocket_broker.client.progress import Progress, Stage
from tests.end_to_end import wire
from tests.end_to_end.processes import BrokerProcess
from tests.end_to_end.wire import Line
from tests.foreign.sdk_folder import client_context, enrolled_folder

CALL_PAUSE = 0.05
"""Seconds between two calls of one client: two hundred of them keep a small machine busy, and leave room for others."""
VISIT_PAUSE = 0.02
BACKOFF = client.Backoff(first=0.05, longest=0.2)
STARTING = 16
"""Clients that enrol at a time."""
TROUBLE = {Stage.LOST, Stage.INTERRUPTED, Stage.FAILED}
HANDSHAKES = re.compile(r'^rsocket_broker_tls_handshakes_total\{port="(\w+)",result="([^"]+)"\} (\d+)', re.MULTILINE)


@attrs.define
class Fleet:
    """Clients of one broker, in folders below `folder`. All of it ends with the block."""

    broker: BrokerProcess
    folder: Path
    calls: int = 0
    visits: int = 0
    trouble: list[str] = attrs.field(factory=list)
    """What a client met that it should not have: a line that was lost, a call that failed, a handshake refused."""
    _tasks: asyncio.TaskGroup = attrs.field(factory=asyncio.TaskGroup, init=False)
    _over: asyncio.Event = attrs.field(factory=asyncio.Event, init=False)
    _turn: asyncio.Semaphore = attrs.field(factory=lambda: asyncio.Semaphore(STARTING), init=False)

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        await self._tasks.__aexit__(kind, error, trace)

    # ---- clients with our SDK ----------------------------------------------------------------------------------

    async def call_all_the_time(self, *names: str) -> None:
        """Clients of these names are enrolled and call; returns when each has had an answer."""
        await self._started(self._caller, names)

    async def sleepers(self, *names: str) -> None:
        """Clients of these names are enrolled, connect once, and go. What they had is out of everybody's reach."""
        for name in names:
            async with self._connected(name):
                pass
            (self.folder / name).rename(self._asleep(name))

    async def wake(self, *names: str) -> None:
        """They are back, and call all the time."""
        for name in names:
            self._asleep(name).rename(self.folder / name)
        await self._started(self._caller, names)

    def _asleep(self, name: str) -> Path:
        return self.folder / f"asleep-{name}"

    def _connected(self, name: str) -> contextlib.AbstractAsyncContextManager[client.Session]:
        def note(progress: Progress) -> None:
            if progress.stage in TROUBLE and not self._over.is_set():
                self.trouble.append(f"{name}: {progress.stage.value}: {progress.detail}")

        return client.connect(
            app_id=app_id(name),
            app=name,
            directory=self.folder / name,
            insecure_port=self.broker.insecure_port,
            secure_port=self.broker.secure_port,
            backoff=BACKOFF,
            timeout=60,
            observer=note,
        )

    async def _caller(self, name: str, began: Callable[[], object]) -> None:
        async with contextlib.AsyncExitStack() as stack:
            async with self._turn:
                session = await stack.enter_async_context(self._connected(name))
                await session.request("echo.request", name)
            began()
            while not self._over.is_set():
                try:
                    question = [name, self.calls]
                    assert await session.request("echo.request", question) == question
                    self.calls += 1
                except Exception as error:
                    self.trouble.append(f"{name}: a call failed: {error!r}")
                await asyncio.sleep(CALL_PAUSE)

    # ---- clients of a stranger's making ------------------------------------------------------------------------

    async def visit_all_the_time(self, *names: str) -> None:
        """Clients of these names are enrolled, and connect, call once and go, over and over, each time with the files
        that lie in their folder then. Nothing of ours takes part in it."""
        await self._started(self._visitor, names)

    async def _visitor(self, name: str, began: Callable[[], object]) -> None:
        async with self._turn:
            folder = await asyncio.to_thread(
                enrolled_folder, self.folder / name, app_id(name), self.broker.insecure_port
            )
            await self._visit(name, folder)
        began()
        while not self._over.is_set():
            await self._visit(name, folder)
            await asyncio.sleep(VISIT_PAUSE)

    async def _visit(self, name: str, folder: Path) -> None:
        try:
            await asyncio.to_thread(visit, folder, self.broker.secure_port)
            self.visits += 1
        except Exception as error:
            self.trouble.append(f"{name}: a visit failed: {error!r}")

    # ---- all ---------------------------------------------------------------------------------------------------

    async def _started(
        self, work: Callable[[str, Callable[[], object]], Awaitable[None]], names: tuple[str, ...]
    ) -> None:
        loop = asyncio.get_running_loop()
        for began in [self._start(work, name, loop.create_future()) for name in names]:
            await began

    def _start(
        self,
        work: Callable[[str, Callable[[], object]], Awaitable[None]],
        name: str,
        began: asyncio.Future[None],
    ) -> asyncio.Future[None]:
        async def run() -> None:
            try:
                await work(name, lambda: began.done() or began.set_result(None))
            except Exception as error:
                self.trouble.append(f"{name}: it gave up: {error!r}")
                raise

        self._tasks.create_task(run())
        return began

    async def more(self, calls: int, visits: int = 0) -> None:
        """Waits until so many more have been made."""
        calls, visits = self.calls + calls, self.visits + visits
        async with asyncio.timeout(60):
            while self.calls < calls or self.visits < visits:
                await asyncio.sleep(0.01)


def app_id(name: str) -> str:
    return f"org.example.{name}"


def visit(folder: Path, port: int) -> None:
    """Connects, calls once, and goes."""
    with Line.open(port, client_context(folder), timeout=30) as line:
        line.send(
            wire.setup(mime=wire.COMPOSITE),
            wire.request(wire.REQUEST_RESPONSE, 1, b"here", wire.routed("echo.request")),
        )
        assert wire.payload_data(line.answer(1)) == b"here"
        with contextlib.suppress(OSError):
            line.socket.shutdown(socket.SHUT_WR)


def handshakes(broker: BrokerProcess) -> dict[tuple[str, str], int]:
    """How many ended how on which port, by the broker's own count. The broker needs an HTTP port."""
    address = f"http://127.0.0.1:{broker.ports['http_port']}/metrics"
    with urllib.request.urlopen(address, timeout=10) as answer:
        text = answer.read().decode()
    return {(port, result): int(count) for port, result, count in HANDSHAKES.findall(text)}
