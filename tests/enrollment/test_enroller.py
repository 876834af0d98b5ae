"""The road from a request to a certificate: its order, its bounds, and what is left after any accident."""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import attrs
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from rsocket_broker.authority.requests import CheckedRequest
from rsocket_broker.authority.revocation import Selector
from rsocket_broker.claims import Claims
from rsocket_broker.credentials import Credentials
from rsocket_broker.enrollment.containers import Sighting
from rsocket_broker.enrollment.devices import DeviceRegistry
from rsocket_broker.enrollment.exchange import SignRequest
from rsocket_broker.enrollment.mediums.base import (
    Bundle,
    Container,
    JournalEntry,
    Medium,
    MediumContext,
    Outcome,
    Settled,
    StillPending,
    undelivered,
)
from rsocket_broker.enrollment.mediums.filesystem import FilesystemMedium
from rsocket_broker.enrollment.throttle import EnrollmentLimits, Rate
from rsocket_broker.errors import AuthorityError, EnrollmentRefused
from rsocket_broker.identity import Principal, Proof
from tests.enrollment.workshop import LOCALHOST, DesktopApp, Workshop, open_workshop, refused

DEMO = "org.example.demo"
LONG = "org.example." + "long" * 14


class ConsoleMedium(Medium):
    """A driver that a test holds at a point, or lets fail there. It delivers into its own memory."""

    name = "console"
    number = 1
    systems = frozenset({"GameOS"})

    def __init__(self, context: MediumContext) -> None:
        super().__init__(context)
        self.steps: list[str] = []
        self.may_prove, self.may_deploy = asyncio.Event(), asyncio.Event()
        self.may_prove.set()
        self.may_deploy.set()
        self.failure: Exception | None = None
        self.settles_to: Settled | StillPending | Exception = Settled(Outcome.UNDONE)
        self.signed_before_proof = 0
        self.count_signed: Callable[[], int] = lambda: 0

    async def prove(self, request: SignRequest, checked: CheckedRequest) -> Container:
        self.steps.append("prove")
        self.signed_before_proof += self.count_signed()
        await self.may_prove.wait()
        principal = Principal(checked.common_name, "console-1", Proof.FILESYSTEM)
        return Container(medium=self.name, principal=principal, location={"slot": "1"}, answer={"slot": 1})

    async def deploy(self, container: Container, bundle: Bundle) -> None:
        self.steps.append("deploy")
        await self.may_deploy.wait()
        if self.failure:
            raise self.failure
        self.steps.append("deployed")

    async def settle(self, entry: JournalEntry) -> Settled | StillPending:
        self.steps.append("settle")
        if isinstance(self.settles_to, Exception):
            raise self.settles_to
        return self.settles_to


@attrs.frozen
class Console:
    """A workshop with such a driver, and an app on it."""

    workshop: Workshop
    driver: ConsoleMedium
    app: DesktopApp

    async def ask(self, device: str = "console", **changes: object) -> dict[str, object]:
        claims = Claims(os="GameOS", device=device, app="Demo")
        return await self.workshop.enroller.serve(self.app.message(**changes), claims, LOCALHOST)

    async def reached(self, step: str) -> None:
        async with asyncio.timeout(5):
            while step not in self.driver.steps:
                await asyncio.sleep(0.001)


@pytest.fixture
def limits() -> EnrollmentLimits:
    return EnrollmentLimits()


@pytest.fixture
async def console(home: Path, tmp_path: Path, limits: EnrollmentLimits):  # type: ignore[no-untyped-def]
    drivers: dict[str, Medium] = {}
    with open_workshop(home, limits=limits, drivers=drivers) as workshop:
        context = MediumContext(devices=DeviceRegistry(workshop.state), log=logging.getLogger("console"))
        driver = ConsoleMedium(context)
        driver.count_signed = lambda: workshop.issued(DEMO)
        assert isinstance(workshop.mediums.offered, dict)
        workshop.mediums.offered["console"] = driver
        yield Console(workshop, driver, DesktopApp(tmp_path / "apps" / "demo", os="GameOS"))


# ---- the order -------------------------------------------------------------------------------------------------


