"""The parts that keep certificates good, as a broker puts them together."""

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from rsocket_broker.admin.client import ask
from rsocket_broker.client.renewal import serial_of
from rsocket_broker.errors import ConnectionClosed
from rsocket_broker.lifecycle import spreading
from rsocket_broker.moments import utc_now
from tests.enrollment.workshop import LOCALHOST, DesktopApp, open_workshop
from tests.lifecycle.lab import lab


@pytest.mark.row("A-18")
async def test_the_sdk_renews_at_two_thirds_of_its_certificates_life_over_the_session_it_has(
    tmp_path: Path, home: Path
) -> None:
    """The plain port is closed, and the clock of the app runs ahead until it has renewed."""
    ahead = [timedelta()]
    async with lab(tmp_path, home) as here:
        async with here.app():
            pass
        before = here.held()
        await here.broker.listeners.close("insecure")
        ahead[0] = timedelta(days=22)
        async with here.app(now=lambda: utc_now() + ahead[0]) as session:
            await here.until(lambda: here.held() != before)
            ahead[0] = timedelta()
            after = here.held()
            await here.until(lambda: f"{here.session().identity.serial:x}" == serial_of(after))
            assert after.credentials.key_pem == before.credentials.key_pem
            assert (session.connections, await session.request("echo.request", 1)) == (1, 1)
            assert len(here.authority.certificates("org.example.demo")) == 2
            assert here.upkeep.renewals()["session", "done"] >= 1


@pytest.mark.row("A-18")
async def test_a_broker_that_starts_renews_what_has_become_due_while_it_was_away(
    tmp_path: Path, home: Path, app: DesktopApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_workshop(home) as workshop:
        await workshop.enroller.serve(app.message(), app.claims, LOCALHOST)
        await workshop.enroller.drain(10)
        workshop.authority.prepare()
        workshop.authority.switch()
    old = app.pair()
    async with lab(tmp_path, home) as here:
        await here.until(lambda: app.pair()[1] != old[1])
        assert app.pair()[0] == here.authority.trust_pem
        await here.until(lambda: here.authority.holders(1) == [])


async def test_a_device_that_is_back_is_tried_at_once(
    tmp_path: Path, home: Path, app: DesktopApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spreading, "LOOK_S", 3600.0)
    async with lab(tmp_path, home) as here:
        enroller = here.broker._enroller
        assert enroller is not None
        await enroller.serve(app.message(), app.claims, LOCALHOST)
        containers = here.containers
        await here.until(lambda: len(containers.all()) == 1)
        containers.failed(containers.all()[0], "the device is not attached", utc_now() + timedelta(hours=1))
        here.authority.prepare()
        await here.upkeep.reachable(["filesystem"])
        await here.until(lambda: app.pair()[0] == here.authority.trust_pem)
        await here.until(lambda: containers.all()[0].problem == "")


async def test_operators_see_who_renews_and_when(tmp_path: Path, home: Path) -> None:
    async with lab(tmp_path, home) as here, here.app():
        await here.until(lambda: len(here.containers.all()) == 1 and here.containers.all()[0].self_renewing)
        told = here.upkeep.describe(here.session())
        (kept,) = here.containers.all()
        assert told == {"renews_over_session": True, **kept.describe()}
        shown = await asyncio.to_thread(ask, home, "clients.show", {"client": "org.example.demo"})
        assert {name: shown[name] for name in told} == told


async def test_an_app_that_is_called_like_a_session_is_not_taken_for_it(tmp_path: Path, home: Path) -> None:
    """A renewal of a session that has ended meanwhile must not go on as one of somebody else's."""
    async with lab(tmp_path, home) as here, here.app("c99", app_id="c99"):
        assert here.broker.sessions.named("c99")
        with pytest.raises(ConnectionClosed):
            here.upkeep._find("c99")
