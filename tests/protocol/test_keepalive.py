"""Times of keepalive, with a clock that the test holds."""

import pytest

from rsocket_broker.protocol.keepalive import Heartbeat, patience


@pytest.mark.row("A-40")
@pytest.mark.parametrize(
    ("interval_ms", "lifetime_ms", "seconds"),
    [
        (10_000, 2**31 - 1, 30.0),  # Flipper's SDK
        (500, 2**31 - 1, 30.0),  # never less patient than that because of a short interval
        (60_000, 2**31 - 1, 180.0),
        (10_000, 20_000, 20.0),  # the declared lifetime is a promise of the client
        (60_000, 90_000, 90.0),
        (1, 1, 0.001),
    ],
)
def test_patience(interval_ms: int, lifetime_ms: int, seconds: float) -> None:
    assert patience(interval_ms, lifetime_ms) == pytest.approx(seconds)


def test_a_client_beats_at_its_interval() -> None:
    beat = Heartbeat(1_000, 5_000, now=10.0)
    assert beat.deadline() == 11.0
    beat.sent(11.0)
    beat.answered()
    assert beat.deadline() == 12.0
    assert not beat.is_dead(100.0)


def test_a_client_waits_for_an_answer_as_long_as_the_lifetime() -> None:
    beat = Heartbeat(1_000, 2_500, now=0.0)
    beat.sent(1.0)
    beat.sent(2.0)
    beat.sent(3.0)
    assert beat.deadline() == 3.5, "the oldest unanswered one counts"
    assert not beat.is_dead(3.4)
    assert beat.is_dead(3.5)
    beat.answered()
    assert not beat.is_dead(3.5)
