"""A rotation, and what is due every day, brought to whoever is there; and to whoever was not there, when they come."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import attrs
import pytest

from rsocket_broker.client.folder import AppFolder
from rsocket_broker.client.progress import Progress, Stage
from rsocket_broker.enrollment.mediums.filesystem import FilesystemMedium
from rsocket_broker.errors import HomeError
from rsocket_broker.lifecycle import spreading
from rsocket_broker.lifecycle.rotation import Outcome, Spread, Which
from rsocket_broker.lifecycle.spreading import AT_ONCE, _each
from tests.enrollment.workshop import LOCALHOST, DesktopApp
from tests.lifecycle.lab import Lab, lab


async def enrol(here: Lab, app: DesktopApp) -> None:
    """An app that is no session of ours: it has enrolled, and is reached by its driver."""
    enroller = here.broker._enroller
    assert enroller is not None
    await enroller.serve(app.message(), app.claims, LOCALHOST)
    await here.until(lambda: len(here.containers.all()) > 0)


@pytest.fixture
def rounds_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Newcomers are not seen to but by a round, however long after their coming it is on a busy machine."""
    monkeypatch.setattr(spreading, "GATHER_S", 3600.0)


def outcomes(spreads: list[Spread]) -> list[Outcome]:
    return [spread.outcome for spread in spreads]


@pytest.mark.usefixtures("rounds_alone")
@pytest.mark.row("A-14", "D-1")
async def test_a_rotation_reaches_sessions_over_their_lines_and_containers_by_their_drivers(
    tmp_path: Path, home: Path, app: DesktopApp
) -> None:
    async with lab(tmp_path, home) as here, here.app("one") as one, here.app("two"):
        await enrol(here, app)
        here.authority.prepare()
        assert outcomes(await here.trust()) == [Outcome.DONE] * 3
        assert await here.trust() == [], "who has it is passed over"
        both = here.authority.trust_pem
        assert here.held("one").credentials.trust_pem == here.held("two").credentials.trust_pem == app.pair()[0] == both
        here.authority.switch()
        assert await here.pairs(Which.WEB) == []
        assert outcomes(await here.pairs()) == [Outcome.DONE] * 3
        assert await here.pairs() == []
        assert here.authority.holders(1) == []
        here.authority.finish()
        assert outcomes(await here.trust()) == [Outcome.DONE] * 3
        assert app.pair()[0] == here.authority.trust_pem
        assert (one.connections, await one.request("echo.request", 1)) == (1, 1)


@pytest.mark.row("A-18", "D-2")
async def test_twice_round_with_the_plain_port_closed_no_session_drops_and_each_serial_changes(
    tmp_path: Path, home: Path
) -> None:
    async with lab(tmp_path, home) as here:
        stages: list[Progress] = []
        async with here.app(observer=stages.append) as session:
            await here.broker.listeners.close("insecure")
            seen = [here.session().identity.serial]
            for _ in range(2):
                here.authority.prepare()
                await here.trust()
                here.authority.switch()
                await here.pairs()
                here.authority.finish()
                await here.trust()
                seen.append(here.session().identity.serial)
            assert len(set(seen)) == 3
            assert session.connections == 1
            renewed = [stage.detail for stage in stages if stage.stage is Stage.RENEWED]
            assert renewed == [f"{serial:x}" for serial in seen[1:]]
            here.session().connection.drop_line()
            await here.until(lambda: any(stage.stage is Stage.RESUMED for stage in stages))
            assert await session.request("echo.request", "still") == "still"
            assert here.session().identity.serial == seen[-1]
            assert session.connections == 1


@pytest.mark.row("A-18")
async def test_who_was_away_gets_it_when_it_comes(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spreading, "GATHER_S", 0.01)
    monkeypatch.setattr(FilesystemMedium, "places", False)
    async with lab(tmp_path, home) as here:
        async with here.app():
            pass
        await here.until(lambda: len(here.containers.all()) == 1 and not len(here.broker.sessions))
        here.authority.prepare()
        (late,) = await here.trust()
        assert late.outcome is Outcome.LATER
        async with here.app():
            await here.until(lambda: here.held().credentials.trust_pem == here.authority.trust_pem)
        await here.until(lambda: not len(here.broker.sessions))
        here.authority.switch()
        async with here.app():
            await here.until(lambda: here.session().identity.generation == here.authority.generation)
        assert here.authority.holders(1) == []


