"""What an operator opens and closes, over the admin line of a whole broker, and who notices."""

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from rsocket_broker import client
from rsocket_broker.admin.client import admin_line
from rsocket_broker.admin.run_folder import RunFolder
from rsocket_broker.broker import Broker
from rsocket_broker.enrollment.modes import Mode
from rsocket_broker.errors import EnrollmentRefused, RequestFailed
from rsocket_broker.settings import ListenSettings, Settings
from tests.listening.test_listeners import refused
from tests.test_broker import app, running
from tests.until import until

EVERY_PORT = ListenSettings(insecure_port=0, secure_port=0, http_port=0, browser_port=0)


def plain(broker: Broker) -> int:
    return broker.listeners.number("insecure") or 0


async def enrol(broker: Broker, folder: Path, app_id: str = "com.example.app", **more: Any) -> Any:
    return await client.enroll(app_id=app_id, app="Example", directory=folder, insecure_port=plain(broker), **more)


def records(broker: Broker, event: str) -> list[dict[str, Any]]:
    assert broker._audit is not None and broker._state is not None
    broker._audit.flush()
    rows = broker._state.read("SELECT body FROM audit WHERE event = ? ORDER BY number", (event,))
    return [json.loads(row["body"])["facts"] for row in rows]


# --- the window ------------------------------------------------------------------------------------------------------


@pytest.mark.row("A-11", "M-24")
async def test_the_transport_is_off_outside_provisioning(tmp_path: Path) -> None:
    """Enter, enrol, leave by time: the port is closed as the kernel closes ports, and the session lives."""
    home = tmp_path / "home"
    async with running(home, enrollment_mode=Mode.WINDOW) as broker, admin_line(home) as line:
        assert broker.ports.insecure_port is None
        assert await refused(plain(broker))
        opened = await line.call("enrollment.open", {"seconds": 1.5})
        assert opened["insecure_port"] == plain(broker) == broker.ports.insecure_port
        async with app(broker, tmp_path / "app") as session:
            await until(lambda: broker.ports.insecure_port is None)
            assert await refused(plain(broker))
            assert await session.request("echo.request", 1) == 1
            assert RunFolder(home).ports() == broker.ports
        assert (await line.call("enrollment.status"))["window"] is None
        assert [each["action"] for each in records(broker, "window")] == ["opened", "closed"]


@pytest.mark.row("A-11")
async def test_the_last_certificate_closes_the_port_while_others_are_still_being_told(tmp_path: Path) -> None:
    home = tmp_path / "home"
    async with running(home, enrollment_mode=Mode.WINDOW) as broker, admin_line(home) as line:
        await line.call("enrollment.open", {"seconds": 60, "uses": 3})
        asked = [enrol(broker, tmp_path / f"app{number}", f"com.example.a{number}") for number in range(6)]
        done = await asyncio.gather(*asked, return_exceptions=True)
        assert sum(not isinstance(each, Exception) for each in done) == 3  # each of them got its answer
        await until(lambda: not broker.listeners.listening("insecure"))
        assert await refused(plain(broker))
        assert len([each for each in broker.certificates() if each.principal]) == 3


@pytest.mark.row("A-11")
async def test_a_restart_closes_the_window(tmp_path: Path) -> None:
    home = tmp_path / "home"
    async with running(home, enrollment_mode=Mode.WINDOW) as broker, admin_line(home) as line:
        await line.call("enrollment.open", {"seconds": 3600})
    async with running(home, enrollment_mode=Mode.WINDOW) as broker, admin_line(home) as line:
        assert (await line.call("enrollment.status")) == {
            "mode": "window",
            "window": None,
            "insecure_port": None,
            "ws_insecure_port": None,
        }
        assert await refused(plain(broker))


