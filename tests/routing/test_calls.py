import asyncio

import pytest

from rsocket_broker.errors import Rejected
from rsocket_broker.routing.calls import Calls


@pytest.mark.row("A-53")
def test_calls_are_counted_by_how_they_end() -> None:
    calls = Calls()
    assert calls.results() == {"ok": 0}
    calls.untimed += 3
    calls.seconds.observe(0.2)
    for error in (Rejected("busy"), Rejected("busy"), ZeroDivisionError(), asyncio.CancelledError()):
        calls.fail(error)
    assert calls.results() == {"ok": 4, "rejected": 2, "internal": 1, "canceled": 1}
