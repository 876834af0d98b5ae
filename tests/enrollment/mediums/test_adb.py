"""The adb driver, through a real adb server, on an emulated device that runs every command with a real shell."""

import asyncio
import contextlib
import shutil
import stat
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import attrs
import pytest
from cryptography import x509

from rsocket_broker.claims import Claims
from rsocket_broker.credentials import make_signing_request
from rsocket_broker.enrollment.mediums import adb, adb_shell
from rsocket_broker.enrollment.mediums.base import StillPending
from rsocket_broker.enrollment.modes import Mode
from rsocket_broker.errors import ConfigurationError, EnrollmentRefused
from rsocket_broker.grant_tokens import GrantToken
from rsocket_broker.identity import Proof
from rsocket_broker.state import State
from tests.emulated_device import AdbServer, AppSandbox, EmulatedDevice, Fault, Trouble
from tests.emulated_device.server import free_port
from tests.enrollment.mediums.android import (
    CLAIMS,
    PACKAGE,
    Asker,
    adb_medium,
    android_workshop,
    app_key,
    app_on,
    leftovers,
    pair,
)
from tests.enrollment.workshop import Workshop


@pytest.fixture
def workshop(home: Path, adb_server: AdbServer) -> Iterator[Workshop]:
    with android_workshop(home, adb_server.address) as opened:
        yield opened


@pytest.fixture
async def device(tmp_path: Path, adb_server: AdbServer) -> AsyncIterator[EmulatedDevice]:
    async with adb_server.attached(EmulatedDevice(tmp_path / "phone")) as device:
        yield device


@pytest.fixture
def app(device: EmulatedDevice) -> AppSandbox:
    return app_on(device, version_1=True)


@pytest.fixture
def asker(workshop: Workshop, app: AppSandbox) -> Asker:
    return Asker(workshop, app)


async def refused(asker: Asker, **changes: object) -> EnrollmentRefused:
    with pytest.raises(EnrollmentRefused) as caught:
        await asker.enrol(**changes)
    return caught.value


@pytest.mark.row("F-13")
async def test_an_app_on_android_is_enrolled(asker: Asker) -> None:
    answer = await asker.enrol()
    trust, certificate = pair(asker.app)
    assert trust == asker.workshop.authority.trust_pem
    assert certificate is not None
    made = x509.load_pem_x509_certificate(certificate)
    assert made.public_key() == asker.app.key.public_key()
    for name in ("sonarCA.crt", "device.crt"):
        assert stat.S_IMODE(asker.app.file(name).stat().st_mode) == 0o644
    assert leftovers(asker.app) == set()
    record = asker.workshop.authority.certificates(PACKAGE)[0]
    assert record.principal.proof is Proof.ADB
    assert answer == {"deviceId": record.principal.device_id}
    assert asker.workshop.journal.pending() == []


@pytest.mark.row("M-14")
async def test_the_token_of_one_device_is_worth_nothing_on_another(asker: Asker) -> None:
    """The device is known by its adb serial number before it was ever seen, and by its id after that."""
    workshop, serial = asker.workshop, asker.app.device.serial
    workshop.gate.mode = Mode.TOKEN

    def grant(device: str) -> str:
        _, token = workshop.grants.make(PACKAGE, now=datetime.now(UTC), life=timedelta(hours=1), device=device)
        return GrantToken.parse(token).grant_for(asker.app.csr)

    with pytest.raises(EnrollmentRefused, match="token: the token is for another device"):
        await asker.enrol(grant=grant("EMULATED9999"))
    assert workshop.issued(PACKAGE) == 0
    known = (await asker.enrol(grant=grant(serial)))["deviceId"]
    await asker.enrol(grant=grant(str(known)))
    assert workshop.issued(PACKAGE) == 2


@pytest.mark.row("F-13")
async def test_a_device_without_exit_codes_and_closable_input_serves_as_well(
    tmp_path: Path, adb_server: AdbServer, workshop: Workshop
) -> None:
    async with adb_server.attached(EmulatedDevice(tmp_path / "old", shell_v2=False, sdk=23, version=0x01000000)) as old:
        asker = Asker(workshop, app_on(old))
        await asker.enrol()
        assert pair(asker.app)[0] == workshop.authority.trust_pem
        asker.app.trouble(Trouble.NOT_DEBUGGABLE)
        assert "not debuggable" in (await refused(asker)).public