async def test_a_window_in_the_place_of_another_keeps_the_port(tmp_path: Path) -> None:
    home = tmp_path / "home"
    async with running(home, enrollment_mode=Mode.WINDOW) as broker, admin_line(home) as line:
        await line.call("enrollment.open", {"seconds": 60, "uses": 1})
        again = await line.call("enrollment.open", {"seconds": 120, "uses": 2})
        await asyncio.sleep(0.05)
        assert broker.listeners.listening("insecure")
        assert again["window"]["uses"] == 2 and 110 < again["window"]["seconds_left"] <= 120
        closed = await line.call("enrollment.close")
        assert closed["changed"] and closed["insecure_port"] is None and await refused(plain(broker))
        assert not (await line.call("enrollment.close"))["changed"]


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"seconds": 0}, "3650d"),
        ({"seconds": 1e300}, "3650d"),
        ({"seconds": 5, "uses": 0}, "enrolments"),
        ({"seconds": "5"}, "wrong type"),
        ({}, "seconds is missing"),
    ],
)
async def test_a_window_that_makes_no_sense_opens_nothing(tmp_path: Path, params: Any, words: str) -> None:
    home = tmp_path / "home"
    async with running(home, enrollment_mode=Mode.WINDOW) as broker, admin_line(home) as line:
        with pytest.raises(RequestFailed, match=words):
            await line.call("enrollment.open", params)
        assert await refused(plain(broker))


async def test_other_modes_have_no_window(tmp_path: Path) -> None:
    async with running(tmp_path / "home"), admin_line(tmp_path / "home") as line:
        for verb, params in (("enrollment.open", {"seconds": 5}), ("enrollment.close", {})):
            with pytest.raises(RequestFailed, match="no window"):
                await line.call(verb, params)
        assert (await line.call("enrollment.status"))["mode"] == "open"


async def test_the_mode_follows_the_host_unless_it_is_said() -> None:
    def mode(**changes: Any) -> Mode:
        said = changes.pop("enrollment_mode", None)
        return Settings(home=Path("/"), listen=ListenSettings(**changes), enrollment_mode=said).mode

    assert mode() is mode(host="0.0.0.0") is Mode.OPEN
    assert mode(host="0.0.0.0", insecure_host="0.0.0.0") is mode(insecure_host="192.0.2.1") is Mode.WINDOW
    assert mode(insecure_host="192.0.2.1", enrollment_mode=Mode.OPEN) is Mode.OPEN
    assert mode(enrollment_mode=Mode.TOKEN) is Mode.TOKEN


# --- listeners -------------------------------------------------------------------------------------------------------


@pytest.mark.row("M-17")
@pytest.mark.parametrize("name", ["insecure", "secure", "ws_secure", "http", "browser"])
async def test_each_switch_works_over_the_admin_line_and_is_recorded(tmp_path: Path, name: str) -> None:
    home = tmp_path / "home"
    async with running(home, listen=EVERY_PORT) as broker, admin_line(home) as line:
        closed = await line.call("listeners.close", {"name": name})
        port = broker.listeners.number(name)
        assert (closed["open"], closed["changed"], closed["port"]) == (False, True, port)
        assert await refused(port)
        assert not (await line.call("listeners.close", {"name": name}))["changed"]
        listed = {each["name"]: each for each in await line.call("listeners.list")}
        assert [each for each in listed if not listed[each]["open"]] == [name]
        assert (await line.call("status"))["listeners"] == list(listed.values())
        opened = await line.call("listeners.open", {"name": name})
        assert opened == {"name": name, "open": True, "port": port, "changed": True}
        assert not await refused(port)
        assert [(each["action"], each["name"]) for each in records(broker, "listener")] == [
            ("closed", name),
            ("opened", name),
        ]


@pytest.mark.row("M-17")
async def test_who_closes_what_is_in_use_is_told(tmp_path: Path) -> None:
    home = tmp_path / "home"
    async with (
        running(home, listen=EVERY_PORT) as broker,
        admin_line(home) as line,
        app(broker, tmp_path / "app") as session,
    ):
        assert "1 connection lives on" in (await line.call("listeners.close", {"name": "secure"}))["warning"]
        assert "No client can connect" in (await line.call("listeners.close", {"name": "ws_secure"}))["warning"]
        warning = (await line.call("listeners.close", {"name": "http"}))["warning"]
        assert "metrics" in warning and "no session below another" in warning
        assert (await line.call("listeners.close", {"name": "insecure"}))["warning"] is None
        assert await session.request("echo.request", 1) == 1
        with pytest.raises(RequestFailed, match="admin line cannot be closed"):
            await line.call("listeners.close", {"name": "admin"})


