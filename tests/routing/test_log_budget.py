"""A flood leaves a few lines, and a count."""

import logging

import pytest

from rsocket_broker.routing.log_budget import LINES, MAX_SORTS, WINDOW, LogBudget


def test_a_few_lines_of_each_sort_and_then_a_count(caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    budget = LogBudget(logging.getLogger("test"), lambda: now[0])
    with caplog.at_level(logging.INFO, "test"):
        for number in range(100):
            budget.log("flood", logging.INFO, "line %d", number)
        budget.log("other", logging.INFO, "quiet")
        assert caplog.messages == [*(f"line {number}" for number in range(LINES)), "quiet"]
        now[0] = WINDOW
        budget.log("flood", logging.INFO, "line %d", 100)
        assert caplog.messages[-1] == "line 100 (and 90 more like this before)"


def test_sorts_made_up_by_a_peer_share_one_budget_in_the_end(caplog: pytest.LogCaptureFixture) -> None:
    budget = LogBudget(logging.getLogger("test"), lambda: 0.0)
    with caplog.at_level(logging.INFO, "test"):
        for number in range(MAX_SORTS * 4):
            budget.log(str(number), logging.INFO, "x")
    assert len(caplog.messages) == MAX_SORTS + LINES
