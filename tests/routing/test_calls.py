import asyncio

import pytest

from rsocket_broker.errors import Rejected, request_error
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


@pytest.mark.row("A-53")
def test_codes_that_an_app_makes_up_are_counted_as_one() -> None:
    calls = Calls()
    for code in range(0x301, 0x1301):
        calls.fail(request_error(code, "whatever"))
    assert calls.results() == {"ok": 0, "custom": 0x1000}
