"""The modes of enrolment, by whole exchanges with a real authority and real folders."""

import asyncio
import json
import logging
import platform
from collections.abc import Awaitable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from rsocket_broker.claims import Claims
from rsocket_broker.enrollment.devices import DeviceRegistry
from rsocket_broker.enrollment.exchange import SignRequest
from rsocket_broker.enrollment.mediums.base import MediumContext
from rsocket_broker.enrollment.mediums.filesystem import FilesystemMedium
from rsocket_broker.enrollment.modes import GUESSES, Gate, Mode
from rsocket_broker.errors import ApplicationError, ConfigurationError, EnrollmentRefused
from tests.enrollment.workshop import LOCALHOST, DesktopApp, Workshop, open_workshop
from tests.until import until

HOUR = timedelta(hours=1)
REQUEST = SignRequest(csr="", claims=Claims())


async def enrol(workshop: Workshop, app: DesktopApp, **changes: object) -> dict[str, object]:
    return await workshop.enroller.serve(app.message(**changes), app.claims, LOCALHOST)


async def refusal(asking: Awaitable[object]) -> EnrollmentRefused:
    with pytest.raises(EnrollmentRefused) as caught:
        await asking
    assert caught.value.remedy
    return caught.value


def token_for(workshop: Workshop, app_id: str, **changes: object) -> str:
    wanted: dict[str, object] = {"now": datetime.now(UTC), "life": HOUR} | changes
    return workshop.grants.make(app_id, **wanted)[1]  # type: ignore[arg-type]


def some_apps(tmp_path: Path, count: int) -> list[DesktopApp]:
    return [DesktopApp(tmp_path / "apps" / str(number), f"org.example.demo{number}") for number in range(count)]


class PatientMedium(FilesystemMedium):
    """Does nothing before it is told to."""

    def __init__(self, context: MediumContext) -> None:
        super().__init__(context)
        self.may_prove, self.may_deploy = asyncio.Event(), asyncio.Event()
        self.proving = 0

    async def prove(self, *arguments: object) -> object:  # type: ignore[override]
        self.proving += 1
        await self.may_prove.wait()
        return await super().prove(*arguments)  # type: ignore[arg-type]

    async def deploy(self, *arguments: object) -> None:
        await self.may_deploy.wait()
        await super().deploy(*arguments)  # type: ignore[arg-type]


def patient(workshop: Workshop) -> PatientMedium:
    driver = PatientMedium(MediumContext(devices=DeviceRegistry(workshop.state), log=logging.getLogger("patient")))
    offered = workshop.mediums.offered
    assert isinstance(offered, dict)
    offered["filesystem"] = driver
    return driver


# --- window ----------------------------------------------------------------------------------------------------------


@pytest.mark.row("A-11", "A-13")
async def test_without_a_window_nobody_enrols_and_is_told_what_to_do(home: Path, app: DesktopApp) -> None:
    with open_workshop(home, mode=Mode.WINDOW) as workshop:
        told = await refusal(enrol(workshop, app))
        assert told.step == "window"
        assert "rsocket-broker enrollment open --for" in told.public
        assert workshop.issued(app.app_id) == 0
        assert workshop.enroller.outcomes.results == {("none", "window"): 1}


@pytest.mark.row("A-11", "M-24")
async def test_a_window_closes_with_its_last_certificate(home: Path, tmp_path: Path) -> None:
    first, second, third = some_apps(tmp_path, 3)
    changes: list[bool] = []
    with open_workshop(home, mode=Mode.WINDOW) as workshop:
        gate = workshop.gate
        gate.on_change = lambda: changes.append(gate.window_is_open)
        gate.open_window(HOUR, 2)
        await enrol(workshop, first)
        assert gate.window_is_open and gate.describe()["window"]["issued"] == 1  # type: ignore[index]
        await enrol(workshop, second)
        assert not gate.window_is_open and changes == [True, False]
        assert (await refusal(enrol(workshop, third))).step == "window"
        assert gate.describe() == {"mode": "window", "window": None}


