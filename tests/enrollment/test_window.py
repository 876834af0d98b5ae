import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from rsocket_broker.enrollment.window import Window
from rsocket_broker.errors import ConfigurationError


@pytest.mark.row("A-11")
def test_it_closes_when_its_time_is_over() -> None:
    window = Window.opened(100.0, 10.0, None)
    assert window.begin(100.0) and window.begin(109.9)
    assert not window.begin(110.0) and not window.is_open(110.0)
    window.end(issued=True)  # what had begun may end
    assert window.issued == 1


@pytest.mark.row("A-11")
def test_it_closes_with_its_last_certificate() -> None:
    window = Window.opened(0.0, 10.0, 2)
    assert window.begin(1.0) and window.begin(1.0)
    assert not window.begin(1.0) and window.is_open(1.0)  # full, but one of them may fail
    window.end(issued=False)
    assert window.begin(2.0)
    window.end(issued=True)
    window.end(issued=True)
    assert window.used_up and not window.is_open(2.0) and not window.begin(2.0)


def test_closed_by_hand_it_stays_closed() -> None:
    window = Window.opened(0.0, 10.0, None)
    window.close()
    assert not window.begin(1.0)


@pytest.mark.parametrize(("seconds", "uses"), [(0.0, None), (-1.0, 1), (1.0, 0), (1.0, -1), (1.0, 1_000_001)])
def test_a_window_for_nobody_is_refused(seconds: float, uses: int | None) -> None:
    with pytest.raises(ConfigurationError, match="a window is"):
        Window.opened(0.0, seconds, uses)


class AnyOrder(RuleBasedStateMachine):
    """Enrolments that begin, fail and succeed in any order, against a list of what happened."""

    @initialize(uses=st.none() | st.integers(1, 4), seconds=st.integers(1, 20))
    def open(self, uses: int | None, seconds: int) -> None:
        self.now, self.uses, self.ends, self.closed = 0.0, uses, float(seconds), False
        self.window = Window.opened(0.0, seconds, uses)
        self.running = self.done = 0

    @rule(seconds=st.integers(0, 5))
    def wait(self, seconds: int) -> None:
        self.now += seconds

    @rule()
    def begin(self) -> None:
        room = self.uses is None or self.running + self.done < self.uses
        expected = room and not self.closed and self.now < self.ends
        assert self.window.begin(self.now) is expected
        self.running += expected

    @precondition(lambda self: self.running)
    @rule(issued=st.booleans())
    def end(self, issued: bool) -> None:
        self.window.end(issued=issued)
        self.running -= 1
        self.done += issued

    @rule()
    def close(self) -> None:
        self.window.close()
        self.closed = True

    @invariant()
    def never_too_many(self) -> None:
        assert self.window.issued == self.done
        assert self.uses is None or self.window.issued + self.window.under_way <= self.uses
        if self.window.used_up:
            assert not self.window.is_open(self.now)


AnyOrder.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestAnyOrder = pytest.mark.row("A-11")(AnyOrder.TestCase)
