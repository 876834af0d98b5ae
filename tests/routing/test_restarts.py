"""When a plugin is restarted, and how long it stays down."""

import pytest

from rsocket_broker.plugin_api.plugin import Restart
from rsocket_broker.routing.restarts import GREETING, Backoff, FailureRun

POLICY = Restart(failures=6, first=1.0, most=5.0, quiet=60.0)


@pytest.mark.row("A-56", "D-13")
def test_failures_in_a_row_of_several_clients_are_enough() -> None:
    run = FailureRun(POLICY)
    found = [run.fail(owner, 0, served=2) for owner in "ababab"]
    assert found == [False] * 5 + [True]


def test_a_success_in_between_begins_anew() -> None:
    run = FailureRun(POLICY)
    for owner in "ababa":
        assert not run.fail(owner, 0, served=2)
    assert not run.fail("b", 1, served=2)
    assert [run.fail(owner, 1, served=2) for owner in "ababa"] == [False] * 4 + [True]


@pytest.mark.row("D-13")
def test_one_client_takes_the_plugin_from_nobody() -> None:
    run = FailureRun(POLICY)
    assert not any(run.fail("hostile", 0, served=2) for _ in range(1000))
    assert not run.fail("other", 0, served=2)
    assert not run.fail("other", 0, served=2)
    assert run.fail("other", 0, served=2)


def test_a_client_that_is_alone_is_enough() -> None:
    run = FailureRun(POLICY)
    assert [run.fail("only", 0, served=1) for _ in range(6)] == [False] * 5 + [True]


def test_an_on_connect_counts_for_more() -> None:
    run = FailureRun(POLICY)
    assert not run.fail("a", 0, 2, GREETING)
    assert run.fail("b", 0, 2, GREETING)


def test_without_a_policy_nothing_is_enough() -> None:
    run = FailureRun(None)
    assert not any(run.fail(owner, 0, 2, GREETING) for owner in "abcdef" * 10)


def test_it_is_down_for_longer_each_time_up_to_a_bound_until_it_has_been_quiet() -> None:
    backoff = Backoff(POLICY)
    assert [backoff.next(0.0) for _ in range(5)] == [1.0, 2.0, 4.0, 5.0, 5.0]
    assert backoff.next(59.0) == 5.0
    assert [backoff.next(60.0), backoff.next(3.0)] == [1.0, 2.0]
