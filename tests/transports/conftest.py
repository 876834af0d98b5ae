"""Transports are held to their contract on both event loops that a broker may run on."""

import asyncio
from collections.abc import Callable, Mapping

from rsocket_broker import event_loop

Factory = Callable[[], asyncio.AbstractEventLoop]


def pytest_asyncio_loop_factories() -> Mapping[str, Factory]:
    other = event_loop.factory()
    both: dict[str, Factory] = {"asyncio": asyncio.new_event_loop}
    return both if other is None else both | {"uvloop": other}
