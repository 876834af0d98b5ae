"""Whatever a handler does stays its own affair."""

import asyncio

import pytest

from rsocket_broker.errors import ApplicationError, Canceled, Rejected, RequestFailed
from rsocket_broker.plugin_api import Proof
from rsocket_broker.plugin_api.testing import FakeApp, fake_identity
from rsocket_broker.routing.plugin_host import LEFT, PluginHost
from rsocket_broker.routing.seat import Seat
from rsocket_broker.routing.tasks import Tasks
from tests.routing.line import loaded, until
from tests.routing.seats import Crowded, Trouble, ask, host_of, read, ready_seat


@pytest.mark.row("A-56")
@pytest.mark.parametrize("name", ["plain", "coroutine"])
@pytest.mark.parametrize("how", ["bug", "exit", "unfit", "stop"])
async def test_what_goes_wrong_stays_here(name: str, how: str, caplog: pytest.LogCaptureFixture) -> None:
    seat = ready_seat(Trouble())
    with pytest.raises(ApplicationError) as caught:
        await ask(seat, name, how)
    assert caught.value.public == f"internal error in trouble.{name}"
    assert len(caplog.records) == 1
    assert caplog.records[0].exc_info is not None
    assert host_of(seat).gate.held == 0


@pytest.mark.parametrize("name", ["plain", "coroutine"])
async def test_a_client_that_has_left_while_it_was_asked_is_told_of_in_words_of_ours(name: str) -> None:
    with pytest.raises(Canceled) as caught:
        await ask(ready_seat(Trouble()), name, "closed")
    assert caught.value.public == LEFT


@pytest.mark.parametrize("name", ["plain", "coroutine"])
async def test_words_meant_for_the_caller_go_out_and_are_not_logged(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    seat = ready_seat(Trouble())
    for how, kind, text in [
        ("meant", ApplicationError, "in words meant for you"),
        ("rejected", Rejected, "later"),
    ]:
        with pytest.raises(kind, match=text):
            await ask(seat, name, how)
    assert not caplog.records


@pytest.mark.parametrize("name", ["plain", "coroutine"])
async def test_a_handler_that_cancels_itself_is_answered_for(name: str) -> None:
    with pytest.raises(RequestFailed):
        await ask(ready_seat(Trouble()), name, "cancel")


async def test_a_deadline_stops_the_handler_and_says_so() -> None:
    seat = ready_seat(Trouble())
    with pytest.raises(Canceled) as caught:
        await ask(seat, "late")
    assert caught.value.public == "trouble.late was stopped: it took longer than its deadline of 0.01 s."
    with pytest.raises(Canceled, match=r"trouble.late-stream was stopped"):
        await read(seat, "late-stream")
    with pytest.raises(ApplicationError, match="internal error"):
        await ask(seat, "own-timeout")
    assert host_of(seat).gate.held == 0


async def test_places_are_limited_and_plain_handlers_need_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rsocket_broker.routing.gate.MAX_WAIT", 0.02)
    seat = ready_seat(Trouble())
    waiting = [asyncio.ensure_future(ask(seat, "wait")) for _ in range(2)]
    await until(lambda: host_of(seat).gate.held == 2)
    with pytest.raises(Rejected, match='The plugin "trouble" was busy for'):
        await ask(seat, "wait")
    with pytest.raises(Rejected, match='The plugin "trouble" is busy'):
        await read(seat, "numbers")
    assert (await ask(seat, "plain", "fine")).data == b'"fine"'
    seat.app.state.event.set()
    assert [payload.data for payload in await asyncio.gather(*waiting)] == [b'"done"'] * 2
    assert await read(seat, "numbers") == [b"0", b"1", b"2"]


@pytest.mark.row("A-30", "M-9")
async def test_clients_that_have_proved_nothing_share_places_and_leave_some() -> None:
    host = PluginHost(loaded(Crowded())[0], Tasks())
    nobody = fake_identity(proof=Proof.UNVERIFIED)
    crowd = [Seat(host, FakeApp(number, nobody, {}, {}), Tasks()) for number in range(Crowded.concurrency)]
    seat = Seat(host, FakeApp(99, fake_identity(), {}, {}), Tasks())
    waiting = []
    for each in (*crowd, seat):
        each.app.state.event = asyncio.Event()
        each.connect()
        waiting.append(asyncio.ensure_future(ask(each, "wait")))
    await until(lambda: host.gate.waiting == 1)
    await until(lambda: "wait" in seat.running.values() and host.gate.held == Crowded.concurrency)
    assert host.gate._held[seat.app.id] == 1, "the certified one has its place, whatever the others do"
    for each in (*crowd, seat):
        each.app.state.event.set()
    assert [payload.data for payload in await asyncio.gather(*waiting)] == [b'"done"'] * len(waiting)
    assert host.gate.held == 0