@pytest.mark.row("A-11")
async def test_a_window_closes_when_its_time_is_over(home: Path, tmp_path: Path, app: DesktopApp) -> None:
    with open_workshop(home, mode=Mode.WINDOW) as workshop:
        driver, gate, closed = patient(workshop), workshop.gate, asyncio.Event()
        gate.open_window(HOUR, None)
        under_way = asyncio.ensure_future(enrol(workshop, app))
        await until(lambda: driver.proving)
        workshop.clock.seconds += 3600
        late = DesktopApp(tmp_path / "apps" / "late")
        assert (await refusal(enrol(workshop, late))).step == "window"
        driver.may_prove.set()
        driver.may_deploy.set()
        assert (await under_way)["deviceId"]  # what had begun is brought to its end

        gate.on_change = lambda: None if gate.window_is_open else closed.set()
        gate.open_window(timedelta(milliseconds=20), None)
        async with asyncio.timeout(5):
            await closed.wait()  # by itself


@pytest.mark.row("A-11")
async def test_a_crowd_gets_no_more_than_the_window_has(home: Path, tmp_path: Path) -> None:
    apps = some_apps(tmp_path, 8)
    with open_workshop(home, mode=Mode.WINDOW) as workshop:
        driver = patient(workshop)
        workshop.gate.open_window(HOUR, 3)
        asked = [asyncio.ensure_future(enrol(workshop, app)) for app in apps]
        await until(lambda: sum(task.done() for task in asked) == 5)
        for task in asked:
            if task.done():
                told = await refusal(task)
                assert told.step == "limits" and "Try again" in told.public  # a place may come free
        driver.may_prove.set()
        driver.may_deploy.set()
        await asyncio.gather(*asked, return_exceptions=True)
        assert sum(workshop.issued(app.app_id) for app in apps) == 3
        assert not workshop.gate.window_is_open


@pytest.mark.row("A-11")
async def test_a_place_comes_free_when_its_holder_leaves_before_the_proof(home: Path, tmp_path: Path) -> None:
    first, second = some_apps(tmp_path, 2)
    with open_workshop(home, mode=Mode.WINDOW) as workshop:
        driver = patient(workshop)
        workshop.gate.open_window(HOUR, 1)
        leaving = asyncio.ensure_future(enrol(workshop, first))
        await until(lambda: driver.proving)
        leaving.cancel()
        await asyncio.wait([leaving])
        driver.may_prove.set()
        driver.may_deploy.set()
        await enrol(workshop, second)
        assert (workshop.issued(first.app_id), workshop.issued(second.app_id)) == (0, 1)


@pytest.mark.row("A-11")
async def test_a_place_stays_taken_when_its_holder_leaves_after_the_proof(home: Path, tmp_path: Path) -> None:
    """It gets its certificate all the same."""
    first, second = some_apps(tmp_path, 2)
    with open_workshop(home, mode=Mode.WINDOW) as workshop:
        driver = patient(workshop)
        driver.may_prove.set()
        workshop.gate.open_window(HOUR, 1)
        leaving = asyncio.ensure_future(enrol(workshop, first))
        await until(lambda: workshop.issued(first.app_id))
        leaving.cancel()
        await asyncio.wait([leaving])
        assert (await refusal(enrol(workshop, second))).step in ("limits", "window")
        driver.may_deploy.set()
        await workshop.enroller.drain(5)
        assert not workshop.gate.window_is_open
        assert (workshop.issued(first.app_id), workshop.issued(second.app_id)) == (1, 0)


