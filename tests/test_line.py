"""What a session needs of a line, and who has it. mypy compares the signatures; this asks what is there at run time."""

import inspect

import pytest

from rsocket_broker.connection import Connection
from rsocket_broker.line import Line
from rsocket_broker.messages import MessageLine
from rsocket_broker.payload import Payload
from tests.test_messages import Letters, Steward, line

NAMES = sorted({name for name in (*vars(Line), *Line.__annotations__) if not name.startswith("_")})


async def test_a_line_of_messages_has_every_member() -> None:
    made: Line = line(Steward(), Letters())
    assert len(NAMES) > 30
    for name in NAMES:
        getattr(made, name)
    await made.close()


@pytest.mark.parametrize("kind", [Connection, MessageLine])
def test_both_kinds_offer_the_same_calls(kind: type) -> None:
    for name in NAMES:
        wanted = vars(Line).get(name)
        if inspect.iscoroutinefunction(wanted):
            assert inspect.iscoroutinefunction(getattr(kind, name))
    assert Payload
