"""The proof by a nonce in the container: who is asked for it, what counts as an answer, and that no file stays."""

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path

import attrs
import pytest

from rsocket_broker.claims import Claims
from rsocket_broker.credentials import make_signing_request
from rsocket_broker.enrollment.mediums.base import Container, Medium, MediumContext, StillPending
from rsocket_broker.enrollment.mediums.filesystem import FilesystemMedium
from rsocket_broker.enrollment.nonce import NONCE_S, Line
from rsocket_broker.errors import EnrollmentRefused
from rsocket_broker.identity import Principal, Proof
from rsocket_broker.nonce_proof import sign
from tests.emulated_device import AdbServer, EmulatedDevice
from tests.enrollment.mediums.android import CLAIMS, android_workshop, app_on
from tests.enrollment.workshop import LOCALHOST, SIMULATED, DesktopApp, Workshop, open_workshop

DEMO = "org.example.demo"


@attrs.define
class Sdk(DesktopApp):
    """An app whose SDK answers nonces, and says so in its request."""

    def make_request(self) -> None:
        super().make_request()
        self.request = make_signing_request(self.app_id, wants_nonce=True)
        self.request.save(self.folder)

    def answer(self, name: object) -> str:
        return sign(self.request.key_pem, bytes.fromhex((self.folder / str(name)).read_text()), self.csr)


@attrs.define
class Caller:
    """One connection to the plain port."""

    workshop: Workshop
    claims: Claims
    line: Line = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.line = Line(self.workshop.enroller.nonces)

    async def ask(self, message: bytes) -> dict[str, object]:
        return await self.workshop.enroller.serve(message, self.claims, LOCALHOST, self.line)

    async def refused(self, message: bytes) -> str:
        with pytest.raises(EnrollmentRefused) as caught:
            await self.ask(message)
        assert caught.value.step == "proof" and caught.value.remedy
        return caught.value.public


@pytest.fixture
def sdk(tmp_path: Path) -> Sdk:
    return Sdk(tmp_path / "apps" / "demo")


@pytest.fixture
def caller(workshop: Workshop, sdk: Sdk) -> Caller:
    return Caller(workshop, sdk.claims)


async def settled(workshop: Workshop) -> None:
    await workshop.enroller.drain(10)
    assert workshop.journal.nonces() == []


@pytest.mark.row("D-6")
async def test_nothing_is_signed_before_the_nonce_is_answered(workshop: Workshop, sdk: Sdk, caller: Caller) -> None:
    asked = await caller.ask(sdk.message(nonce=1))
    assert list(asked) == ["nonce"] and sdk.leftovers() == [asked["nonce"]]
    assert workshop.issued(DEMO) == 0 and sdk.pair() == (None, None)
    answer = await caller.ask(sdk.message(nonce=1, proof=sdk.answer(asked["nonce"])))
    assert answer["deviceId"] and workshop.issued(DEMO) == 1 and None not in sdk.pair()
    await settled(workshop)
    assert sdk.leftovers() == []
    assert sum(workshop.enroller.outcomes.results.values()) == 1, "two messages are one enrolment"


