"""Streams that fail, and those that are left early."""

from collections.abc import Iterator

import pytest

from rsocket_broker.errors import ApplicationError
from tests.routing.seats import EMPTY, Trouble, host_of, read, ready_seat


@pytest.mark.parametrize("name", ["generator", "async-generator"])
@pytest.mark.parametrize("how", ["bug", "exit", "unfit"])
async def test_a_stream_that_fails_frees_its_place(name: str, how: str, caplog: pytest.LogCaptureFixture) -> None:
    seat = ready_seat(Trouble())
    with pytest.raises(ApplicationError, match=rf"internal error in trouble\.{name}"):
        await read(seat, name, how)
    with pytest.raises(ApplicationError, match="in words meant for you"):
        await read(seat, name, "meant")
    assert host_of(seat).gate.held == 0
    assert len(caplog.records) == 1


async def test_a_stream_left_early_or_never_begun_frees_its_place() -> None:
    seat = ready_seat(Trouble())
    seat.streams.stream("numbers", EMPTY)
    values = seat.streams.stream("numbers", EMPTY)
    assert isinstance(values, Iterator)
    assert next(values) == b"0"
    assert host_of(seat).gate.held == 1
    values.close()  # type: ignore[attr-defined]
    assert host_of(seat).gate.held == 0