SAYS = {
    Trouble.UNKNOWN: "not installed for that user",
    Trouble.UNKNOWN_OLD: "not installed for that user",
    Trouble.NOT_AN_APPLICATION: "not an application",
    Trouble.NOT_DEBUGGABLE: "not debuggable",
    Trouble.NOT_PERMITTED: "run-as is not permitted",
    Trouble.NO_CAPABILITIES: "could not set its capabilities",
    Trouble.PERMISSION_DENIED: "forbids run-as",
    Trouble.WRONG_OWNER: "owner of the app's folder",
    Trouble.CORRUPT: "corrupt or out of reach",
    Trouble.NO_RUN_AS: "has no run-as",
}


@pytest.mark.row("A-13", "A-02")
async def test_every_way_in_which_run_as_fails_is_told_apart(asker: Asker) -> None:
    assert set(SAYS) | {Trouble.READ_ONLY} == set(Trouble)
    for trouble, words in SAYS.items():
        asker.app.trouble(trouble)
        refusal = await refused(asker)
        assert refusal.step == "proof", trouble
        assert words in refusal.reason, trouble
        assert asker.app.device.serial in refusal.reason, trouble
        said = trouble.value.format(package=PACKAGE, home=f"/data/user/0/{PACKAGE}")
        assert said in refusal.reason, "the device's own words are kept"
        assert refusal.remedy, trouble
    assert asker.workshop.issued(PACKAGE) == 0


@pytest.mark.row("A-13", "D-7")
async def test_a_container_that_takes_no_writes_is_refused_and_left_as_it_was(asker: Asker) -> None:
    await asker.enrol()
    before = pair(asker.app)
    asker.app.trouble(Trouble.READ_ONLY)
    refusal = await refused(asker)
    assert (refusal.step, "be written" in refusal.reason) == ("deploy", True)
    assert pair(asker.app) == before
    assert leftovers(asker.app) == set()


@pytest.mark.parametrize("flavour", ["aosp", "magisk"])
@pytest.mark.row("F-13")
async def test_where_run_as_fails_su_becomes_the_apps_own_user(
    tmp_path: Path, adb_server: AdbServer, workshop: Workshop, flavour: str
) -> None:
    async with adb_server.attached(EmulatedDevice(tmp_path / "rooted", su=flavour)) as rooted:
        asker = Asker(workshop, app_on(rooted))
        asker.app.trouble(Trouble.NOT_DEBUGGABLE)
        await asker.enrol()
        assert pair(asker.app)[0] == workshop.authority.trust_pem
        as_root = [line for line in rooted.commands if line.startswith("su 0 ")]
        assert as_root
        assert all("stat" in line and "sonar" not in line for line in as_root), "root touches no file of the app"


@pytest.mark.row("A-02", "A-13")
async def test_su_is_not_used_for_an_app_that_shares_the_systems_user(
    tmp_path: Path, adb_server: AdbServer, workshop: Workshop
) -> None:
    async with adb_server.attached(EmulatedDevice(tmp_path / "rooted", su="aosp")) as rooted:
        asker = Asker(workshop, app_on(rooted))
        rooted.sandbox.facts["packages"][f"0/{PACKAGE}"]["uid"] = 1000
        asker.app.trouble(Trouble.NOT_DEBUGGABLE)
        assert "belongs to user 1000" in (await refused(asker)).reason


@pytest.mark.row("F-13")
async def test_an_app_of_a_work_profile_is_found_there(workshop: Workshop, device: EmulatedDevice) -> None:
    app_on(device)
    asker = Asker(workshop, app_on(device, user=10, key=app_key(1)))
    await asker.enrol()
    assert pair(asker.app)[0] == workshop.authority.trust_pem
    device.sandbox.facts["run_as_knows_users"] = False
    device.sandbox.save()
    assert "cannot enter another user's apps" in (await refused(asker)).reason


