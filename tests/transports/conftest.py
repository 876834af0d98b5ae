"""Which event loops the tests of transports run on: those of the contract on each that a broker may run on."""

import asyncio
import importlib.util
from collections.abc import Callable

import pytest

ON_EVERY_LOOP = ("test_base.py",)


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    factories: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
    if item.path.name in ON_EVERY_LOOP and importlib.util.find_spec("uvloop") is not None:
        import uvloop

        factories["uvloop"] = uvloop.new_event_loop
    return factories