@pytest.mark.row("D-6")
@pytest.mark.parametrize("medium", ["filesystem", "simulator", "adb"])
async def test_who_knows_name_path_and_request_gets_no_signature(
    home: Path, tmp_path: Path, adb_server: AdbServer, medium: str
) -> None:
    """An attacker on the plain port, with all that can be known without reading the container: on every driver."""
    async with adb_server.attached(EmulatedDevice(tmp_path / "phone")) as device:
        with android_workshop(home, adb_server.address) as workshop:
            if medium == "adb":
                app, claims = app_on(device), CLAIMS
                made = make_signing_request(app.package, wants_nonce=True)
                app.file("app.csr").write_bytes(made.csr_pem)
                known: dict[str, object] = {"csr": made.csr_pem.decode(), "destination": app.destination}
                thief = DesktopApp(tmp_path / "thief")
            else:
                os, folder = ("iOS", SIMULATED) if medium == "simulator" else ("Linux", "demo")
                victim = Sdk(tmp_path / folder, os=os)
                claims, known = victim.claims, {"csr": victim.csr, "destination": f"{victim.folder}/"}
                thief = DesktopApp(tmp_path / "thief")
            own = thief.request.key_pem
            for extra in ({}, {"nonce": 0}, {"proof": "AAAA"}, {"nonce": 1, "proof": "AAAA"}):
                await Caller(workshop, claims).refused(thief.message(**known, **extra))
            with pytest.raises(EnrollmentRefused, match="proof"):
                await workshop.enroller.serve_to_end(thief.message(**known, nonce=1), claims, LOCALHOST)
            attacker = Caller(workshop, claims)
            assert list(await attacker.ask(thief.message(**known, nonce=1))) == ["nonce"]
            guess = sign(own, bytes(32), str(known["csr"]))
            await attacker.refused(thief.message(**known, nonce=1, proof=guess))
            await attacker.refused(thief.message(**known, nonce=1, proof=guess))
            assert workshop.issued(DEMO) == 0
            await settled(workshop)


@pytest.mark.row("D-6")
async def test_an_answer_counts_for_its_key_request_and_line_alone(
    workshop: Workshop, sdk: Sdk, caller: Caller, tmp_path: Path
) -> None:
    other = Caller(workshop, sdk.claims)
    name = (await caller.ask(sdk.message(nonce=1)))["nonce"]
    proof = sdk.answer(name)
    assert "no nonce is waiting" in await other.refused(sdk.message(nonce=1, proof=proof))
    assert "not signed with the key" in await caller.refused(sdk.message(nonce=1, proof=proof[:-8] + "AAAAAAA="))
    assert "no nonce is waiting" in await caller.refused(sdk.message(nonce=1, proof=proof)), "one try"
    proof = sdk.answer((await caller.ask(sdk.message(nonce=1)))["nonce"])
    sdk.make_request()
    assert "another signing request" in await caller.refused(sdk.message(nonce=1, proof=proof))
    proof = sdk.answer((await caller.ask(sdk.message(nonce=1)))["nonce"])
    workshop.clock.seconds += NONCE_S + 1
    assert "good for 30 s" in await caller.refused(sdk.message(nonce=1, proof=proof))
    assert workshop.issued(DEMO) == 0
    await settled(workshop)
    assert sdk.leftovers() == []


@pytest.mark.row("D-6")
async def test_a_nonce_of_one_medium_is_none_for_another(workshop: Workshop, sdk: Sdk, caller: Caller) -> None:
    proof = sdk.answer((await caller.ask(sdk.message(nonce=1)))["nonce"])
    elsewhere = sdk.folder.parent / SIMULATED
    caller.claims = attrs.evolve(sdk.claims, os="iOS")
    message = sdk.message(nonce=1, proof=proof, destination=f"{elsewhere}/")
    assert "another medium" in await caller.refused(message)
    await settled(workshop)


@pytest.mark.row("D-6", "F-7")
async def test_flippers_sdks_go_on_as_before_unless_it_is_required(
    workshop: Workshop, app: DesktopApp, home: Path, tmp_path: Path
) -> None:
    assert "deviceId" in await workshop.enroller.serve(app.message(), app.claims, LOCALHOST)
    old = DesktopApp(tmp_path / "apps" / "old")
    workshop.enroller.nonces._required = True
    refusal = await Caller(workshop, old.claims).refused(old.message())
    assert "Flipper's do not" in refusal and "--require-nonce" in refusal
    assert old.pair() == (None, None)


class Mute(FilesystemMedium):
    """A driver from before there were nonces."""

    name = "mute"
    writes_nonces = False
    systems = frozenset({"MuteOS"})


