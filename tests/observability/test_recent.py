import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from rsocket_broker.observability.recent import MAX_TEXT, MAX_WARNINGS, Recent

NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)
LOG = logging.getLogger("rsocket_broker.tested.recent")


class Clock:
    now = NOON

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def recent(clock: Clock) -> Iterator[Recent]:
    made = Recent("rsocket_broker.tested", clock)
    made.start()
    yield made
    made.stop()


def test_lines_that_differ_in_their_numbers_alone_are_counted_as_one(recent: Recent, clock: Clock) -> None:
    LOG.warning("%s spoke TLS to the plain port", "127.0.0.1:50001")
    clock.now += timedelta(minutes=3)
    LOG.warning("%s spoke TLS to the plain port", "127.0.0.1:50002")
    (found,) = recent.warnings()
    assert found.describe() == {
        "text": "127.0.0.1:50002 spoke TLS to the plain port",
        "times": 2,
        "first": "2026-05-04T12:00:00+00:00",
        "last": "2026-05-04T12:03:00+00:00",
    }


def test_the_latest_is_the_last(recent: Recent) -> None:
    for text in ("one app", "another app", "one app"):
        LOG.warning("refused to enrol %s", text)
    assert [(each.text, each.times) for each in recent.warnings()] == [
        ("refused to enrol another app", 1),
        ("refused to enrol one app", 2),
    ]


def test_what_is_no_warning_is_not_kept(recent: Recent) -> None:
    LOG.info("all is well")
    logging.getLogger("somebody.else").warning("not ours")
    assert recent.warnings() == []


def test_nothing_grows_without_a_bound(recent: Recent) -> None:
    for number in range(2 * MAX_WARNINGS):
        LOG.warning("%s", "x" * (number + 1))
    LOG.error("%s", "y" * (2 * MAX_TEXT))
    found = recent.warnings()
    assert len(found) == MAX_WARNINGS
    assert found[-1].text == "y" * MAX_TEXT
    assert found[0].text == "x" * (MAX_WARNINGS + 2)


def test_what_a_peer_has_a_say_in_moves_no_cursor(recent: Recent) -> None:
    LOG.warning("refused to enrol %s", "\x1b[2J")
    assert recent.warnings()[0].text == r"refused to enrol \x1b[2J"


def test_after_the_end_nothing_is_taken_in(recent: Recent) -> None:
    recent.stop()
    LOG.warning("too late")
    assert recent.warnings() == []
