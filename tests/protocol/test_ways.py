"""What may still be sent on a stream between two clients."""

import pytest

from rsocket_broker.protocol.codes import Interaction
from rsocket_broker.protocol.ways import OVERRUN, REQUEST, Way, are_over, ways
from tests.playbook import C, F, N

RESPONSE, FIRE, STREAM, CHANNEL = (
    Interaction.REQUEST_RESPONSE,
    Interaction.FIRE_AND_FORGET,
    Interaction.REQUEST_STREAM,
    Interaction.REQUEST_CHANNEL,
)


@pytest.mark.row("A-38")
@pytest.mark.parametrize(
    ("credit", "frames", "verdicts", "left", "is_open"),
    [
        (2, [N, N], [None, None], 0, True),
        (1, [N, N], [None, OVERRUN], 0, True),
        (1, [N | C, N], [None, ""], 0, False),
        (0, [C], [None], 0, False),
        (1, [0, N], ["", None], 0, True),
        (1, [N | F, N | F, N], [None] * 3, 0, True),
        (1, [N | F, F, 0, N], [None, None, None, OVERRUN], 0, True),
        (1, [F, N, N], [None, None, OVERRUN], 0, True),
        (0, [F, C], [None, None], 0, False),
        (0, [F, N], [None, OVERRUN], 0, True),
        (1, [N | C | F, N | C], [None, None], 0, False),
    ],
)
def test_payloads_along_a_way(
    credit: int, frames: list[int], verdicts: list[str | None], left: int, *, is_open: bool
) -> None:
    way = Way(credit, is_open=True)
    assert [way.along(flags) for flags in frames] == verdicts
    assert (way.credit, way.open) == (left, is_open)


@pytest.mark.parametrize(
    ("stays", "last", "is_open"), [(False, N, False), (False, 0, False), (True, N, True), (True, N | C, False)]
)
def test_the_fragments_of_a_request_cost_no_credit(*, stays: bool, last: int, is_open: bool) -> None:
    way = Way(0, is_open=True, stays=stays, message=REQUEST)
    assert [way.along(flags) for flags in (N | F, N | C | F, last)] == [None] * 3
    assert (way.open, way.message) == (is_open, 0)


@pytest.mark.parametrize(
    ("interaction", "flags", "up", "down"),
    [
        (RESPONSE, 0, None, None),
        (RESPONSE, F, True, None),
        (FIRE, F, True, False),
        (STREAM, 0, False, True),
        (STREAM, F, True, True),
        (CHANNEL, 0, True, True),
        (CHANNEL, C, False, True),
        (CHANNEL, F | C, True, True),
    ],
)
def test_the_ways_of_a_new_stream(interaction: Interaction, flags: int, up: bool | None, down: bool | None) -> None:
    made = ways(interaction, flags, 7)
    assert [None if way is None else way.open for way in made] == [up, down]
    assert made[1] is None or made[1].credit == 7
    assert made[0] is None or made[0].credit == 0


def test_when_a_stream_is_over() -> None:
    shut, wide = Way(0, is_open=False), Way(0, is_open=True)
    assert are_over(None, None, N)
    assert not are_over(None, None, N | F)
    assert are_over(shut, shut, C)
    assert not are_over(shut, wide, C)
    assert not are_over(wide, shut, N)
    assert not are_over(shut, None, N), "an answer is still to come"
