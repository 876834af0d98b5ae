"""Waiting for what happens elsewhere and tells nobody: until it is so, however long that takes on a busy machine."""

import asyncio
from collections.abc import Callable
from typing import Final

PATIENCE: Final = 30.0
"""Seconds after which it will not be so any more."""
LOOK_AGAIN: Final = 0.005


async def until(condition: Callable[[], object]) -> None:
    """Raises TimeoutError."""
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(LOOK_AGAIN)
