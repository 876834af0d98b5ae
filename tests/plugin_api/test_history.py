"""What is kept of events: bounded, numbered, followed."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsocket_broker.errors import Canceled, ConnectionClosed, Invalid
from rsocket_broker.plugin_api.history import History


@pytest.mark.row("M-7")
@given(st.lists(st.integers(0, 40), max_size=60), st.integers(1, 10), st.integers(1, 100), st.integers(0, 70))
def test_the_newest_are_kept_within_both_bounds(sizes: list[int], count: int, size: int, after: int) -> None:
    history = History[int](count, size)
    numbers = [history.add(one, one) for one in sizes]
    kept = history.items()
    assert numbers == list(range(1, len(sizes) + 1))
    assert [number for number, _ in kept] == numbers[len(numbers) - len(kept) :]
    assert all(sizes[number - 1] == item for number, item in kept)
    assert len(kept) <= count
    assert sum(item for _, item in kept) <= size or len(kept) == 1
    assert history.items(after) == [(number, item) for number, item in kept if number > after]
    assert history.dropped + len(history) == history.newest == len(sizes)
    assert history.last() == (sizes[-1] if sizes else None)


async def test_followers_get_what_is_there_and_what_comes_and_see_gaps() -> None:
    history = History[str](2, 1000)
    history.add("a", 1)
    got: list[tuple[int, str]] = []

    async def follow(after: int) -> None:
        async for one in history.follow(after):
            got.append(one)

    following = asyncio.ensure_future(follow(0))
    await asyncio.sleep(0)
    for letter in "bcd":
        history.add(letter, 1)
    history.close()
    await following
    assert got == [(1, "a"), (3, "c"), (4, "d")]
    history.clear()
    assert (history.items(), history.newest, history.dropped) == ([], 4, 4)


async def test_waiting_ends_with_the_event_the_time_or_the_app() -> None:
    history = History[int](10, 1000)
    history.add(1, 1)
    assert await history.wait(lambda item: item == 1, 0, 0.0, "one") == (1, 1)
    waiting = asyncio.ensure_future(history.wait(lambda item: item > 1, 1, 5.0, "more"))
    await asyncio.sleep(0)
    history.add(2, 1)
    assert await waiting == (2, 2)
    with pytest.raises(Canceled, match=r"There was no more within 0\.01 s"):
        await history.wait(lambda item: item > 2, 0, 0.01, "more")
    for timeout in (-1.0, 601.0, float("nan")):
        with pytest.raises(Invalid, match="timeout"):
            await history.wait(lambda item: True, 0, timeout, "more")
    history.close()
    with pytest.raises(ConnectionClosed, match="before the app left"):
        await history.wait(lambda item: item > 2, 0, 5.0, "more")