async def test_a_place_is_held_by_the_work_and_not_by_who_waits_for_it() -> None:
    gate = Gate(Mode.WINDOW)
    gate.open_window(HOUR, 1)
    may_end = asyncio.Event()
    with await gate.enter(REQUEST, "app", LOCALHOST) as passage:
        work = asyncio.ensure_future(may_end.wait())
        passage.hold_for(work)
    assert (await refusal(gate.enter(REQUEST, "app", LOCALHOST))).step == "limits"
    may_end.set()
    await work
    await asyncio.sleep(0)
    with await gate.enter(REQUEST, "app", LOCALHOST) as passage:
        passage.issued()
    assert not gate.window_is_open
    assert gate.close_window("again") is False


async def test_a_new_window_takes_the_place_of_the_old_one() -> None:
    gate = Gate(Mode.WINDOW)
    gate.open_window(HOUR, 1)
    with await gate.enter(REQUEST, "app", LOCALHOST) as old:
        gate.open_window(HOUR, 1)
        old.issued()  # counts there, and not here
        assert gate.window_is_open
    with pytest.raises(ConfigurationError, match="enrolments"):
        gate.open_window(HOUR, 0)
    assert gate.window_is_open
    assert gate.close_window("by hand") is True


@pytest.mark.parametrize("mode", [Mode.OPEN, Mode.TOKEN])
async def test_only_that_mode_has_windows(mode: Mode) -> None:
    gate = Gate(mode)
    with pytest.raises(ApplicationError, match=f"--enrollment {mode}.*listeners close insecure"):
        gate.open_window(HOUR, None)
    assert gate.describe() == {"mode": mode.value, "window": None}


@pytest.mark.row("M-17", "A-13")
@pytest.mark.parametrize("mode", list(Mode))
async def test_whoever_is_still_connected_to_a_closed_port_gets_nothing(
    home: Path, app: DesktopApp, mode: Mode
) -> None:
    with open_workshop(home, mode=mode) as workshop:
        workshop.gate.barred = {"insecure"}
        told = await refusal(enrol(workshop, app, grant=app.grant(token_for(workshop, app.app_id))))
        assert told.step == "window" and "listeners open insecure" in told.public


# --- token -----------------------------------------------------------------------------------------------------------


@pytest.mark.row("A-07")
async def test_a_token_lets_its_app_in_once(home: Path, app: DesktopApp) -> None:
    with open_workshop(home, mode=Mode.TOKEN) as workshop:
        token = token_for(workshop, app.app_id)
        assert (await enrol(workshop, app, grant=app.grant(token)))["deviceId"]
        for _ in range(2):
            told = await refusal(enrol(workshop, app, grant=app.grant(token)))
            assert told.step == "token" and "used already" in told.public
        assert workshop.issued(app.app_id) == 1


@pytest.mark.row("A-07")
async def test_a_crowd_with_one_token_gets_one_certificate(home: Path, tmp_path: Path) -> None:
    """All are proven before the first is signed."""
    apps = [DesktopApp(tmp_path / "apps" / str(number)) for number in range(5)]
    with open_workshop(home, mode=Mode.TOKEN) as workshop:
        driver = patient(workshop)
        driver.may_deploy.set()
        token = token_for(workshop, apps[0].app_id)

        async def ask(app: DesktopApp, number: int) -> object:
            return await workshop.enroller.serve(
                app.message(grant=app.grant(token)), app.claims_of(f"bench {number}"), LOCALHOST
            )

        asked = [asyncio.ensure_future(ask(app, number)) for number, app in enumerate(apps)]
        await until(lambda: driver.proving == 5)
        driver.may_prove.set()
        done = await asyncio.gather(*asked, return_exceptions=True)
        refused = [each for each in done if isinstance(each, EnrollmentRefused)]
        assert len(refused) == 4 and {each.step for each in refused} == {"token"}
        assert workshop.issued(apps[0].app_id) == 1
        assert workshop.journal.pending() == [] or len(workshop.journal.pending()) == 1
        assert sum(app.pair()[1] is not None for app in apps) == 1


