"""A stub broker in the test's own loop."""

from collections.abc import AsyncIterator

import pytest

from tests.client.stub_broker import StubBroker


@pytest.fixture
async def stub() -> AsyncIterator[StubBroker]:
    async with StubBroker() as running:
        yield running
