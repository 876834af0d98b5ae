"""Under which name apps reach the broker, what an operator is warned of, and when the port is open."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from rsocket_broker.admin.client import AdminLine, admin_line
from rsocket_broker.broker import Broker
from rsocket_broker.enrollment.modes import Mode
from rsocket_broker.errors import ConfigurationError, RequestFailed
from rsocket_broker.listening.pairing import default_host, warnings
from rsocket_broker.settings import ListenSettings, Settings

EVERYWHERE = ListenSettings(host="0.0.0.0", insecure_host="0.0.0.0")


@pytest.mark.parametrize(
    ("listen", "host"),
    [
        (ListenSettings(), "localhost"),
        (ListenSettings(host="0.0.0.0"), "localhost"),  # enrolment stays at home
        (ListenSettings(host="0.0.0.0", insecure_host="0.0.0.0", names=("broker.example",)), "broker.example"),
        (ListenSettings(host="192.0.2.7", insecure_host="192.0.2.7"), "192.0.2.7"),
    ],
)
def test_the_host_is_what_serve_was_told(listen: ListenSettings, host: str) -> None:
    assert default_host(listen) == host


def test_a_host_that_cannot_be_told_is_asked_for() -> None:
    with pytest.raises(ConfigurationError, match=r"--host, .*--name"):
        default_host(EVERYWHERE)


@pytest.mark.row("A-13")
def test_an_operator_is_warned_of_what_would_fail_later() -> None:
    assert "on this machine alone" in warnings(ListenSettings(), "localhost")[0]
    (found,) = warnings(EVERYWHERE, "broker.example")
    assert "--name broker.example" in found
    named = ListenSettings(host="0.0.0.0", insecure_host="0.0.0.0", names=("broker.example",))
    assert warnings(named, "broker.example") == []


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[Broker]:
    listen = ListenSettings(insecure_port=0, secure_port=0, ws_secure_port=None)
    made = Broker(Settings(home=tmp_path / "home", listen=listen, adb="off", enrollment_mode=Mode.WINDOW))
    try:
        await made.start()
        yield made
    finally:
        await made.stop()


async def first(line: AdminLine, events: Any) -> str:
    async for event in events:
        if event["event"] == "open":
            return str(event["code"])
    raise AssertionError("no code was shown")


@pytest.mark.row("D-10", "A-33")
async def test_the_port_is_open_while_a_code_is_shown_or_a_window_is(broker: Broker) -> None:
    async with admin_line(broker.settings.home) as line:
        assert not broker.listeners.listening("insecure")
        events = line.stream("pairing.open", {"seconds": 60})
        code = await first(line, events)
        assert broker.listeners.listening("insecure")
        await line.call("enrollment.open", {"seconds": 60})
        await line.call("enrollment.close")
        assert broker.listeners.listening("insecure"), "the code is shown still"
        with pytest.raises(RequestFailed, match="over already"):
            await line.call("pairing.confirm", {"code": code, "number": 1})
        await line.call("enrollment.open", {"seconds": 60})
        await events.aclose()
        await line.call("enrollment.status")
        assert broker.listeners.listening("insecure"), "the window is open still"
        closed = await line.call("enrollment.close")
        assert closed["insecure_port"] is None


@pytest.mark.row("D-10")
async def test_an_operator_who_closes_the_port_ends_the_codes(broker: Broker) -> None:
    async with (
        admin_line(broker.settings.home) as line,
        contextlib.aclosing(line.stream("pairing.open", {"seconds": 60, "host": "localhost"})) as events,
    ):
        await first(line, events)
        await line.call("listeners.close", {"name": "insecure"})
        reasons = [event["reason"] async for event in events if event["event"] == "closed"]
        assert reasons == ["the plain port was closed"]


@pytest.mark.row("D-10", "A-33")
async def test_a_code_opens_no_port_for_others_that_was_closed_by_hand(broker: Broker) -> None:
    """A window is open, by WebSocket alone as the operator wants it: whoever it lets in would come by the other too."""
    async with admin_line(broker.settings.home) as line:
        await line.call("enrollment.open", {"seconds": 60})
        await line.call("listeners.close", {"name": "insecure"})
        assert (await line.call("enrollment.status"))["window"] is not None
        with pytest.raises(RequestFailed, match="was closed by hand"):
            await first(line, line.stream("pairing.open", {"seconds": 60}))
        assert not broker.listeners.listening("insecure")
        await line.call("enrollment.close")
        events = line.stream("pairing.open", {"seconds": 60})
        await first(line, events)
        assert broker.listeners.listening("insecure"), "no window is open, so that nobody else is let in"
        await events.aclose()
