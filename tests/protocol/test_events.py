"""Events are values: equal by content, never changed, and each kind has someone who acts on it."""

import typing

import pytest

from rsocket_broker import connection
from rsocket_broker.protocol.events import ConnectionEnded, Event, PayloadReceived

KINDS = typing.get_args(Event)


def test_an_event_is_a_value() -> None:
    event = PayloadReceived(1, b"x", None, True, False)
    assert event == PayloadReceived(1, b"x", None, True, False)
    assert event != PayloadReceived(1, b"x", b"", True, False)
    with pytest.raises(AttributeError):
        event.data = b"y"  # type: ignore[misc]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_connection_acts_on_every_kind(kind: type) -> None:
    assert kind in connection._ACTIONS


def test_the_end_is_one_of_them() -> None:
    assert ConnectionEnded in KINDS