@pytest.mark.row("A-13")
async def test_each_refusal_of_a_token_says_why(home: Path, app: DesktopApp) -> None:
    with open_workshop(home, mode=Mode.TOKEN) as workshop:
        none = await refusal(enrol(workshop, app))
        assert none.step == "token" and "the request has none" in none.public and "--enrollment window" in none.public
        ours, now = token_for(workshop, app.app_id), datetime.now(UTC)
        other = token_for(workshop, "org.example.other")
        over = token_for(workshop, app.app_id, now=now - 2 * HOUR)
        withdrawn, gone = workshop.grants.make(app.app_id, now=now, life=HOUR)
        workshop.grants.withdraw(withdrawn.id, now)
        wrong = ours[:-2] + ("AA" if ours[-2:] != "AA" else "BB")
        for grant, words in (
            (app.grant(wrong), "none of this broker's"),
            (ours, "none of this broker's"),  # its secret is no proof
            ("nonsense", "none of this broker's"),
            (app.grant(other), "for another app"),
            (app.grant(over), "has ended"),
            (app.grant(gone), "was withdrawn"),
            ("x" * 257, "longer than 256"),
        ):
            told = await refusal(enrol(workshop, app, grant=grant))
            assert words in told.public and grant not in told.public
        assert workshop.issued(app.app_id) == 0
        await enrol(workshop, app, grant=app.grant(ours))


@pytest.mark.row("A-33", "M-8")
async def test_what_a_listener_hears_lets_in_nobody_else(home: Path, tmp_path: Path) -> None:
    """With a request of its own the proof is wrong; with the one that it heard, it is not in that app's folder."""
    app, listener = DesktopApp(tmp_path / "app"), DesktopApp(tmp_path / "listener")
    with open_workshop(home, mode=Mode.TOKEN) as workshop:
        heard = app.grant(token_for(workshop, app.app_id, uses=2))
        own = await refusal(enrol(workshop, listener, grant=heard))
        assert own.step == "token" and "this very signing request" in own.public
        replayed = await refusal(enrol(workshop, listener, csr=app.csr, grant=heard))
        assert replayed.step == "proof"
        assert workshop.issued(app.app_id) == 0
        for used in (1, 2):  # the same again, for the app itself, is a use like any other
            await enrol(workshop, app, grant=heard)
            assert [grant.used for grant in workshop.grants.list()] == [used]
        assert "used already" in (await refusal(enrol(workshop, app, grant=heard))).public