@pytest.mark.row("M-17", "A-13")
async def test_the_plain_port_closed_by_hand_lets_nobody_enrol_until_it_is_open(tmp_path: Path) -> None:
    home = tmp_path / "home"
    async with running(home) as broker, admin_line(home) as line:
        await line.call("listeners.close", {"name": "insecure"})
        assert broker._gate is not None and broker._gate.barred
        with pytest.raises(OSError):
            await enrol(broker, tmp_path / "app")
        await line.call("listeners.open", {"name": "insecure"})
        assert (await enrol(broker, tmp_path / "app")).device_id


@pytest.mark.row("M-17", "M-24")
async def test_by_window_the_plain_port_has_no_life_of_its_own(tmp_path: Path) -> None:
    home = tmp_path / "home"
    async with running(home, enrollment_mode=Mode.WINDOW) as broker, admin_line(home) as line:
        with pytest.raises(RequestFailed, match="enrollment open --for 10m"):
            await line.call("listeners.open", {"name": "insecure"})
        await line.call("enrollment.open", {"seconds": 60})
        assert broker.listeners.listening("ws_insecure")
        await line.call("listeners.close", {"name": "insecure"})
        status = await line.call("enrollment.status")  # there is another port for it
        assert status["window"] is not None
        assert (status["insecure_port"], status["ws_insecure_port"]) == (None, broker.listeners.number("ws_insecure"))
        await line.call("listeners.close", {"name": "ws_insecure"})
        assert (await line.call("enrollment.status"))["window"] is None
        await line.call("enrollment.open", {"seconds": 60})
        assert (await enrol(broker, tmp_path / "app")).device_id


async def test_the_page_of_metrics_shows_what_is_open(tmp_path: Path) -> None:
    home = tmp_path / "home"
    async with running(home, listen=EVERY_PORT, enrollment_mode=Mode.WINDOW) as broker, admin_line(home) as line:

        async def page() -> str:
            reader, writer = await asyncio.open_connection("localhost", broker.ports.http_port)
            writer.write(f"GET /metrics HTTP/1.1\r\nHost: localhost:{broker.ports.http_port}\r\n\r\n".encode())
            text = (await reader.read()).decode()
            writer.close()
            await writer.wait_closed()
            return text

        async def shows(*lines: str) -> None:
            async with asyncio.timeout(10):
                while True:
                    text = await page()
                    if all(f"rsocket_broker_{line}\n" in text for line in lines):
                        return
                    assert "200 OK" in text
                    await asyncio.sleep(0.05)

        await shows('listener_open{port="insecure"} 0.0', 'enrollment_open{mode="window"} 0.0')
        await line.call("enrollment.open", {"seconds": 60})
        await shows('listener_open{port="insecure"} 1.0', 'enrollment_open{mode="window"} 1.0')
        await line.call("listeners.close", {"name": "ws_secure"})
        await shows('listener_open{port="ws_secure"} 0.0', 'listener_open{port="secure"} 1.0')


# --- tokens ----------------------------------------------------------------------------------------------------------


@pytest.mark.row("A-07")
async def test_the_sdk_enrols_and_connects_with_a_token(tmp_path: Path) -> None:
    home = tmp_path / "home"
    async with running(home, enrollment_mode=Mode.TOKEN) as broker:
        assert broker._gate is not None and broker._gate._grants is not None
        make: Callable[..., Any] = broker._gate._grants.make
        _, token = make("com.example.app", now=datetime.now(UTC), life=timedelta(hours=1), uses=2)
        options: dict[str, Any] = {
            "app_id": "com.example.app",
            "app": "Example",
            "insecure_port": broker.ports.insecure_port,
            "secure_port": broker.ports.secure_port,
            "timeout": 10,
        }
        async with client.connect(directory=tmp_path / "one", token=token, **options) as session:
            assert await session.request("echo.request", 1) == 1
        async with client.connect(directory=tmp_path / "one", **options) as session:  # has its certificate by now
            assert await session.request("echo.request", 1) == 1
        with pytest.raises(EnrollmentRefused, match="the request has none"):
            async with client.connect(directory=tmp_path / "two", **options):
                pass
        await enrol(broker, tmp_path / "two", token=token)
        with pytest.raises(EnrollmentRefused, match="used already"):
            async with client.connect(directory=tmp_path / "three", token=token, **options):
                pass
