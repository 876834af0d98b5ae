import socket
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from rsocket_broker.admin.run_folder import Ports, RunFolder
from rsocket_broker.authority import Authority
from rsocket_broker.authority.ends import Foreseen
from rsocket_broker.cli import diagnosis
from rsocket_broker.cli.diagnosis import Level, Symptom, guarded, ok
from rsocket_broker.enrollment.mediums.adb import AdbMedium
from rsocket_broker.enrollment.mediums.base import MediumContext
from rsocket_broker.errors import ConfigurationError, HomeError
from rsocket_broker.listening.listeners import NAMES
from rsocket_broker.settings import ListenSettings, Settings
from rsocket_broker.state import STATE_FILE, State
from tests.emulated_device import AdbServer, EmulatedDevice
from tests.emulated_device.server import free_port
from tests.enrollment.stand_ins import XCRUN, StandIn
from tests.enrollment.workshop import UDID

NOW = datetime.now(UTC)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home that has been started once."""
    path = tmp_path / "home"
    with State.open(path / STATE_FILE) as state:
        Authority.open(path, state)
    return path


def wrong(symptoms: list[Symptom]) -> dict[str, str]:
    return {each.what: each.detail for each in symptoms if each.level is not Level.OK}


async def collected(symptoms: AsyncIterator[Symptom]) -> list[Symptom]:
    return [symptom async for symptom in symptoms]


def test_a_sound_home_has_nothing_wrong(home: Path) -> None:
    assert wrong(list(diagnosis.check_home(home, NOW))) == {}


def test_a_home_that_is_not_there_yet_is_no_fault(tmp_path: Path) -> None:
    (found,) = diagnosis.check_home(tmp_path / "none", NOW)
    assert found.level is Level.OK
    assert "rsocket-broker serve" in found.detail


def test_a_loose_mode_is_named_with_the_remedy(home: Path) -> None:
    (home / "ca" / "1" / "ca.key").chmod(0o644)
    details = " ".join(wrong(list(diagnosis.check_home(home, NOW))).values())
    assert "chmod 600" in details
    assert str(home / "ca" / "1" / "ca.key") in details


def test_a_damaged_server_certificate_is_found(home: Path) -> None:
    (home / "server" / "server.crt").write_text("nonsense")
    assert "server certificate" in wrong(list(diagnosis.check_home(home, NOW)))


@pytest.mark.row("A-55")
def test_a_ca_near_its_end_is_a_problem_and_says_what_follows(home: Path) -> None:
    with State.open(home / STATE_FILE) as state:
        end = Authority.open(home, state, create=False).certificate.not_valid_after_utc
    found = {each.what: each for each in diagnosis.check_home(home, end - timedelta(days=29))}
    assert found["CA near its end"].level is Level.PROBLEM
    assert f"{end:%Y-%m-%d}" in found["CA near its end"].detail
    assert "ca rotate prepare" in found["CA near its end"].detail
    later = {each.what for each in diagnosis.check_home(home, end - timedelta(days=31))}
    assert "CA near its end" not in later


def test_a_ca_that_some_clients_find_too_old_is_a_warning() -> None:
    (found,) = diagnosis.check_ends([Foreseen(False, "too old, import one")])
    assert (found.level, found.detail) == (Level.WARNING, "too old, import one")


@pytest.mark.row("A-55")
def test_a_clock_before_the_ca_was_made_is_wrong(home: Path) -> None:
    found = wrong(list(diagnosis.check_home(home, NOW - timedelta(days=4000))))
    assert "Set the clock" in found["clock"]


def test_a_half_done_deployment_is_told(home: Path) -> None:
    from rsocket_broker.enrollment.journal import Journal
    from rsocket_broker.enrollment.mediums.base import Bundle, Container
    from rsocket_broker.identity import Principal, Proof

    with State.open(home / STATE_FILE) as state:
        principal = Principal("com.example.app", "android-1", Proof.ADB)
        container = Container(medium="adb", principal=principal, location={"device": "android-1"})
        Journal(state).begin(container, Bundle(csr="x", trust_pem=b"x", certificate_pem=b"x"), NOW)
    found = wrong(list(diagnosis.check_home(home, NOW)))
    assert "com.example.app@android-1 (adb)" in found["deployment"]
    assert "attach the device" in found["deployment"]


def test_what_a_killed_broker_left_is_told_and_a_running_one_is_not(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "home")
    assert wrong(list(diagnosis.check_run_folder(folder))) == {}
    folder.acquire()
    folder.publish(Ports(pid=1, started=1.0, host="localhost", admin="x"))
    (running,) = diagnosis.check_run_folder(folder)
    assert running.level is Level.OK
    assert "runs here (pid " in running.detail
    content = {path: path.read_bytes() for path in (folder.lock_path, folder.ports_path)}
    folder.release()
    for path, data in content.items():  # as after kill -9: the files without their holder
        path.write_bytes(data)
    (left,) = diagnosis.check_run_folder(folder)
    assert left.level is Level.WARNING
    assert "lock" in left.detail
    assert "ports.json" in left.detail


@pytest.mark.row("A-55")
async def test_a_taken_port_names_its_holder(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        settings = Settings(home=tmp_path, listen=ListenSettings(insecure_port=port, secure_port=0))
        symptoms = await collected(diagnosis.check_ports(settings))
    found = wrong(symptoms)
    assert set(found) == {"insecure port"}
    assert f"Port {port}" in found["insecure port"]
    assert "--insecure-port" in found["insecure port"]
    assert wrong(await collected(diagnosis.check_ports(settings))) == {}


@pytest.mark.row("A-55")
@pytest.mark.parametrize(
    ("field", "what", "flag"),
    [
        ("ws_insecure_port", "WebSocket insecure port", "--ws-insecure-port"),
        ("ws_secure_port", "WebSocket port", "--ws-secure-port"),
        ("http_port", "HTTP port", "--http-port"),
        ("browser_port", "browser port", "--browser-port"),
    ],
)
async def test_the_ports_that_can_be_off_are_looked_at_too(tmp_path: Path, field: str, what: str, flag: str) -> None:
    ports: dict[str, Any] = {"insecure_port": 0, "secure_port": 0}
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = ListenSettings(**ports | {field: taken.getsockname()[1]})
        found = wrong(await collected(diagnosis.check_ports(Settings(home=tmp_path, listen=listen))))
        assert set(found) == {what}
        assert flag in found[what]
    listen = ListenSettings(**ports | {field: None})
    symptoms = await collected(diagnosis.check_ports(Settings(home=tmp_path, listen=listen)))
    assert ok(what, "switched off") in symptoms


def test_a_driver_that_cannot_be_made_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def checked(table: dict[str, object], name: str = "adb") -> list[Symptom]:
        settings = Settings(home=tmp_path, medium_tables={name: table})
        return guarded("medium drivers", lambda: diagnosis.check_mediums(settings))

    (sound,) = checked({})
    assert sound == ok("medium drivers", "adb, filesystem, pairing, physical_ios, simulator")
    assert "no settings" in wrong(checked({"nonsense": 1}))["medium drivers"]
    assert "nobody" in wrong(checked({}, "nobody"))["medium drivers"]
    assert list(tmp_path.iterdir()) == []

    def refuse(driver: AdbMedium, context: MediumContext) -> None:
        raise ConfigurationError("this machine cannot carry it.")

    monkeypatch.setattr(AdbMedium, "__init__", refuse)
    assert wrong(checked({}))["medium driver adb"] == "this machine cannot carry it."


def test_what_the_running_broker_says_of_devices_is_passed_on() -> None:
    status: dict[str, Any] = {
        "ports": {
            "insecure_port": 1,
            "secure_port": 2,
            "ws_insecure_port": None,
            "ws_secure_port": 3,
            "http_port": None,
            "browser_port": None,
            "host": "localhost",
        },
        "listeners": [
            {"name": "insecure", "open": True, "port": 1},
            {"name": "ws_secure", "open": True, "port": 3},
            {"name": "http", "open": False, "port": None},
        ],
        "enrollment": {"mode": "open"},
        "adb": {
            "problem": None,
            "devices": [
                {"serial": "A", "state": "device", "problem": None},
                {"serial": "B", "state": "unauthorized", "problem": "allow USB debugging on its screen"},
            ],
        },
    }
    found = list(diagnosis.check_running(status))
    assert wrong(found) == {"device B": "allow USB debugging on its screen."}
    assert "enrolment on 1, sessions on 2" in found[0].detail
    assert "listeners" not in [each.what for each in found]


@pytest.mark.row("A-28")
def test_a_policy_that_cannot_be_taken_up_is_a_problem() -> None:
    policy = {"problem": "policy.toml:2: a rule without an id.", "since": "2026-01-01T00:00:00+00:00"}
    found = wrong(list(diagnosis.check_policy_in_force({"policy": policy})))
    assert "policy.toml:2: a rule without an id." in found["policy in force"]
    assert list(diagnosis.check_policy_in_force({"policy": policy | {"problem": None}})) == []


@pytest.mark.row("A-27")
def test_the_policy_is_read_as_serve_would(tmp_path: Path) -> None:
    (found,) = diagnosis.check_policy(Settings(home=tmp_path, allow_relay=True))
    assert found == ok("policy", "7 rules from built-in default")


@pytest.mark.row("M-17")
@pytest.mark.parametrize(
    ("mode", "closed", "level", "words"),
    [
        ("open", ["secure"], Level.WARNING, "closed: secure. Open"),
        ("window", ["insecure", "ws_insecure"], Level.OK, "closed: insecure (by window), ws_insecure (by window)"),
        ("window", ["insecure", "http"], Level.WARNING, "closed: insecure (by window), http. Open"),
        ("token", ["insecure"], Level.WARNING, "closed: insecure. Open"),
    ],
)
def test_closed_ports_are_told(mode: str, closed: list[str], level: Level, words: str) -> None:
    names = NAMES
    status: dict[str, Any] = {
        "ports": {f"{name}_port": None if name in closed else 1 for name in names} | {"host": "localhost"},
        "listeners": [{"name": name, "open": name not in closed, "port": 1} for name in names],
        "enrollment": {"mode": mode},
        "adb": {"problem": None, "devices": []},
    }
    found = {each.what: each for each in diagnosis.check_running(status)}
    assert found["listeners"].level is level
    assert words in found["listeners"].detail
    assert mode in found["enrolment"].detail


@pytest.mark.row("A-55")
async def test_no_adb_server_is_a_warning_unless_it_was_named(monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(port))
    monkeypatch.delenv("ADB_SERVER_SOCKET", raising=False)
    (found,) = await collected(diagnosis.check_adb("auto"))
    assert found.level is Level.WARNING
    assert "adb start-server" in found.detail
    (found,) = await collected(diagnosis.check_adb(f"127.0.0.1:{port}"))
    assert found.level is Level.PROBLEM
    (found,) = await collected(diagnosis.check_adb("off"))
    assert found.level is Level.OK


@pytest.mark.row("A-55")
async def test_a_missing_adb_program_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    (found,) = await collected(diagnosis.check_adb(f"127.0.0.1:{free_port()}"))
    assert "adb is not installed" in found.detail


@pytest.mark.row("A-55")
async def test_the_clock_of_a_device_is_compared(adb_server: AdbServer, tmp_path: Path) -> None:
    address = f"127.0.0.1:{adb_server.address[1]}"
    async with adb_server.attached(EmulatedDevice(tmp_path / "phone")) as device:
        sound = await collected(diagnosis.check_adb(address))
        assert Symptom(f"device {device.serial}", Level.OK, "its clock agrees with ours") in sound
        ahead = await collected(diagnosis.check_adb(address, lambda: datetime.now(UTC) + timedelta(days=3)))
        detail = wrong(ahead)[f"device {device.serial}"]
        assert "its clock says" in detail
        assert "Set the one that is wrong" in detail


@pytest.mark.row("A-55")
async def test_a_device_that_cannot_be_used_is_a_problem_with_a_remedy(adb_server: AdbServer, tmp_path: Path) -> None:
    address = f"127.0.0.1:{adb_server.address[1]}"
    async with EmulatedDevice(tmp_path / "phone", authorized=False) as device:
        await adb_server.attach(device)
        await adb_server.wait_state(device, "unauthorized", "authorizing")
        detail = wrong(await collected(diagnosis.check_adb(address)))[f"device {device.serial}"]
        assert "Allow USB debugging on its screen." in detail
        await adb_server.disconnect(device)


def test_a_check_that_fails_half_way_keeps_what_it_found() -> None:
    def check() -> Any:
        yield ok("first")
        raise HomeError("the second cannot be read")

    assert guarded("second", check) == [ok("first"), Symptom("second", Level.PROBLEM, "the second cannot be read")]


@pytest.mark.row("A-13", "A-55")
def test_what_the_broker_has_warned_of_lately_is_told_in_its_own_words() -> None:
    noon = datetime(2026, 5, 4, 12, 0, 5, tzinfo=UTC)
    warned = [
        {"text": "long ago", "times": 9, "first": "2026-05-04T09:00:00+00:00", "last": "2026-05-04T11:00:00+00:00"},
        {"text": "refused", "times": 3, "first": "2026-05-04T10:00:00+00:00", "last": "2026-05-04T11:59:58+00:00"},
        {"text": "once", "times": 1, "first": "2026-05-04T12:00:00+00:00", "last": "2026-05-04T12:00:00+00:00"},
    ]
    found = list(diagnosis.check_warnings(warned, noon))
    assert [each.level for each in found] == [Level.WARNING, Level.WARNING]
    assert wrong(found) == {"at 11:59:58 UTC, 3 times": "refused", "at 12:00:00 UTC": "once"}


def test_no_warning_is_well() -> None:
    (found,) = diagnosis.check_warnings([], NOW)
    assert found == ok("warnings", "none in the last 60 minutes")


@pytest.mark.row("F-14")
async def test_simulators_that_run_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert await collected(diagnosis.check_simulators()) == [], "no Xcode, nothing to say"
    one = {"udid": UDID, "name": "iPhone 15", "state": "Booted"}
    listed = {"devices": {"com.apple.CoreSimulator.SimRuntime.iOS-17-5": [one]}}
    xcode = StandIn.make(tmp_path / "xcode", "xcrun", XCRUN, {"listed": listed})
    monkeypatch.setenv("PATH", str(xcode.base))
    assert await collected(diagnosis.check_simulators()) == [ok("simulators", f"iPhone 15 (iOS 17.5, {UDID})")]
    xcode.tell(fails="unable to find utility")
    (symptom,) = await collected(diagnosis.check_simulators())
    assert "unable to find utility" in symptom.detail
    assert "xcode-select" in symptom.detail