@pytest.mark.row("F-31", "A-03", "F-15")
async def test_a_destination_is_taken_only_inside_the_container_of_the_proven_package(asker: Asker) -> None:
    taken = ["files/sonar", "files/sonar/", f"/data/data/{PACKAGE}/files/sonar/", f"/data/user/0/{PACKAGE}/files/sonar"]
    for destination in taken:
        await asker.enrol(destination=destination)
        assert pair(asker.app)[1] is not None
    other = app_on(asker.app.device, "org.example.other", key=app_key(1))
    (other.folder / "app.csr").write_text(asker.app.csr)
    before = len(asker.app.device.commands)
    for destination in [
        other.destination,
        f"/data/user/0/{PACKAGE}/../org.example.other/files/sonar/",
        f"/data/user/0/{PACKAGE}",
        f"/data/user/0/{PACKAGE}x/files/sonar/",
        f"/data/user/x/{PACKAGE}/files/sonar/",
        "/data/local/tmp/",
        "/sdcard/sonar/",
        "../org.example.other/files/sonar",
        "files//sonar",
        "files/./sonar",
        "files/son'ar",
        'files/son"ar',
        "files/son\0ar",
        "files/son\nar",
        "files/$(id)",
        "files/sonar;id",
        "files/`id`",
        "files/sonar|id",
        "files/söñar",
    ]:
        refusal = await refused(asker, destination=destination)
        assert refusal.step == "proof", destination
    assert len(asker.app.device.commands) == before, "refused before a device is asked"


@pytest.mark.row("A-03")
async def test_a_link_that_leads_out_of_the_container_is_not_followed(asker: Asker) -> None:
    other = app_on(asker.app.device, "org.example.other", key=app_key(1))
    (other.folder / "app.csr").write_text(asker.app.csr)
    (asker.app.container / "files" / "away").symlink_to(other.folder)
    assert "a link in the destination leads out" in (await refused(asker, destination="files/away")).reason
    assert pair(other) == (None, None)


@pytest.mark.row("A-02")
async def test_a_request_that_is_a_link_is_no_proof(asker: Asker) -> None:
    asker.app.file("app.csr").rename(asker.app.container / "elsewhere")
    asker.app.file("app.csr").symlink_to(asker.app.container / "elsewhere")
    assert "holds no app.csr" in (await refused(asker)).reason


@pytest.mark.row("A-03", "F-13")
async def test_hostile_names_paths_and_contents_inject_nothing(workshop: Workshop, device: EmulatedDevice) -> None:
    """Each of these would leave a file `pwned` somewhere on the device if one quote were missing."""
    asker = Asker(workshop, app_on(device))
    evil = [
        "$(touch pwned)",
        "`touch pwned`",
        "; touch pwned #",
        "'; touch pwned; '",
        '"; touch pwned; "',
        "a\ntouch pwned",
    ]
    for text in evil:
        await refused(asker, destination=f"files/{text}/sonar")
        await refused(asker, destination=f"/data/user/0/{PACKAGE}/{text}")
        await refused(asker, claims=attrs.evolve(CLAIMS, app_id=text))
        await refused(asker, csr=f"{text}\n{asker.app.csr}")
        with contextlib.suppress(ValueError):
            await refused(asker, csr=make_signing_request(text).csr_pem.decode())
    # A request with more around it that both sides hold is the same text, and still no certificate request.
    asker.app.file("app.csr").write_text(f"{evil[0]}\n{asker.app.csr}")
    await refused(asker)
    asker.app.file("app.csr").write_text(asker.app.csr)
    # Names of folders that the strict pattern lets through, and a long flag-like name.
    for inner in ["files/-rf", "files/ a b ", "-e", "-", "files/%s%n~=+@,"]:
        folder = asker.app.container / inner
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(asker.app.file("app.csr"), folder)
        await asker.enrol(destination=inner)
        assert (folder / "device.crt").exists()
    assert not list(device.sandbox.root.rglob("pwned"))
    assert not Path("pwned").exists()


@pytest.mark.row("F-31", "A-03")
async def test_a_package_name_that_android_would_not_take_is_refused(asker: Asker) -> None:
    for name in ["--user", "org..demo", "1org.demo", "org.demo-x"]:
        csr = app_on(asker.app.device, f"org.example.n{abs(hash(name))}", common_name=name).csr
        refusal = await refused(asker, csr=csr, destination="files/sonar")
        assert refusal.step in ("proof", "signing request"), name


