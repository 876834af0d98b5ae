"""iOS simulators: the path names the device, the proof is that of the file system."""

from pathlib import Path

import pytest

from rsocket_broker.claims import Claims
from rsocket_broker.credentials import Credentials
from rsocket_broker.enrollment.exchange import SignRequest
from rsocket_broker.errors import EnrollmentRefused
from tests.enrollment.workshop import LOCALHOST, SIMULATED, UDID, DesktopApp, Workshop


@pytest.fixture
def simulated(tmp_path: Path) -> DesktopApp:
    return DesktopApp(tmp_path / SIMULATED / "Library" / "Application Support" / "sonar", os="iOS")


@pytest.mark.row("F-14", "F-12")
async def test_both_files_land_in_the_simulators_container(workshop: Workshop, simulated: DesktopApp) -> None:
    assert await workshop.enroller.serve(simulated.message(), simulated.claims, LOCALHOST) == {"deviceId": UDID}
    assert Credentials.load(simulated.folder).trust_pem == workshop.authority.trust_pem
    record = workshop.authority.certificates("org.example.demo")[0]
    assert record.principal is not None
    assert record.principal.device_id == UDID


@pytest.mark.row("F-14", "A-02")
async def test_a_tree_without_the_request_gets_nothing(workshop: Workshop, simulated: DesktopApp) -> None:
    message = simulated.message()
    (simulated.folder / "app.csr").unlink()
    with pytest.raises(EnrollmentRefused) as caught:
        await workshop.enroller.serve(message, simulated.claims, LOCALHOST)
    assert caught.value.step == "proof"
    assert simulated.pair() == (None, None)
    assert workshop.issued("org.example.demo") == 0


@pytest.mark.row("F-14")
@pytest.mark.parametrize(
    ("os", "destination", "handled"),
    [
        ("iOS", f"/Users/me/{SIMULATED}/Library/Application Support/sonar/", True),
        ("iOS", f"/Users/me/Devices/{UDID.lower()}/data/sonar", True),
        ("iOS", f"/Users/me/Devices/{UDID}", False),
        ("iOS", "/Users/me/Devices/sonar/", False),
        ("iOS", "/private/var/mobile/Containers/Data/Application/7A1B/Library/Application Support/sonar/", False),
        ("MacOS", f"/Users/me/{SIMULATED}/sonar/", False),
    ],
)
def test_only_a_path_that_names_a_simulator_is_for_this_driver(
    workshop: Workshop, os: str, destination: str, handled: bool
) -> None:
    request = SignRequest(csr="x", claims=Claims(os=os), destination=destination)
    assert workshop.mediums.offered["simulator"].handles(request) is handled


async def test_the_device_id_is_written_in_one_way(workshop: Workshop, tmp_path: Path) -> None:
    app = DesktopApp(tmp_path / "Devices" / UDID.lower() / "sonar", os="iOS")
    assert await workshop.enroller.serve(app.message(), app.claims, LOCALHOST) == {"deviceId": UDID}


@pytest.mark.row("A-03")
async def test_a_link_out_of_the_simulator_is_no_way_to_its_device_id(workshop: Workshop, tmp_path: Path) -> None:
    app = DesktopApp(tmp_path / "elsewhere" / "sonar", os="iOS")
    (tmp_path / "Devices").mkdir()
    (tmp_path / "Devices" / UDID).symlink_to(tmp_path / "elsewhere")
    message = app.message(destination=f"{tmp_path}/Devices/{UDID}/sonar/")
    with pytest.raises(EnrollmentRefused, match="leads out of the simulator"):
        await workshop.enroller.serve(message, app.claims, LOCALHOST)