@pytest.mark.row("A-14", "D-1")
async def test_an_app_seen_on_the_websocket_port_gets_the_pair_in_the_step_of_the_switch(
    tmp_path: Path, home: Path, app: DesktopApp
) -> None:
    async with lab(tmp_path, home) as here:
        await enrol(here, app)
        (kept,) = here.containers.all()
        here.containers.seen({kept.leaf.serial: attrs.evolve(SEEN)})
        here.authority.prepare()
        before = app.pair()
        assert await here.trust() == []
        assert app.pair() == before
        here.authority.switch()
        assert outcomes(await here.pairs(Which.WEB)) == [Outcome.DONE]
        assert app.pair()[0] == here.authority.web_trust_pem
        assert app.pair()[1] != before[1]
        assert await here.pairs() == []


SEEN = spreading.Sighting("wss", False)


@pytest.mark.usefixtures("rounds_alone")
@pytest.mark.row("A-18")
async def test_sessions_over_websocket_are_noted_and_served_as_well(tmp_path: Path, home: Path) -> None:
    async with lab(tmp_path, home) as here:
        url = f"wss://localhost:{here.broker.ports.ws_secure_port}/rsocket"
        async with here.app(websocket=url) as session:
            here.authority.prepare()
            assert outcomes(await here.trust()) == [Outcome.DONE]
            await here.until(lambda: len(here.containers.all()) == 1)
            (kept,) = here.containers.all()
            assert (kept.channel, kept.self_renewing) == ("wss", True)
            here.authority.switch()
            assert outcomes(await here.pairs()) == [Outcome.DONE]
            assert session.connections == 1


async def test_so_many_at_once_and_what_was_not_begun_is_not_begun_after_the_end() -> None:
    begun, most, under_way = 0, 0, 0

    async def one() -> Spread:
        nonlocal begun, most, under_way
        begun, under_way = begun + 1, under_way + 1
        most = max(most, under_way)
        await asyncio.sleep(0)
        under_way -= 1
        return Spread("client", Outcome.DONE)

    spreads = _each([one] * 100)
    assert (await anext(spreads)).outcome is Outcome.DONE
    await spreads.aclose()
    assert begun <= AT_ONCE
    begun = 0
    assert len([spread async for spread in _each([one] * 100)]) == 100
    assert (begun, most) == (100, AT_ONCE)


@pytest.mark.row("A-14", "A-16")
async def test_an_app_that_could_not_store_its_renewal_is_asked_again_but_less_and_less_often(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its disk was full for a moment: it must not hold up the end of a rotation until it connects anew."""
    async with lab(tmp_path, home) as here:
        spreader, store, now = here.upkeep.spreader, AppFolder.store_renewal, datetime.now(UTC)
        monkeypatch.setattr(spreader, "_now", lambda: now)
        monkeypatch.setattr(AppFolder, "store_renewal", _no_room)
        seen_to = _newcomers(here, monkeypatch)
        async with here.app():
            await seen_to.wait()
            here.authority.prepare()
            here.authority.switch()
            for minutes in (1, 2, 4):
                assert outcomes(await here.pairs()) == [Outcome.FAILED]
                ((_session, due),) = spreader._later.values()
                assert due - now == timedelta(minutes=minutes)
            monkeypatch.setattr(AppFolder, "store_renewal", store)
            now += timedelta(minutes=4)
            spreader._wake.set()
            await here.until(lambda: here.session().identity.generation == 2)
            await here.until(lambda: not spreader._later and not spreader._failures)


def _newcomers(here: Lab, monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Set once those who came first were seen to: from then on only a round has anything to tell them."""
    spreader, seen_to = here.upkeep.spreader, asyncio.Event()
    catch_up = spreader._catch_up

    async def noted() -> None:
        await catch_up()
        seen_to.set()

    monkeypatch.setattr(spreader, "_catch_up", noted)
    return seen_to


def _no_room(*_: object) -> None:
    raise HomeError("sonarCA.crt cannot be written: No space left on device.")
