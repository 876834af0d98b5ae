import threading
from datetime import timedelta

import pytest

from rsocket_broker.authority import arrivals
from rsocket_broker.authority.arrivals import Arrivals
from rsocket_broker.state import State
from tests.authority.conftest import START, Clock


@pytest.fixture
def seen(state: State, clock: Clock) -> Arrivals:
    return Arrivals(state, clock)


def test_what_was_noted_is_kept_with_its_latest_time(seen: Arrivals, state: State, clock: Clock) -> None:
    seen.note(17)
    seen.note(1 << 158)
    seen.flush()
    clock.advance(hours=1)
    again = Arrivals(state, clock)
    again.note(17)
    assert again.all() == {17: START + timedelta(hours=1), 1 << 158: START}


def test_what_was_seen_a_while_ago_counts_as_of_then(seen: Arrivals) -> None:
    seen.note(17, ago=60.0)
    assert seen.all() == {17: START - timedelta(minutes=1)}
    seen.forget_recent()
    seen.note(17)
    seen.forget_recent()
    seen.note(17, ago=30.0)
    assert seen.all() == {17: START}
    seen.flush()
    seen.forget_recent()
    seen.note(17, ago=30.0)
    seen.flush()
    assert seen.all() == {17: START}


def test_a_certificate_that_is_seen_over_and_over_is_written_once(seen: Arrivals, clock: Clock) -> None:
    for _ in range(100):
        seen.note(17)
        seen.flush()
        clock.advance(minutes=1)
    assert seen.all() == {17: START}
    seen.forget_recent()
    seen.note(17)
    assert seen.all() == {17: START + timedelta(minutes=100)}


def test_it_is_written_by_itself(seen: Arrivals, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrivals, "DELAY_S", 0.0)
    written = threading.Event()
    write = seen._write
    monkeypatch.setattr(seen, "_write", lambda waiting: (write(waiting), written.set()))
    seen.note(17)
    assert written.wait(10)


def test_what_cannot_be_written_waits_and_hurts_nobody(
    seen: Arrivals, state: State, caplog: pytest.LogCaptureFixture
) -> None:
    seen.note(17)
    with state.transaction() as database:
        database.execute("ALTER TABLE arrivals RENAME TO elsewhere")
    seen._write_in_time()
    assert "could not be written" in caplog.text
    with state.transaction() as database:
        database.execute("ALTER TABLE elsewhere RENAME TO arrivals")
    seen.flush()
    assert seen.all().keys() == {17}


def test_a_home_that_was_closed_is_left_alone(seen: Arrivals, state: State, caplog: pytest.LogCaptureFixture) -> None:
    seen.note(17)
    state.close()
    seen._write_in_time()
    assert caplog.text == ""


def test_what_is_remembered_has_a_bound(seen: Arrivals, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrivals, "MAX_REMEMBERED", 10)
    for serial in range(1, 100):
        seen.note(serial)
    assert len(seen._noted) <= 10
    assert len(seen.all()) == 99


def test_what_is_known_once_is_written_with_the_transaction_that_it_is_known_by(seen: Arrivals, state: State) -> None:
    with pytest.raises(ZeroDivisionError), state.transaction() as database:
        seen.write(database, 7)
        raise ZeroDivisionError
    assert seen.all() == {}
    with state.transaction() as database:
        seen.write(database, 7)
    assert seen.all() == {7: START}
