"""A time limit that costs nothing to a handler that never waits, as most do not."""

import asyncio
import types
from collections.abc import Coroutine, Generator
from typing import Any, TypeVar

T = TypeVar("T")


class DeadlinePassed(Exception):
    """The limit was reached, and the work has been stopped."""


async def limited(work: Coroutine[Any, Any, T], seconds: float | None) -> T:
    """The result of `work`, which is cancelled after `seconds`. To be awaited in a task.

    The first step is taken without a timer: until a coroutine waits for something, nothing could stop it anyhow.
    Raises DeadlinePassed; a TimeoutError that `work` raises by itself comes out as it is.
    """
    if seconds is None:
        return await work
    try:
        waits_for = work.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    timer = asyncio.timeout(seconds)
    try:
        async with timer:
            return await _rest(work, waits_for)
    except TimeoutError as error:
        if timer.expired():
            raise DeadlinePassed from error
        raise


@types.coroutine
def _rest(work: Coroutine[Any, Any, T], waits_for: Any) -> Generator[Any, Any, T]:
    """What `yield from` does (PEP 380), for a coroutine that has begun already and waits for `waits_for`."""
    try:
        while True:
            try:
                sent = yield waits_for
            except GeneratorExit:
                work.close()
                raise
            except BaseException as error:  # noqa: BLE001 - handed in, as it is
                waits_for = work.throw(error)
            else:
                waits_for = work.send(sent)
    except StopIteration as done:
        result: T = done.value
        return result