@pytest.mark.row("A-33", "A-57", "M-8")
@pytest.mark.parametrize("mode", list(Mode))
async def test_a_token_itself_is_refused_and_never_logged(
    home: Path, app: DesktopApp, mode: Mode, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    with open_workshop(home, mode=mode) as workshop:
        token = token_for(workshop, app.app_id)
        told = await refusal(enrol(workshop, app, token=token))
        workshop.authority.audit.close()
        bodies = [row["body"] for row in workshop.state.read("SELECT body FROM audit")]
    assert told.step == "message" and '"grant": "ID.PROOF"' in told.public
    assert token.split(".")[1] not in told.public + caplog.text + "".join(bodies)


@pytest.mark.row("M-14")
async def test_the_secret_of_one_device_fails_on_another(home: Path, tmp_path: Path) -> None:
    """By what the driver has found out of the device, whatever it says of itself."""
    with open_workshop(home, mode=Mode.TOKEN) as workshop:
        here = DeviceRegistry(workshop.state).host_device_id()
        for number, device in enumerate((here, platform.node())):
            app = DesktopApp(tmp_path / "apps" / str(number))
            other = token_for(workshop, app.app_id, device="another-device")
            told = await refusal(enrol(workshop, app, grant=app.grant(other)))
            assert told.step == "token" and "another device" in told.public
            with pytest.raises(EnrollmentRefused, match="another device"):
                await workshop.enroller.serve(
                    app.message(grant=app.grant(other)), app.claims_of("another-device"), LOCALHOST
                )
            assert workshop.issued(app.app_id) == number
            await enrol(workshop, app, grant=app.grant(token_for(workshop, app.app_id, device=device)))
        assert [grant.used for grant in workshop.grants.list()].count(1) == 2


@pytest.mark.row("A-10", "M-14")
async def test_guessing_is_slow(home: Path, app: DesktopApp) -> None:
    with open_workshop(home, mode=Mode.TOKEN) as workshop:
        token = token_for(workshop, app.app_id)
        wrong = 0
        while (await refusal(enrol(workshop, app, grant="guess"))).step == "token":
            wrong += 1
            workshop.clock.seconds += 2  # no other rate is in the way
        assert GUESSES.burst <= wrong < 2 * GUESSES.burst
        told = await refusal(enrol(workshop, app, grant=app.grant(token)))
        assert told.step == "limits" and "wrong tokens" in told.public
        workshop.clock.seconds += 1 / GUESSES.per_second
        await enrol(workshop, app, grant=app.grant(token))


@pytest.mark.row("A-10")
@pytest.mark.parametrize("mode", list(Mode))
async def test_the_rates_hold_in_every_mode(home: Path, app: DesktopApp, mode: Mode) -> None:
    with open_workshop(home, mode=mode) as workshop:
        if mode is Mode.WINDOW:
            workshop.gate.open_window(HOUR, None)
        token = token_for(workshop, app.app_id, uses=1000)
        steps = []
        for _ in range(12):
            app.make_request()
            try:
                await enrol(workshop, app, grant=app.grant(token))
            except EnrollmentRefused as refused:
                steps.append(refused.step)
        assert steps == ["limits"] * 2
        assert workshop.issued(app.app_id) == 10


@pytest.mark.parametrize("mode", [Mode.OPEN, Mode.WINDOW])
async def test_elsewhere_a_grant_means_nothing(home: Path, app: DesktopApp, mode: Mode) -> None:
    with open_workshop(home, mode=mode) as workshop:
        if mode is Mode.WINDOW:
            workshop.gate.open_window(HOUR, None)
        await enrol(workshop, app, grant="whatever")
        assert workshop.issued(app.app_id) == 1


async def test_a_grant_is_used_up_with_the_certificate_also_where_it_cannot_be_delivered(
    home: Path, app: DesktopApp
) -> None:
    with open_workshop(home, mode=Mode.TOKEN) as workshop:
        driver = patient(workshop)
        driver.may_prove.set()
        token = token_for(workshop, app.app_id)
        asking = asyncio.ensure_future(enrol(workshop, app, grant=app.grant(token)))
        await until(lambda: workshop.issued(app.app_id))
        app.make_request()
        driver.may_deploy.set()
        assert (await refusal(asking)).step == "deploy"
        assert [grant.used for grant in workshop.grants.list()] == [1]


# --- the record ------------------------------------------------------------------------------------------------------


async def test_windows_grants_and_refusals_are_in_the_audit_and_no_token(
    home: Path, app: DesktopApp, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    with open_workshop(home, mode=Mode.TOKEN) as workshop:
        token = token_for(workshop, app.app_id)
        for _ in range(3):
            await refusal(enrol(workshop, app, grant=app.grant(token)[:-1] + "!"))
        await enrol(workshop, app, grant=app.grant(token))
        gate = Gate(Mode.WINDOW, None, workshop.authority.audit)
        gate.open_window(HOUR, 5)
        gate.close_window("the test is over")
        workshop.authority.audit.close()
        records = [json.loads(row["body"]) for row in workshop.state.read("SELECT body FROM audit ORDER BY number")]
        text = json.dumps(records) + caplog.text
    assert token.split(".")[1][:-1] not in text
    kinds = [record["event"] for record in records]
    assert kinds.count("grant") == 2 and kinds.count("window") == 2
    assert 1 <= kinds.count("enrolment-refused") <= 2  # told once, then counted
    (refused, *_) = [record for record in records if record["event"] == "enrolment-refused"]
    assert "none of this broker's" in json.dumps(refused)
