"""What peers make us hold is counted by who they are, and nothing stays counted when it is gone."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsocket_broker.errors import Rejected
from rsocket_broker.quota import FULL, MODEST, STEP, STRANGERS, Holding, House, Kind, Quota, counted

MIB = 1024 * 1024

names = st.integers(0, 2)
lines = st.integers(0, 5)
kinds = st.sampled_from(list(Kind))
sizes = st.integers(0, 4 * MIB)
deeds = st.lists(
    st.one_of(
        st.tuples(st.just("note"), lines, kinds, sizes),
        st.tuples(st.just("reserve"), lines, kinds, sizes),
        st.tuples(st.just("take"), lines, kinds, sizes),
        st.tuples(st.just("take in parts"), lines, kinds, sizes),
        st.tuples(st.just("move"), lines, names, st.none()),
        st.tuples(st.just("close"), lines, st.none(), st.none()),
    ),
    max_size=60,
)


def checked(house: House, everybody: list[Holding]) -> None:
    """The sums are those of what is held."""
    quotas = {holding.quota for holding in everybody if holding.quota is not None}
    for quota in quotas:
        assert quota.used == sum(one.size for one in everybody if one.quota is quota) >= 0
        assert quota.crowded == sum(one.crowded for one in everybody if one.quota is quota)
    assert house.used == sum(one.size for one in everybody) == sum(house.by_kind.values())
    assert all(size >= 0 for size in house.by_kind.values())


@given(deeds)
@pytest.mark.row("M-15", "A-38")
def test_whatever_happens_in_any_order_nothing_is_left_at_the_end(done: list[tuple[str, int, object, object]]) -> None:
    house = House(3 * MIB, 5 * MIB)
    everybody = [Holding(house.strangers) for _ in range(6)]
    for holding in everybody[::2]:
        holding.changed = lambda: None
    for deed, line, one, other in done:
        holding = everybody[line]
        if deed == "close":
            holding.close()
        elif deed == "move":
            holding.belong_to(house.of(one))
        elif deed == "take in parts":
            holding.take(one, other, other // 2)
        else:
            before = holding.size
            granted = getattr(holding, deed)(one, other)
            if granted is False:
                assert holding.size == before, "what was refused is not counted"
        checked(house, everybody)
    for holding in everybody:
        holding.close()
        holding.note(Kind.EVENTS, MIB)
    checked(house, everybody)
    assert house.used == house.crowded == len(house) == 0
    assert house.strangers.lines == 0


def test_lines_of_one_identity_share_and_others_notice_nothing() -> None:
    house = House(4 * MIB)
    one, two, other = (Holding(house.of(name)) for name in ("a", "a", "b"))
    assert one.reserve(Kind.FRAGMENTS, 3 * MIB)
    assert not two.reserve(Kind.REQUESTS, 2 * MIB)
    assert two.reserve(Kind.REQUESTS, MIB)
    assert other.reserve(Kind.REQUESTS, 4 * MIB)
    one.close()
    assert two.reserve(Kind.REQUESTS, 4 * MIB)
    assert two.reserve(Kind.REQUESTS, 0)


def test_what_shrinks_is_never_refused() -> None:
    holding = Holding(House(MIB).of("a"))
    holding.note(Kind.FRAGMENTS, 3 * MIB)
    assert not holding.bears()
    assert holding.reserve(Kind.FRAGMENTS, 2 * MIB)
    assert holding.describe() == {"fragments": 2 * MIB}


class Waiting:
    """A line whose peer can be made to wait."""

    def __init__(self, quota: Quota) -> None:
        self.holding = Holding(quota)
        self.told: list[bool] = []
        self.holding.changed = lambda: self.told.append(self.holding.crowded)


@pytest.mark.row("A-38")
def test_whoever_would_go_on_sending_waits_until_there_is_room() -> None:
    house = House(4 * MIB)
    first, second, third = (Waiting(house.of("a")) for _ in range(3))
    assert first.holding.take(Kind.FRAGMENTS, 3 * MIB)
    assert second.holding.take(Kind.FRAGMENTS, 2 * MIB)
    assert third.holding.take(Kind.FRAGMENTS, MIB)
    assert (first.told, second.told, third.told) == ([], [True], [True])
    assert house.crowded == 2
    first.holding.note(Kind.FRAGMENTS, 2 * MIB)
    assert second.told == [True], "not yet"
    first.holding.close()
    assert (second.told, third.told) == ([True, False], [True, False])
    assert (house.crowded, house.crowded_total) == (0, 2)


@pytest.mark.parametrize("end", [Holding.close, Holding.relax], ids=["closed", "given up"])
def test_whoever_waits_no_more_is_forgotten(end: Callable[[Holding], None]) -> None:
    house = House(MIB)
    waiting = Waiting(house.of("a"))
    waiting.holding.take(Kind.FRAME, 2 * MIB)
    end(waiting.holding)
    assert waiting.told == [True, False]
    assert house.crowded == 0


@pytest.mark.row("A-38")
def test_what_has_not_come_is_not_held_before_there_is_room_for_it() -> None:
    house = House(4 * MIB)
    first, second, third = (Waiting(house.of("a")) for _ in range(3))
    assert first.holding.take(Kind.FRAME, 3 * MIB, STEP)
    assert second.holding.take(Kind.FRAME, 3 * MIB, STEP)
    assert third.holding.take(Kind.FRAME, 2 * MIB, STEP)
    assert house.used == 3 * MIB + 2 * STEP
    assert second.holding.wanted == 3 * MIB - STEP
    first.holding.note(Kind.FRAME, 2 * MIB)
    assert (second.told, third.told) == ([True], [True]), "the third has asked later, so it does not go first"
    first.holding.note(Kind.FRAME, 0)
    assert (second.told, third.told) == ([True, False], [True])
    assert house.used == 3 * MIB + STEP
    second.holding.close()
    assert third.told == [True, False]
    assert house.used == 2 * MIB


def test_what_came_although_it_was_to_wait_is_not_counted_again() -> None:
    house = House(4 * MIB)
    first, second = (Waiting(house.of("a")) for _ in range(2))
    first.holding.take(Kind.FRAME, 3 * MIB)
    second.holding.take(Kind.FRAME, 2 * MIB, STEP)
    second.holding.note(Kind.FRAME, 0)
    first.holding.close()
    assert second.told == [True, False]
    assert house.used == 0


def test_a_line_that_cannot_wait_is_refused() -> None:
    holding = Holding(House(MIB).of("a"))
    assert not holding.take(Kind.FRAGMENTS, 2 * MIB)
    assert holding.size == 0


def test_a_line_without_a_quota_is_refused_nothing_and_takes_along_what_it_holds() -> None:
    house, holding = House(MIB), Holding()
    assert holding.take(Kind.FRAGMENTS, 3 * MIB)
    holding.belong_to(house.of("a"))
    assert house.of("a").used == house.used == 3 * MIB
    holding.belong_to(house.of("a"))
    assert house.of("a").lines == 1


@pytest.mark.row("M-15")
def test_beyond_what_all_may_hold_an_equal_share_is_left_to_each_and_no_more_than_twice_that_to_all() -> None:
    house = House(6 * MIB, 8 * MIB)
    rich, poor, late = (Holding(house.of(name)) for name in "abc")
    assert rich.reserve(Kind.FRAGMENTS, 6 * MIB)
    assert poor.reserve(Kind.FRAGMENTS, 2 * MIB)
    assert not rich.bears(STEP), "it has more than a share"
    assert poor.reserve(Kind.FRAGMENTS, 4 * MIB), "half of it all is a share of two"
    assert late.reserve(Kind.FRAGMENTS, MODEST)
    assert not poor.bears(STEP)
    rich.note(Kind.FRAGMENTS, 17 * MIB)
    assert not late.bears(STEP)
    assert Holding(house.of("d")).reserve(Kind.FRAGMENTS, MODEST), "what ordinary calls need, everybody has"


def test_room_that_one_identity_leaves_lets_those_of_others_in() -> None:
    house = House(6 * MIB, 8 * MIB)
    rich, poor = Holding(house.of("a")), Waiting(house.of("b"))
    rich.reserve(Kind.FRAGMENTS, 6 * MIB)
    poor.holding.take(Kind.FRAGMENTS, 5 * MIB)
    assert poor.told == [True]
    rich.note(Kind.FRAGMENTS, 3 * MIB)
    assert poor.told == [True, False]


@pytest.mark.row("A-38")
def test_room_goes_first_to_the_identity_that_has_waited_longest_and_only_those_who_wait_are_looked_at() -> None:
    house = House(4 * MIB, 4 * MIB)
    late, early, other = (Waiting(house.of(name)) for name in range(3))
    full = Waiting(house.of("full"))
    assert full.holding.reserve(Kind.FRAGMENTS, 4 * MIB)
    full.holding.note(Kind.WORK, MIB)
    assert early.holding.take(Kind.FRAME, 5 * MIB // 2, STEP)
    assert late.holding.take(Kind.FRAME, 3 * MIB, STEP)
    assert list(house.waiting) == [house.of(1), house.of(0)]
    full.holding.note(Kind.FRAGMENTS, 0)
    assert (early.told, late.told) == ([True, False], [True])
    assert list(house.waiting) == [house.of(0)]
    full.holding.close()
    early.holding.close()
    assert late.told == [True, False], "also where all together held less than they may"
    assert not house.waiting
    assert not other.told


def test_strangers_have_little_and_what_is_small_does_not_count() -> None:
    assert House().strangers.limit == House().unproven.limit == STRANGERS
    assert House(MIB).strangers.limit == MIB
    assert (counted(STEP - 1), counted(STEP)) == (0, STEP)


def test_what_is_kept_for_a_while_counts_for_that_while() -> None:
    holding = Holding(House(MIB).of("a"))
    with holding.keeping(Kind.LARGE, MIB):
        assert holding.size == MIB
        with pytest.raises(Rejected, match=FULL), holding.keeping(Kind.LARGE, STEP):
            pass
    assert holding.size == 0
    with holding.keeping(Kind.LARGE, MIB):
        holding.close()
    assert holding.size == 0


def test_an_identity_is_forgotten_with_its_last_line() -> None:
    house = House()
    one, two = Holding(house.of("a")), Holding(house.of("a"))
    one.close()
    assert len(house) == 1
    two.close()
    one.close()
    assert len(house) == 0