@pytest.mark.row("F-7", "F-12", "F-34", "F-30")
@pytest.mark.parametrize("medium", [1, "1", None])
async def test_an_app_with_nothing_but_its_request_gets_a_working_pair(
    workshop: Workshop, app: DesktopApp, medium: object
) -> None:
    assert app.pair() == (None, None)
    answer = await workshop.enroller.serve(app.message(medium=medium), app.claims, LOCALHOST)
    held = Credentials.load(app.folder)
    identity = workshop.authority.identify(x509.load_pem_x509_certificate(held.chain_pem).public_bytes(_DER))
    assert (identity.app_id, identity.proof) == (DEMO, Proof.FILESYSTEM)
    assert answer == {"deviceId": identity.device_id}
    assert len(workshop.journal.pending()) == 1, "until the files are on the disk"
    await workshop.enroller.drain(10)
    assert workshop.journal.pending() == []


_DER = serialization.Encoding.DER


@pytest.mark.row("A-02")
async def test_nothing_is_signed_before_the_proof(console: Console) -> None:
    await console.ask()
    assert console.driver.steps == ["prove", "deploy", "deployed"]
    assert console.driver.signed_before_proof == 0
    assert console.workshop.issued(DEMO) == 1


@pytest.mark.row("A-02", "A-13")
async def test_without_proof_nothing_is_signed_at_all(workshop: Workshop, app: DesktopApp, tmp_path: Path) -> None:
    thief = DesktopApp(tmp_path / "apps" / "thief")
    text = await refused(workshop, app, destination=f"{thief.folder}/")
    assert text.startswith("proof: the destination is not shown to be this app's own folder.")
    assert workshop.issued(DEMO) == 0
    assert thief.pair() == app.pair() == (None, None)


async def test_what_the_driver_adds_is_in_the_answer(console: Console) -> None:
    assert await console.ask() == {"slot": 1, "deviceId": "console-1"}


@pytest.mark.row("F-32", "A-05")
def test_a_system_becomes_known_by_its_driver(console: Console) -> None:
    assert "GameOS" in console.workshop.enroller.known_os


def request_for(*names: str) -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name) for name in names])
    built = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return built.public_bytes(serialization.Encoding.PEM).decode()


@pytest.mark.row("F-28", "A-13")
@pytest.mark.parametrize(
    ("csr", "reason"),
    [
        (request_for(), "it has no common name (CN) in its subject"),
        (request_for("a;reboot"), "its common name (CN) is not an app id"),
        ("-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----", "not a well-formed PKCS#10"),
        ("hello", "not a PEM certificate request"),
    ],
)
async def test_a_request_that_cannot_be_signed_reaches_no_driver(console: Console, csr: str, reason: str) -> None:
    with pytest.raises(EnrollmentRefused) as caught:
        await console.ask(csr=csr)
    assert caught.value.step == "signing request"
    assert reason in caught.value.public
    assert console.driver.steps == []


@pytest.mark.row("A-08")
async def test_a_wrong_clock_is_told_before_anything_is_done(console: Console) -> None:
    now = datetime.now(UTC)
    with pytest.raises(EnrollmentRefused, match=rf"the clock of the broker says {now:%Y-%m-%d}") as caught:
        await console.ask(timestamp=round((now - timedelta(days=3)).timestamp() * 1000))
    assert caught.value.step == "clock"
    assert "3 days behind" in caught.value.public
    assert console.driver.steps == []


@pytest.mark.row("F-12", "A-13")
@pytest.mark.parametrize("medium", [3, 77, 99])
async def test_a_medium_without_a_driver_is_refused_by_name(workshop: Workshop, app: DesktopApp, medium: int) -> None:
    assert (await refused(workshop, app, medium=medium)).startswith("medium: ")
    assert workshop.issued(DEMO) == 0


async def test_a_long_id_comes_from_the_claims_and_goes_into_the_identity(workshop: Workshop, tmp_path: Path) -> None:
    app = DesktopApp(tmp_path / "apps" / "long", LONG)
    await refused(workshop, app)
    await workshop.enroller.serve(app.message(), attrs.evolve(app.claims, app_id=LONG), LOCALHOST)
    principal = workshop.authority.certificates(LONG)[0].principal
    assert principal is not None
    assert principal.app_id == LONG


async def test_a_claim_that_contradicts_the_request_is_refused(workshop: Workshop, app: DesktopApp) -> None:
    claims = attrs.evolve(app.claims, app_id="org.example.bank")
    assert "app_id is org.example.bank" in await refused(workshop, app, claims=claims)


