"""Finding drivers through entry points, and picking one for a request."""

import importlib.metadata
import logging
from pathlib import Path

import pytest

from rsocket_broker.claims import Claims
from rsocket_broker.enrollment.devices import DeviceRegistry
from rsocket_broker.enrollment.exchange import SignRequest
from rsocket_broker.enrollment.mediums.registry import ENTRY_POINTS, Mediums
from rsocket_broker.errors import EnrollmentRefused
from tests.enrollment.workshop import UDID, Workshop

DRIVER = """
import attrs
from rsocket_broker.enrollment.mediums.base import Container, Medium, Outcome, Settled
from rsocket_broker.identity import Principal, Proof

class ConsoleMedium(Medium):
    name = "console"
    number = 1
    systems = frozenset({"GameOS"})
    needs_destination = False

    async def prove(self, request, checked):
        principal = Principal(checked.common_name, "console-1", Proof.FILESYSTEM)
        return Container(medium=self.name, principal=principal, location={"slot": "1"})

    async def deploy(self, container, bundle):
        self.delivered = bundle

    async def settle(self, entry):
        return Settled(Outcome.UNDONE)

class Misnamed(ConsoleMedium):
    name = "cosnole"

class Failing(ConsoleMedium):
    name = "failing"

    def __init__(self, context):
        super().__init__(context)
        raise OSError("no console is plugged in")

class NoDriver:
    pass
"""


@pytest.fixture
def devices(workshop: Workshop) -> DeviceRegistry:
    return DeviceRegistry(workshop.state)


@pytest.fixture
def strange(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a third party's module that can be imported."""
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "strange_driver_for_tests.py").write_text(DRIVER)
    monkeypatch.syspath_prepend(str(tmp_path / "lib"))
    return "strange_driver_for_tests"


def point(name: str, value: str) -> importlib.metadata.EntryPoint:
    return importlib.metadata.EntryPoint(name, value, ENTRY_POINTS)


def test_the_bundled_drivers_come_through_the_entry_points(devices: DeviceRegistry) -> None:
    mediums = Mediums.load(devices, without=("adb",))
    assert {"filesystem", "simulator"} <= set(mediums.offered)
    assert "adb" not in mediums.offered
    assert mediums.broken == {}


@pytest.mark.row("F-32", "A-05")
async def test_an_installed_driver_serves_a_new_system_with_no_change_here(
    workshop: Workshop, devices: DeviceRegistry, strange: str
) -> None:
    mediums = Mediums.load(devices, entry_points=[point("console", f"{strange}:ConsoleMedium")])
    assert "GameOS" in mediums.known_os
    claims = Claims.parse(b'{"os":"GameOS","device":"d","app":"a"}', required=True, known_os=mediums.known_os)
    assert mediums.select(SignRequest(csr="x", claims=claims)).name == "console"


@pytest.mark.row("A-05")
@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("console", "{}_that_is_missing:ConsoleMedium", "ModuleNotFoundError"),
        ("console", "{}:Missing", "AttributeError"),
        ("console", "{}:NoDriver", "is not a subclass of Medium"),
        ("console", "{}:Misnamed", 'calls itself "cosnole"'),
        ("failing", "{}:Failing", "OSError: no console is plugged in"),
    ],
)
def test_a_broken_driver_is_told_by_name_and_stops_nobody(
    devices: DeviceRegistry, strange: str, name: str, value: str, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    good = point("filesystem", "rsocket_broker.enrollment.mediums.filesystem:FilesystemMedium")
    with caplog.at_level(logging.ERROR):
        mediums = Mediums.load(devices, entry_points=[point(name, value.format(strange)), good])
    assert list(mediums.offered) == ["filesystem"]
    assert reason in mediums.broken[name]
    assert f"medium driver {name} is not offered: {mediums.broken[name]}" in caplog.text


@pytest.mark.row("A-05")
def test_the_second_driver_of_one_name_is_not_offered(devices: DeviceRegistry, strange: str) -> None:
    twice = [point("console", f"{strange}:ConsoleMedium"), point("console", f"{strange}:NoDriver")]
    mediums = Mediums.load(devices, entry_points=twice)
    assert list(mediums.offered) == ["console"]
    assert mediums.broken == {f"{strange}:NoDriver": "another driver is called console already."}


def test_a_driver_is_given_its_own_settings(devices: DeviceRegistry, strange: str) -> None:
    entries = [point("console", f"{strange}:ConsoleMedium")]
    mediums = Mediums.load(devices, {"console": {"slots": 2}, "other": {"x": 1}}, entry_points=entries)
    context = mediums.offered["console"].context
    assert context.settings == {"slots": 2}
    assert context.log.name.endswith(".console")


def request(**fields: object) -> SignRequest:
    return SignRequest(csr="x", **{"claims": Claims(os="Linux"), "destination": "/sonar", **fields})  # type: ignore[arg-type]


@pytest.mark.row("F-12", "F-34")
def test_the_system_and_the_path_pick_the_driver(workshop: Workshop) -> None:
    simulated = f"/Users/me/Devices/{UDID}/data/sonar/"
    assert workshop.mediums.select(request()).name == "filesystem"
    assert workshop.mediums.select(request(claims=Claims(os="MacOS"), destination=simulated)).name == "filesystem"
    assert workshop.mediums.select(request(claims=Claims(os="iOS"), destination=simulated)).name == "simulator"


@pytest.mark.row("F-12", "A-13")
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"medium": 2}, "no driver offers medium 2 (upload service)."),
        ({"medium": 3}, "medium 3 means that no certificates are exchanged, so there is nothing to sign."),
        ({"medium": 77}, "no driver offers medium 77 (unknown to this broker)."),
        ({"claims": Claims(os="iOS")}, "no driver of medium 1 serves this destination on iOS."),
        ({"claims": Claims(os="Android")}, "no driver of medium 1 serves this destination on Android."),
    ],
)
def test_what_no_driver_serves_is_refused_with_what_is_on_offer(
    workshop: Workshop, change: dict[str, object], reason: str
) -> None:
    with pytest.raises(EnrollmentRefused) as caught:
        workshop.mediums.select(request(**change))
    assert caught.value.step == "medium"
    assert caught.value.reason == reason
    assert caught.value.remedy.startswith(
        "On offer here: 1 (file-system access): filesystem, physical_ios, simulator; "
    )
    assert "4 (pairing): pairing" in caught.value.remedy
    assert ("[mediums.upload]" in caught.value.remedy) == (change == {"medium": 2})


def test_with_no_driver_at_all_nothing_is_on_offer() -> None:
    with pytest.raises(EnrollmentRefused, match="On offer here: none"):
        Mediums().select(request())


@pytest.mark.row("F-26")
def test_a_destination_may_be_missing_only_where_the_driver_says_so(
    workshop: Workshop, devices: DeviceRegistry, strange: str
) -> None:
    with pytest.raises(EnrollmentRefused, match="the field destination is missing"):
        workshop.mediums.select(request(destination=""))
    mediums = Mediums.load(devices, entry_points=[point("console", f"{strange}:ConsoleMedium")])
    assert mediums.select(request(claims=Claims(os="GameOS"), destination="")).name == "console"