@pytest.mark.row("F-31")
async def test_an_id_too_long_for_a_common_name_is_proven_by_its_package(
    workshop: Workshop, device: EmulatedDevice
) -> None:
    package = "org.example." + "long" * 15
    asker = Asker(workshop, app_on(device, package))
    assert asker.app.common_name == "com.flipper"
    await asker.enrol()
    await asker.enrol(claims=attrs.evolve(CLAIMS, app_id=package), destination="files/sonar")
    assert workshop.issued(package) == 2


@pytest.mark.row("F-13", "A-02")
async def test_of_two_devices_with_the_same_app_the_one_that_holds_the_request_is_taken(
    tmp_path: Path, adb_server: AdbServer, workshop: Workshop, asker: Asker
) -> None:
    async with adb_server.attached(EmulatedDevice(tmp_path / "second", serialno="EMULATED0002")) as second:
        other = Asker(workshop, app_on(second, key=app_key(1)))
        answers = [await asker.enrol(), await other.enrol()]
        assert answers[0] != answers[1]
        assert pair(asker.app)[1] != pair(other.app)[1]
        assert pair(other.app)[0] == workshop.authority.trust_pem


@pytest.mark.row("F-13")
async def test_a_device_is_recognised_by_its_hardware_and_not_by_its_adb_serial(
    tmp_path: Path, adb_server: AdbServer, asker: Asker
) -> None:
    first = await asker.enrol()
    device = asker.app.device
    serial = device.serial
    await device.vanish()
    await adb_server.bring_back(device)
    assert device.serial != serial
    assert await asker.enrol() == first
    async with adb_server.attached(EmulatedDevice(tmp_path / "twin", android_id="0000000000000002")) as twin:
        # Emulators share one serial number; their android_id differs.
        assert await Asker(asker.workshop, app_on(twin, key=app_key(1))).enrol() != first


async def test_a_device_that_cannot_be_told_apart_is_refused(
    tmp_path: Path, adb_server: AdbServer, workshop: Workshop
) -> None:
    async with adb_server.attached(EmulatedDevice(tmp_path / "nameless", serialno="", android_id="")) as nameless:
        assert "could not be told apart" in (await refused(Asker(workshop, app_on(nameless)))).reason


@pytest.mark.row("F-24", "A-02", "A-13")
async def test_without_a_device_nothing_is_signed(tmp_path: Path, adb_server: AdbServer, workshop: Workshop) -> None:
    async with EmulatedDevice(tmp_path / "unplugged") as unplugged:
        asker = Asker(workshop, app_on(unplugged))
        refusal = await refused(asker)
        assert "no Android device is attached" in refusal.reason
        assert "adb devices" in refusal.remedy
        assert workshop.issued(PACKAGE) == 0


@pytest.mark.row("F-24", "A-13", "A-55")
async def test_without_an_adb_server_the_next_step_is_told_and_none_is_started(tmp_path: Path, home: Path) -> None:
    async with EmulatedDevice(tmp_path / "phone") as device:
        with android_workshop(home, ("127.0.0.1", free_port())) as workshop:
            refusal = await refused(Asker(workshop, app_on(device)))
            assert "No adb server answers at 127.0.0.1:" in refusal.reason
            assert "adb start-server" in refusal.reason
            assert workshop.issued(PACKAGE) == 0


@pytest.mark.row("A-13")
async def test_an_adb_server_that_hangs_is_named_with_the_way_to_restart_it(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adb_shell, "LIST_LIMIT", 0.1)

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with EmulatedDevice(tmp_path / "phone") as device, await asyncio.start_server(silent, "127.0.0.1", 0) as hung:
        with android_workshop(home, hung.sockets[0].getsockname()[:2]) as workshop:
            refusal = await refused(Asker(workshop, app_on(device)))
    assert "cannot be used: no answer within 0.1 seconds" in refusal.reason
    assert "adb kill-server" in refusal.remedy


@pytest.mark.row("A-13")
async def test_devices_that_are_offline_or_unauthorised_hide_no_match_and_are_told_of_when_there_is_none(
    tmp_path: Path, adb_server: AdbServer, asker: Asker
) -> None:
    async with (
        EmulatedDevice(tmp_path / "locked", authorized=False) as locked,
        EmulatedDevice(tmp_path / "gone") as gone,
    ):
        await adb_server.connect(gone)
        await adb_server.attach(locked)
        await adb_server.wait_state(locked, "unauthorized")
        await gone.vanish()
        await adb_server.wait_state(gone, "offline")
        await asker.enrol()
        asker.app.file("app.csr").unlink()
        refusal = await refused(asker)
        assert f"{locked.serial}: it has not authorised this computer." in refusal.reason
        assert f"{gone.serial}: it is offline." in refusal.reason
        assert f"{asker.app.device.serial}: the folder holds no app.csr." in refusal.reason
        assert "Allow USB debugging on its screen." in refusal.remedy
        await adb_server.disconnect(locked)
        await adb_server.disconnect(gone)


