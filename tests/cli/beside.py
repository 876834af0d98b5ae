"""What stays open on a loop of its own, in a thread, while a test runs commands: an app of our SDK, as a rule."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, TypeVar

from rsocket_broker import client
from tests.end_to_end.processes import BrokerProcess
from tests.until import PATIENCE

T = TypeVar("T")

OPENED_WITHIN = 3 * PATIENCE


@contextlib.contextmanager
def kept_open(opened_by: Callable[[], AbstractAsyncContextManager[T]]) -> Iterator[tuple[T, asyncio.AbstractEventLoop]]:
    """What `opened_by` opens, and its loop, for as long as the block. Raises what opening it raises."""
    opened: Future[tuple[T, asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def stay() -> None:
        leave = asyncio.Event()
        try:
            async with opened_by() as value:
                opened.set_result((value, asyncio.get_running_loop(), leave))
                await leave.wait()
        except BaseException as error:
            if opened.done():
                raise
            opened.set_exception(error)

    thread = threading.Thread(target=asyncio.run, args=[stay()], daemon=True)
    thread.start()
    value, loop, leave = opened.result(OPENED_WITHIN)
    try:
        yield value, loop
    finally:
        loop.call_soon_threadsafe(leave.set)
        thread.join(OPENED_WITHIN)


@contextlib.contextmanager
def connected_app(
    broker: BrokerProcess, folder: Path, **settings: Any
) -> Iterator[tuple[client.Session, asyncio.AbstractEventLoop]]:
    """An app that is enrolled and connected. `settings` are more of those of `client.connect`."""
    usual: dict[str, Any] = {
        "app_id": "com.example.app",
        "app": "Example",
        "device": "desk",
        "directory": folder,
        "insecure_port": broker.insecure_port,
        "secure_port": broker.secure_port,
        "timeout": PATIENCE,
    }
    with kept_open(lambda: client.connect(**(usual | settings))) as opened:
        yield opened
