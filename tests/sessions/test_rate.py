"""Rates: what is used up comes again with time, and a child uses its parent's."""

import pytest

from rsocket_broker.sessions.rate import Bucket, take_from_all


def taken(buckets: list[Bucket], now: float, asked: int = 100) -> int:
    return sum(take_from_all(buckets, now) for _ in range(asked))


def test_a_second_of_its_rate_at_once_and_then_the_rate() -> None:
    bucket = Bucket(10.0, 0.0)
    assert taken([bucket], 0.0) == 10
    assert taken([bucket], 0.5) == 5
    assert taken([bucket], 100.0) == 10


def test_less_than_one_a_second_still_has_one_at_first() -> None:
    bucket = Bucket(0.1, 0.0)
    assert taken([bucket], 0.0) == 1
    assert taken([bucket], 9.0) == 0
    assert taken([bucket], 10.5) == 1


def test_a_clock_that_goes_back_gives_nothing() -> None:
    bucket = Bucket(1.0, 10.0)
    assert taken([bucket], 10.0) == 1
    assert taken([bucket], 5.0) == 0


@pytest.mark.row("A-59")
def test_children_together_have_no_more_than_the_one_above() -> None:
    parent = Bucket(4.0, 0.0)
    children = [Bucket(3.0, 0.0), Bucket(3.0, 0.0)]
    assert [taken([child, parent], 0.0) for child in children] == [3, 1]
    assert taken([children[1]], 0.0) == 2, "what the parent had no room for is not counted"