@pytest.mark.row("A-13")
async def test_a_device_that_never_answers_holds_up_no_other(
    tmp_path: Path, adb_server: AdbServer, asker: Asker, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with adb_server.attached(EmulatedDevice(tmp_path / "hung")) as hung:
        hung.hung = True
        async with asyncio.timeout(adb.ASK_LIMIT / 2):
            await asker.enrol()
        monkeypatch.setattr(adb, "ASK_LIMIT", 1.0)
        asker.app.file("app.csr").unlink()
        refusal = await refused(asker)
        assert f"{hung.serial}: it did not answer within 1 seconds." in refusal.reason
        hung.hung = False


async def test_a_request_that_is_written_a_moment_late_is_read_again(asker: Asker) -> None:
    csr = asker.app.csr
    asker.app.file("app.csr").unlink()

    def restarted(_index: int, _line: str) -> None:
        looks = [line for line in asker.app.device.commands if line.startswith("run-as")]
        if len(looks) == 2:
            asker.app.file("app.csr").write_text(csr)

    asker.app.device.faults = restarted
    await asker.enrol()


@pytest.mark.row("A-13")
async def test_a_wrong_clock_of_a_device_that_sends_no_time_is_found_and_told(asker: Asker) -> None:
    asker.app.device.sandbox.facts["clock_offset"] = -3 * 86400
    asker.app.device.sandbox.save()
    refusal = await refused(asker)
    assert refusal.step == "clock"
    assert "3 days behind the broker" in refusal.reason


async def test_the_server_can_be_switched_off_and_its_settings_are_checked(tmp_path: Path, asker: Asker) -> None:
    with State.open(tmp_path / "state.db") as state:
        context = adb_medium(("127.0.0.1", 1), state).context
    off = adb.AdbMedium(attrs.evolve(context, settings={"server": "off"}))
    checked = asker.workshop.authority.check_request(asker.app.csr)
    request = adb.SignRequest(csr=asker.app.csr, claims=CLAIMS, destination=asker.app.destination)
    with pytest.raises(EnrollmentRefused, match="switched off"):
        await off.prove(request, checked)
    for wrong in [{"sever": "auto"}, {"server": 5037}, {"server": "5037"}]:
        with pytest.raises(ConfigurationError):
            adb.AdbMedium(attrs.evolve(context, settings=wrong))


def test_it_serves_android_only(tmp_path: Path) -> None:
    with State.open(tmp_path / "state.db") as state:
        medium = adb_medium(("127.0.0.1", 1), state)
    for system, mine in {"Android": True, "iOS": False, "Linux": False}.items():
        assert medium.handles(adb.SignRequest(csr="x", claims=Claims(os=system))) is mine


@pytest.mark.row("D-7")
@pytest.mark.parametrize("fault", [Fault.VANISH_BEFORE, Fault.VANISH_MIDWAY, Fault.VANISH_AFTER])
@pytest.mark.parametrize("step", ["look", "write sonarCA.crt", "write device.crt", "rename"])
async def test_a_device_that_vanishes_at_any_step_ends_with_the_old_or_the_new_pair(
    adb_server: AdbServer, asker: Asker, step: str, fault: Fault
) -> None:
    """The line drops before, in or after each command of a deployment; the device comes back, and it is settled."""
    await asker.enrol()
    app, device = asker.app, asker.app.device
    old, before = pair(app), len(device.commands)
    marks = {"look": 4, "write sonarCA.crt": 5, "write device.crt": 6, "rename": 7}  # proof: a look and three facts
    device.faults = lambda index, _line: fault if index == before + marks[step] else None
    with pytest.raises(EnrollmentRefused) as caught:
        await asker.enrol()
    assert caught.value.step == "deploy"
    assert len(asker.workshop.journal.pending()) == 1, "it waits for the device"
    assert [entry.number for entry in await asker.workshop.enroller.settle({"adb"})] != []
    device.faults = lambda _index, _line: None
    await device.sandbox.idle()
    await adb_server.bring_back(device)
    assert await asker.workshop.enroller.settle({"adb"}) == []
    assert asker.workshop.journal.pending() == []
    new = (asker.workshop.authority.trust_pem, pair(app)[1])
    assert pair(app) in (old, new)
    assert leftovers(app) == set()
    if step == "rename" and fault is not Fault.VANISH_BEFORE:
        assert pair(app)[1] != old[1], "what was renamed is kept"


@pytest.mark.row("D-7")
async def test_a_rename_that_was_cut_in_two_is_finished(adb_server: AdbServer, asker: Asker) -> None:
    """The state between the two renames, made by hand: new anchor in place, certificate still beside its place."""
    app, device = asker.app, asker.app.device
    device.faults = lambda index, _line: Fault.VANISH_BEFORE if index == 7 else None
    with pytest.raises(EnrollmentRefused):
        await asker.enrol()
    assert leftovers(app) == {"sonarCA.crt.new", "device.crt.new"}
    app.file("sonarCA.crt.new").rename(app.file("sonarCA.crt"))
    device.faults = lambda _index, _line: None
    await adb_server.bring_back(device)
    assert await asker.workshop.enroller.settle() == []
    assert pair(app)[1] is not None
    assert leftovers(app) == set()


@pytest.mark.row("D-7")
async def test_a_deployment_is_settled_at_the_next_start_and_not_on_another_device(
    tmp_path: Path, home: Path, adb_server: AdbServer, app: AppSandbox
) -> None:
    device = app.device
    with android_workshop(home, adb_server.address) as workshop:
        device.faults = lambda index, _line: Fault.VANISH_AFTER if index == 5 else None
        await refused(Asker(workshop, app))
        assert leftovers(app) == {"sonarCA.crt.new"}
    device.faults = lambda _index, _line: None
    with android_workshop(home, adb_server.address) as workshop:
        async with adb_server.attached(EmulatedDevice(tmp_path / "other", serialno="EMULATED0002")):
            assert len(await workshop.enroller.settle()) == 1, "another device is not the one"
        await adb_server.bring_back(device)
        assert await workshop.enroller.settle() == []
    assert leftovers(app) == set()


@pytest.mark.row("D-7")
async def test_a_deployment_to_an_app_that_is_gone_or_asks_anew_is_undone(adb_server: AdbServer, asker: Asker) -> None:
    app, device = asker.app, asker.app.device
    for remove in (app.make_request, lambda: shutil.rmtree(app.folder)):
        app.make_request()
        start = len(device.commands)
        device.faults = lambda index, _line, start=start: Fault.VANISH_AFTER if index == start + 6 else None
        await refused(asker)
        remove()
        if app.folder.exists():
            app.file("app.csr").write_text(app_on(device, "org.example.other", key=app_key(1)).csr)
            app.file("sonarCA.crt.new").write_text("left over")
        device.faults = lambda _index, _line: None
        await adb_server.bring_back(device)
        assert await asker.workshop.enroller.settle() == []
        assert not app.folder.exists() or leftovers(app) == set()


@pytest.mark.row("D-6")
async def test_a_nonce_on_a_device_that_has_gone_is_removed_when_it_is_back(
    home: Path, adb_server: AdbServer, tmp_path: Path
) -> None:
    name = "nonce-0123456789abcdef"
    with android_workshop(home, adb_server.address) as workshop:
        driver = workshop.mediums.offered["adb"]
        phone = EmulatedDevice(tmp_path / "phone")
        async with adb_server.attached(phone) as device:
            app = app_on(device)
            await Asker(workshop, app).enrol()
            container = workshop.containers.all()[0].container
            await driver.write_nonce(container, name, b"0" * 64)
        away = await driver.remove_nonce(container, name)
        assert isinstance(away, StillPending) and away.reason == "the device is not attached"
        with pytest.raises(EnrollmentRefused, match="proof: "):
            await driver.write_nonce(container, "nonce-0123456789abcde0", b"0" * 64)
        async with adb_server.attached(phone):
            assert await driver.remove_nonce(container, name) is None
            assert not app.file(name).exists()