@pytest.mark.row("F-29")
async def test_two_apps_in_folders_of_one_name_get_each_their_own(workshop: Workshop, tmp_path: Path) -> None:
    apps = [DesktopApp(tmp_path / name / "files" / "sonar", f"org.example.{name}") for name in ("one", "two")]
    await asyncio.gather(*(workshop.enroller.serve(app.message(), app.claims, LOCALHOST) for app in apps))
    names = [_common_name(Credentials.load(app.folder).chain_pem) for app in apps]
    assert names == ["org.example.one", "org.example.two"]


def _common_name(pem: bytes) -> str | bytes:
    return x509.load_pem_x509_certificate(pem).subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)[0].value


async def test_an_authority_that_fails_keeps_its_reasons_to_itself(
    console: Console, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise AuthorityError("The key in /secret/place is broken.")

    monkeypatch.setattr(console.workshop.authority, "issue", fail)
    with pytest.raises(EnrollmentRefused) as caught:
        await console.ask()
    assert caught.value.public == "sign: the broker cannot sign at present. The log of the broker says why."
    assert "The key in /secret/place is broken." in caplog.text
    assert console.driver.steps == ["prove"]


# ---- the bounds ------------------------------------------------------------------------------------------------


async def outcomes(
    workshop: Workshop, app: DesktopApp, times: int, peer: str = LOCALHOST, **changes: object
) -> list[str]:
    """ "served", or the step that refused, for so many requests in a row."""
    found = []
    for _ in range(times):
        try:
            await workshop.enroller.serve(app.message(**changes), app.claims, peer)
            found.append("served")
        except EnrollmentRefused as refusal:
            found.append(refusal.step)
    return found


@pytest.mark.row("A-10")
async def test_one_app_of_a_peer_is_held_to_its_rate(home: Path, tmp_path: Path) -> None:
    with open_workshop(home, limits=EnrollmentLimits(per_app=Rate(2, 1))) as workshop:
        demo, other = DesktopApp(tmp_path / "demo"), DesktopApp(tmp_path / "other", "org.example.other")
        assert await outcomes(workshop, demo, 3) == ["served", "served", "limits"]
        assert await outcomes(workshop, other, 1) == ["served"]
        assert await outcomes(workshop, demo, 1, peer="192.0.2.7") == ["served"]
        workshop.clock.seconds += 1
        assert await outcomes(workshop, demo, 2) == ["served", "limits"]


@pytest.mark.row("A-10")
async def test_one_peer_and_all_peers_are_held_to_their_rates_whatever_they_send(home: Path, tmp_path: Path) -> None:
    with open_workshop(home, limits=EnrollmentLimits(per_peer=Rate(2, 1), overall=Rate(5, 1))) as workshop:
        app = DesktopApp(tmp_path / "demo")
        assert await outcomes(workshop, app, 3, csr="rubbish") == ["signing request"] * 2 + ["limits"]
        assert await outcomes(workshop, app, 3, peer="192.0.2.7", method="x") == ["message"] * 2 + ["limits"]
        assert await outcomes(workshop, app, 2, peer="192.0.2.8") == ["served", "limits"]
        assert workshop.issued(DEMO) == 1


@pytest.mark.row("F-29")
async def test_exchanges_of_one_app_take_turns(console: Console) -> None:
    console.driver.may_deploy.clear()
    tasks = [asyncio.ensure_future(console.ask()) for _ in range(3)]
    await console.reached("deploy")
    assert console.driver.steps == ["prove", "deploy"]
    console.driver.may_deploy.set()
    await asyncio.gather(*tasks)
    assert console.driver.steps == ["prove", "deploy", "deployed"] * 3


@pytest.mark.row("F-29")
async def test_two_who_call_themselves_differently_still_take_turns_at_one_container(console: Console) -> None:
    console.driver.may_deploy.clear()
    tasks = [asyncio.ensure_future(console.ask(device)) for device in ("one", "two")]
    async with asyncio.timeout(5):
        while console.driver.steps.count("prove") < 2:
            await asyncio.sleep(0.001)
    await console.reached("deploy")
    console.driver.may_deploy.set()
    await asyncio.gather(*tasks)
    assert console.driver.steps[-4:] == ["deploy", "deployed"] * 2


class TestImpatience:
    """With limits so short that a driver that hangs is noticed at once."""

    @pytest.fixture
    def limits(self) -> EnrollmentLimits:
        return EnrollmentLimits(prove_s=0.01, deploy_s=0.01)

    @pytest.mark.row("A-13")
    async def test_a_proof_that_takes_too_long_is_given_up(self, console: Console) -> None:
        console.driver.may_prove.clear()
        with pytest.raises(EnrollmentRefused, match="the driver console did not find the app's container") as caught:
            await console.ask()
        assert caught.value.step == "proof"
        assert console.workshop.issued(DEMO) == 0

    @pytest.mark.row("A-13", "D-7")
    async def test_a_delivery_that_takes_too_long_is_undone(self, console: Console) -> None:
        console.driver.may_deploy.clear()
        with pytest.raises(EnrollmentRefused, match="it took too long") as caught:
            await console.ask()
        assert caught.value.step == "deploy"
        assert console.driver.steps == ["prove", "deploy", "settle"]
        assert console.workshop.journal.pending() == []


# ---- accidents -------------------------------------------------------------------------------------------------


async def test_a_peer_that_goes_away_before_the_proof_stops_the_work(console: Console) -> None:
    console.driver.may_prove.clear()
    asking = asyncio.ensure_future(console.ask())
    await console.reached("prove")
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    console.driver.may_prove.set()
    await console.ask()
    assert console.driver.steps == ["prove", "prove", "deploy", "deployed"]
    assert console.workshop.issued(DEMO) == 1


async def go_away_during_deploy(console: Console) -> None:
    console.driver.may_deploy.clear()
    asking = asyncio.ensure_future(console.ask())
    await console.reached("deploy")
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await console.workshop.enroller.drain(0.01)
    console.driver.may_deploy.set()
    await console.workshop.enroller.drain(5)


@pytest.mark.row("D-7")
async def test_a_peer_that_goes_away_later_leaves_nothing_half_done(console: Console) -> None:
    await go_away_during_deploy(console)
    assert console.driver.steps == ["prove", "deploy", "deployed"]
    assert console.workshop.journal.pending() == []


@pytest.mark.parametrize(
    ("failure", "words"),
    [(undelivered("no room.", "Make some."), "deploy: no room. Make some."), (RuntimeError("a bug"), "a bug")],
)
async def test_what_nobody_is_left_to_hear_is_in_the_log(
    console: Console, caplog: pytest.LogCaptureFixture, failure: Exception, words: str
) -> None:
    console.driver.failure = failure
    await go_away_during_deploy(console)
    assert words in caplog.text


async def test_a_peer_that_expects_no_answer_is_served_after_it_has_gone(workshop: Workshop, app: DesktopApp) -> None:
    asking = asyncio.ensure_future(workshop.enroller.serve_to_end(app.message(), app.claims, LOCALHOST))
    await asyncio.sleep(0)
    asking.cancel()
    await workshop.enroller.drain(5)
    assert Credentials.load(app.folder).trust_pem == workshop.authority.trust_pem


@pytest.mark.row("D-7", "A-13")
@pytest.mark.parametrize("failure", [undelivered("no room.", "Make some."), OSError("a bug in the driver")])
async def test_a_delivery_that_fails_is_settled_at_once(console: Console, failure: Exception) -> None:
    console.driver.failure = failure
    with pytest.raises(type(failure)):
        await console.ask()
    assert console.driver.steps == ["prove", "deploy", "settle"]
    assert console.workshop.journal.pending() == []


@pytest.mark.row("D-7")
async def test_a_delivery_that_could_be_finished_after_all_is_a_success(console: Console) -> None:
    console.driver.failure = undelivered("the line broke.", "Try again.")
    console.driver.settles_to = Settled(Outcome.FINISHED)
    assert (await console.ask())["deviceId"] == "console-1"


@pytest.mark.row("D-7")
@pytest.mark.parametrize("state", [StillPending("the device is away"), RuntimeError("a bug in the driver")])
async def test_what_cannot_be_settled_now_is_settled_when_the_device_is_back(
    console: Console, state: StillPending | Exception, caplog: pytest.LogCaptureFixture
) -> None:
    console.driver.failure, console.driver.settles_to = undelivered("the line broke.", "Try again."), state
    with pytest.raises(EnrollmentRefused):
        await console.ask()
    enroller = console.workshop.enroller
    (pending,) = console.workshop.journal.pending()
    assert await enroller.settle() == [pending]
    assert await enroller.settle(["filesystem"]) == []
    assert console.workshop.journal.pending() == [pending]
    console.driver.settles_to = Settled(Outcome.UNDONE)
    caplog.set_level(logging.INFO)
    assert await enroller.settle(["console"]) == []
    assert console.workshop.journal.pending() == []
    assert "a deployment to org.example.demo@console-1 (filesystem) that was cut off is undone" in caplog.text


@pytest.mark.row("D-7")
async def test_settling_waits_for_the_exchange_that_is_at_work_in_the_container(console: Console) -> None:
    console.driver.failure = undelivered("the line broke.", "Try again.")
    console.driver.settles_to = StillPending("the device is away")
    with pytest.raises(EnrollmentRefused):
        await console.ask()
    console.driver.failure = None
    console.driver.steps.clear()
    console.driver.may_deploy.clear()
    asking = asyncio.ensure_future(console.ask())
    await console.reached("deploy")
    settling = asyncio.ensure_future(console.workshop.enroller.settle())
    await asyncio.sleep(0.01)
    console.driver.may_deploy.set()
    assert await asking
    assert await settling == []
    assert console.driver.steps == ["prove", "deploy", "deployed"]


async def test_a_deployment_whose_driver_is_not_offered_any_more_is_kept(console: Console) -> None:
    console.driver.failure, console.driver.settles_to = undelivered("x.", "y."), StillPending("away")
    with pytest.raises(EnrollmentRefused):
        await console.ask()
    console.workshop.mediums.offered.pop("console")  # type: ignore[attr-defined]
    assert len(await console.workshop.enroller.settle()) == 1


class MeddlingMedium(FilesystemMedium):
    """Between proof and delivery, the app starts anew."""

    name = "filesystem"
    app: DesktopApp

    async def deploy(self, container: Container, bundle: Bundle) -> None:
        self.app.make_request()
        await super().deploy(container, bundle)


@pytest.mark.row("D-7", "A-02")
async def test_an_app_that_has_made_another_request_by_now_gets_nothing(home: Path, app: DesktopApp) -> None:
    with open_workshop(home) as workshop:
        driver = MeddlingMedium(workshop.mediums.offered["filesystem"].context)
        driver.app = app
        workshop.mediums.offered["filesystem"] = driver  # type: ignore[index]
        assert (await refused(workshop, app)).startswith("deploy: ")
        assert app.pair() == (None, None)
        assert app.leftovers() == []
        assert workshop.journal.pending() == []


# ---- killed ----------------------------------------------------------------------------------------------------

_WATCHED = ("open", "os.rename", "os.remove", "os.chmod", "sqlite3.connect", "sqlite3.connect/handle")


def exchange_until_killed(home: Path, app: DesktopApp, event_number: int) -> int:
    """Start, one exchange, killed (SIGKILL) at so-and-so many file events in. The exit code; 0 when it ended before."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 1
    try:
        count = 0

        def watch(event: str, _: object) -> None:
            nonlocal count
            if event in _WATCHED:
                count += 1
                if count == event_number:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(watch)
        asyncio.set_event_loop_policy(None)
        with open_workshop(home) as workshop:
            asyncio.run(workshop.enroller.serve(app.message(), app.claims, LOCALHOST))
        code = 0
    finally:
        os._exit(code)


@pytest.mark.row("D-7")
def test_killed_at_any_file_event_of_start_sign_and_deploy_the_next_start_leaves_a_whole_pair(
    home: Path, app: DesktopApp
) -> None:
    with open_workshop(home) as workshop:
        asyncio.run(workshop.enroller.serve(app.message(), app.claims, LOCALHOST))
    old = app.pair()
    issued_to = set()
    for number in range(1, 1000):
        code = exchange_until_killed(home, app, number)
        with open_workshop(home) as workshop:
            assert asyncio.run(workshop.enroller.settle()) == []
            assert workshop.journal.pending() == []
            serials = [record.serial for record in workshop.authority.certificates()]
            assert len(set(serials)) == len(serials)
            held = Credentials.load(app.folder)
            leaf = x509.load_pem_x509_certificate(held.chain_pem)
            assert leaf.serial_number in serials
            assert held.trust_pem == workshop.authority.trust_pem
        assert app.leftovers() == []
        issued_to.add(app.pair() == old)
        old = app.pair()
        if code == 0:
            break
        assert code == -signal.SIGKILL
    assert number > 20
    assert issued_to == {True, False}, "early kills leave the old pair, late ones the new"


# ---- rotation ------------------------------------------------------------------------------------------------


@pytest.mark.row("A-14")
@pytest.mark.parametrize(("channel", "first"), [("wss", 0), ("tls", 1)])
async def test_who_enrols_while_a_rotation_is_prepared_gets_both_anchors_the_one_that_it_needs_first(
    workshop: Workshop, app: DesktopApp, channel: str, first: int
) -> None:
    """On the WebSocket port the old authority is still presented, and its apps read one certificate of the file."""
    await workshop.enroller.serve(app.message(), app.claims, LOCALHOST)
    await workshop.enroller.drain(10)
    (kept,) = workshop.containers.all()
    workshop.containers.seen({kept.leaf.serial: Sighting(channel, False)})
    workshop.authority.prepare()
    app.make_request()
    await workshop.enroller.serve(app.message(), app.claims, LOCALHOST)
    anchors = x509.load_pem_x509_certificates(app.pair()[0] or b"")
    assert len(anchors) == 2
    assert anchors[first] == workshop.authority.certificate


# ---- revoked clients -------------------------------------------------------------------------------------------


@pytest.mark.row("D-3")
async def test_a_blocked_app_is_refused_before_any_driver_looks_for_it(console: Console) -> None:
    console.workshop.authority.revocations.revoke(Selector.app(DEMO), "sold")
    with pytest.raises(EnrollmentRefused, match=rf"block list: app {DEMO} was revoked .*\(sold\)\. Ask whoever"):
        await console.ask()
    assert console.driver.steps == []


@pytest.mark.row("D-3")
@pytest.mark.parametrize("selector", [Selector.device("console-1"), Selector.client(DEMO, "console-1")], ids=str)
async def test_a_blocked_device_is_refused_as_soon_as_it_is_known(console: Console, selector: Selector) -> None:
    revocations = console.workshop.authority.revocations
    revocations.revoke(selector, "stolen")
    with pytest.raises(EnrollmentRefused, match=r"stolen.*ca unblock"):
        await console.ask()
    assert console.driver.steps == ["prove"] and console.workshop.issued(DEMO) == 0
    revocations.unblock(selector)
    assert await console.ask()


@pytest.mark.row("D-3", "A-19")
async def test_who_is_blocked_while_it_is_proven_gets_nothing_signed(console: Console) -> None:
    console.driver.may_prove.clear()
    asking = asyncio.create_task(console.ask())
    await console.reached("prove")
    console.workshop.authority.revocations.revoke(Selector.client(DEMO, "console-1"))
    console.driver.may_prove.set()
    with pytest.raises(EnrollmentRefused, match="block list"):
        await asking
    assert console.workshop.issued(DEMO) == 0
    assert len(console.workshop.enroller.pending) == 0


@pytest.mark.row("D-3")
async def test_who_is_dropped_while_it_is_served_is_told_and_its_container_left_in_order(console: Console) -> None:
    console.driver.may_deploy.clear()
    asking = asyncio.create_task(console.ask())
    await console.reached("deploy")
    (record,) = console.workshop.authority.certificates(DEMO)
    done = console.workshop.authority.revocations.revoke(Selector.app(DEMO), "sold")
    dropped = console.workshop.enroller.pending.drop(
        lambda each: done.blocks[0].refusal() if each.serial == record.serial else None
    )
    assert dropped == 1
    with pytest.raises(EnrollmentRefused, match="sold"):
        await asking
    console.driver.may_deploy.set()
    await console.workshop.enroller.drain(5)
    assert console.driver.steps[-1] == "deployed", "what was begun in a container comes to its end"


@pytest.mark.row("D-3")
async def test_deployments_that_wait_for_their_device_are_dropped(console: Console) -> None:
    console.driver.failure = OSError("it was unplugged")
    console.driver.settles_to = StillPending("the device is away")
    with pytest.raises(OSError, match="unplugged"):
        await console.ask()
    workshop = console.workshop
    (entry,) = workshop.journal.pending()
    (record,) = workshop.authority.certificates(DEMO)
    assert await workshop.enroller.delivery.drop({record.serial + 1}) == 0
    assert await workshop.enroller.delivery.drop({record.serial}) == 1
    assert workshop.journal.pending() == [] and entry.container.medium == "console"
