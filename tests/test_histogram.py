import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsocket_broker.histogram import SECONDS, Histogram


def test_a_value_counts_at_the_first_bound_that_it_does_not_pass() -> None:
    histogram = Histogram((1.0, 2.0))
    for value in (0.0, 1.0, 1.5, 2.0, 2.5):
        histogram.observe(value)
    assert histogram.counts == [2, 2, 1]
    assert list(histogram.cumulative()) == [(1.0, 2), (2.0, 4), (float("inf"), 5)]
    assert histogram.count == 5
    assert histogram.total == 7.0


@pytest.mark.row("A-53")
def test_a_run_of_answers_is_one_observation_of_many() -> None:
    one, many = Histogram(), Histogram()
    one.observe(0.003, 40)
    for _ in range(40):
        many.observe(0.003)
    assert one.counts == many.counts
    assert one.total == pytest.approx(many.total)


@pytest.mark.parametrize("bounds", [(), (1.0, 1.0), (2.0, 1.0)])
def test_bounds_that_do_not_rise_are_refused(bounds: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="rise"):
        Histogram(bounds)


@given(st.lists(st.floats(min_value=0, max_value=100), max_size=50))
def test_nothing_is_lost(values: list[float]) -> None:
    histogram = Histogram()
    for value in values:
        histogram.observe(value)
    counts = [count for _, count in histogram.cumulative()]
    assert counts == sorted(counts)
    assert counts[-1] == histogram.count == len(values)
    for bound, count in zip(SECONDS, counts, strict=False):
        assert count == sum(value <= bound for value in values)
