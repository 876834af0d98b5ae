from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as some

from rsocket_broker.authority.rotation import TABLE, Phase, Rotation, Step
from rsocket_broker.errors import AuthorityError
from tests.authority.conftest import START

STEADY = Rotation(Phase.STEADY, 1, START)
LATER = START + timedelta(hours=1)


@pytest.mark.row("A-15")
def test_a_rotation_goes_through_named_phases() -> None:
    prepared = STEADY.after(Step.PREPARE, LATER, 2)
    assert prepared == Rotation(Phase.PREPARED, 1, LATER, next=2)
    switched = prepared.after(Step.SWITCH, LATER)
    assert switched == Rotation(Phase.SWITCHED, 2, LATER, previous=1)
    assert switched.after(Step.FINISH, LATER) == Rotation(Phase.STEADY, 2, LATER)
    assert (prepared.trusted, switched.trusted) == ((2, 1), (2, 1)), "the newest first"
    assert [each.accepts(2) for each in (STEADY, prepared, switched)] == [False, True, True]
    assert not switched.after(Step.FINISH, LATER).accepts(1)


@pytest.mark.row("A-15")
def test_each_step_can_be_taken_back_until_the_last() -> None:
    prepared = STEADY.after(Step.PREPARE, LATER, 2)
    switched = prepared.after(Step.SWITCH, LATER)
    assert switched.after(Step.ROLLBACK, LATER) == prepared
    assert prepared.after(Step.ROLLBACK, LATER) == Rotation(Phase.STEADY, 1, LATER)


def test_only_what_ends_in_the_steady_phase_drops_a_generation() -> None:
    prepared = STEADY.after(Step.PREPARE, LATER, 2)
    switched = prepared.after(Step.SWITCH, LATER)
    assert [STEADY.dropped_by(step) for step in Step] == [None] * 4
    assert (prepared.dropped_by(Step.SWITCH), prepared.dropped_by(Step.ROLLBACK)) == (None, 2)
    assert (switched.dropped_by(Step.FINISH), switched.dropped_by(Step.ROLLBACK)) == (1, None)


@given(some.lists(some.sampled_from(Step), max_size=40))
def test_any_steps_are_taken_or_refused_with_the_next_one_named(steps: list[Step]) -> None:
    rotation, newest = STEADY, 1
    for step in steps:
        try:
            after = rotation.after(step, LATER, newest + 1)
        except AuthorityError as error:
            assert (rotation.phase, step) not in TABLE
            assert "rsocket-broker ca rotate" in error.public or "nothing to take back" in error.public
            continue
        assert after.phase is TABLE[rotation.phase, step]
        newest += step is Step.PREPARE
        dropped = rotation.dropped_by(step)
        assert set(after.trusted) == set(rotation.trusted) - {dropped} | ({newest} if step is Step.PREPARE else set())
        assert after.current in after.trusted
        assert (after.other is None) == (after.phase is Phase.STEADY)
        rotation = after
