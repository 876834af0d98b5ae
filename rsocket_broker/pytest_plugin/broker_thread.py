"""A broker on an event loop of its own, in a thread: tests are plain functions, and wait with limits."""

import asyncio
import concurrent.futures
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from rsocket_broker.broker import Broker
from rsocket_broker.errors import ApplicationError
from rsocket_broker.routing.session import Session
from rsocket_broker.settings import Settings

T = TypeVar("T")

START_S, STOP_S = 30.0, 10.0
"""Seconds for each. A first start makes keys, and a stop waits for what is under way; what takes longer hangs."""
GRACE_S = 5.0
"""Seconds beyond a call's own limit, after which its broker is taken to hang."""
LOOK_S = 0.02
"""Seconds between two looks for a client that is awaited: less than anybody notices."""


class BrokerThread:
    """One broker. `start` once, `stop` once; the rest is for between the two, and from any thread."""

    def __init__(self, settings: Settings) -> None:
        self.broker = Broker(settings)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = asyncio.Event()
        self._ready: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._served: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._pool = concurrent.futures.ThreadPoolExecutor(1, "rsocket-broker")

    def start(self) -> None:
        """Returns when apps can connect. Raises BrokerError with the reason, TimeoutError after START_S."""
        self._served = self._pool.submit(lambda: asyncio.run(self._serve()))
        done, _ = concurrent.futures.wait({self._ready, self._served}, START_S, concurrent.futures.FIRST_COMPLETED)
        if self._served in done:
            self._served.result()
        if not done:
            raise TimeoutError(f"The broker of this test run has not started within {START_S:g} s.")

    def stop(self) -> None:
        """Ends every session; the ports are free afterwards."""
        if self._loop is not None and not self._served.done():
            self._loop.call_soon_threadsafe(self._stopping.set)
            concurrent.futures.wait({self._served}, STOP_S)
        self._pool.shutdown(wait=False)

    def run(self, work: Coroutine[Any, Any, T], timeout: float) -> T:
        """What `work` gives on the broker's loop, or raises. TimeoutError after `timeout` seconds, which ends it."""
        if self._loop is None:
            work.close()
            raise ApplicationError("The broker of this test run is not running.")
        future = asyncio.run_coroutine_threadsafe(_limited(work, timeout), self._loop)
        try:
            return future.result(timeout + GRACE_S)
        except BaseException:
            future.cancel()
            raise

    def sessions(self) -> list[Session]:
        """Who is connected now."""
        return self.run(self._sessions(), GRACE_S)

    async def _sessions(self) -> list[Session]:
        return list(self.broker.sessions)

    def wait_session(self, wanted: Callable[[Session], bool], timeout: float) -> Session:
        """The newest session that is `wanted`, as soon as there is one. Raises TimeoutError after `timeout` seconds."""
        return self.run(self._wait_session(wanted), timeout)

    async def _wait_session(self, wanted: Callable[[Session], bool]) -> Session:
        while True:
            found = [session for session in self.broker.sessions if wanted(session)]
            if found:
                return max(found, key=lambda session: session.since)
            await asyncio.sleep(LOOK_S)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        try:
            await self.broker.start()
            self._ready.set_result(None)
            await self._stopping.wait()
        finally:
            await self.broker.stop()


async def _limited(work: Coroutine[Any, Any, T], timeout: float) -> T:
    async with asyncio.timeout(timeout):
        return await work