@pytest.mark.row("D-6")
async def test_a_driver_without_nonces_is_used_unless_they_are_required(home: Path, tmp_path: Path) -> None:
    drivers: dict[str, Medium] = {}
    with open_workshop(home, drivers=drivers) as workshop:
        context = MediumContext(
            devices=workshop.mediums.offered["filesystem"].context.devices, log=logging.getLogger("mute")
        )
        assert isinstance(workshop.mediums.offered, dict)
        workshop.mediums.offered["mute"] = Mute(context)
        sdk = Sdk(tmp_path / "apps" / "mute", os="MuteOS")
        assert "deviceId" in await Caller(workshop, sdk.claims).ask(sdk.message(nonce=1))
        workshop.enroller.nonces._required = True
        assert "its driver mute can write none" in await Caller(workshop, sdk.claims).refused(sdk.message(nonce=1))


# ---- what stays behind -------------------------------------------------------------------------------------------


@pytest.mark.row("D-6")
async def test_a_line_that_ends_takes_its_nonce_with_it(workshop: Workshop, sdk: Sdk, caller: Caller) -> None:
    for _ in range(2):  # the second question takes the place of the first
        await caller.ask(sdk.message(nonce=1))
    caller.line.close()
    caller.line.close()
    await settled(workshop)
    assert sdk.leftovers() == []


@pytest.mark.row("D-6", "F-30")
async def test_a_crash_leaves_no_nonce_behind(home: Path, tmp_path: Path) -> None:
    sdk, gone = Sdk(tmp_path / "apps" / "demo"), Sdk(tmp_path / "apps" / "gone")
    with open_workshop(home) as crashed:
        for app in (sdk, gone):
            await Caller(crashed, app.claims).ask(app.message(nonce=1))
        assert len(sdk.leftovers()) == 1
    (gone.folder / gone.leftovers()[0]).unlink()
    gone.folder.rename(tmp_path / "elsewhere")
    with open_workshop(home) as workshop:
        assert len(workshop.journal.nonces()) == 2
        await workshop.enroller.settle(["adb"])
        assert len(workshop.journal.nonces()) == 2, "those of other drivers"
        await workshop.enroller.settle()
        assert workshop.journal.nonces() == [] and sdk.leftovers() == []


class Away(FilesystemMedium):
    """A container that cannot be reached any more once the nonce is there."""

    async def remove_nonce(self, container: Container, name: str) -> StillPending | None:
        if container.location["directory"].endswith("slow"):
            await asyncio.sleep(60)
        if container.location["directory"].endswith("broken"):
            raise RuntimeError("a fault of the driver")
        return StillPending("the device is not attached")


@pytest.mark.row("D-6")
async def test_what_is_out_of_reach_is_tried_again_and_given_up_in_the_end(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rsocket_broker.enrollment.nonce.REMOVE_S", 0.01)
    assert isinstance(workshop.mediums.offered, dict)
    workshop.mediums.offered["filesystem"] = Away(workshop.mediums.offered["filesystem"].context)
    now = datetime.now(UTC)
    for number, directory in enumerate(("away", "slow", "broken")):
        principal = Principal(DEMO, "host-1", Proof.FILESYSTEM)
        there = Container(medium="filesystem", principal=principal, location={"directory": f"/{directory}"})
        workshop.journal.begin_nonce(there, f"nonce-{number:016x}", now)
    unknown = Container(medium="unknown", principal=principal, location={"directory": "/x"})
    workshop.journal.begin_nonce(unknown, "nonce-00000000000000ff", now - timedelta(days=31))
    await workshop.enroller.settle()
    assert len(workshop.journal.nonces()) == 3, "the one of a driver that has gone is given up after 30 days"


@pytest.mark.row("D-6")
async def test_a_nonce_that_cannot_be_written_is_a_refusal(
    workshop: Workshop, sdk: Sdk, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rsocket_broker.enrollment.nonce.secrets.token_hex", lambda size: "0" * 16)
    (sdk.folder / ("nonce-" + "0" * 16)).write_text("something stands there")
    assert "could not write a nonce" in await caller.refused(sdk.message(nonce=1))
    await settled(workshop)
