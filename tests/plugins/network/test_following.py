"""Looking on."""

import asyncio

from rsocket_broker.plugins.network.filters import wanted
from rsocket_broker.plugins.network.following import Following, first
from rsocket_broker.plugins.network.traffic import Exchange
from tests.plugins.network.shapes import answered, asked, tell, traffic


async def test_what_fits_is_told_in_order_until_the_app_goes() -> None:
    made = traffic(asked("before"))
    with Following(made, wanted(url="cart"), Exchange.summary) as following:
        for told in (asked("1"), asked("2", "https://other/"), answered("1")):
            tell(made, told)
        made.end()
        found = [(item["event"], item["exchange"]["id"]) async for item in following]
    assert found == [("request", "1"), ("response", "1")]
    assert made.watchers == []


async def test_a_slow_follower_is_told_how_much_it_missed() -> None:
    made = traffic()
    with Following(made, wanted(), Exchange.summary, backlog=2) as following:
        for number in range(5):
            tell(made, asked(f"{number}"))
        assert await anext(following) == {"dropped": 3}
        assert [(await anext(following))["exchange"]["id"] for _ in range(2)] == ["3", "4"]
        waiting = asyncio.ensure_future(anext(following))
        await asyncio.sleep(0)
        tell(made, asked("5"))
        assert (await waiting)["exchange"]["id"] == "5"


async def test_the_first_that_fits_may_be_there_or_come_or_never_come() -> None:
    made = traffic(asked("1"))
    assert (await first(made, lambda one: True)) is made.get("1")
    waiting = asyncio.ensure_future(first(made, lambda one: one.key == "2"))
    await asyncio.sleep(0)
    tell(made, asked("2"))
    tell(made, asked("3"))
    assert await waiting is made.get("2")
    waiting = asyncio.ensure_future(first(made, lambda one: one.key == "4"))
    await asyncio.sleep(0)
    made.end()
    assert await waiting is None
    assert await first(made, lambda one: True) is None
    assert made.watchers == []
