"""Desktop apps: proven by their own folder, delivered into it, and brought to an end after a crash."""

import logging
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509

from rsocket_broker.credentials import Credentials
from rsocket_broker.enrollment.exchange import SignRequest, parse_message
from rsocket_broker.enrollment.mediums import filesystem
from rsocket_broker.enrollment.mediums.base import Bundle, Container, JournalEntry, MediumContext, Outcome, StillPending
from rsocket_broker.enrollment.mediums.filesystem import FilesystemMedium
from rsocket_broker.errors import ConfigurationError, EnrollmentRefused
from rsocket_broker.identity import Principal, Proof
from tests.enrollment.workshop import LOCALHOST, DesktopApp, Workshop


def driver_of(workshop: Workshop) -> FilesystemMedium:
    driver = workshop.mediums.offered["filesystem"]
    assert isinstance(driver, FilesystemMedium)
    return driver


async def prove(workshop: Workshop, app: DesktopApp, **changes: object) -> Container:
    request = parse_message(app.message(**changes), app.claims)
    assert isinstance(request, SignRequest)
    return await driver_of(workshop).prove(request, workshop.authority.check_request(request.csr))


async def refusal(workshop: Workshop, app: DesktopApp, **changes: object) -> EnrollmentRefused:
    with pytest.raises(EnrollmentRefused) as caught:
        await prove(workshop, app, **changes)
    assert caught.value.step == "proof"
    assert caught.value.remedy
    return caught.value


@pytest.mark.row("F-27", "A-02")
async def test_a_folder_with_the_very_same_request_is_proof(workshop: Workshop, app: DesktopApp) -> None:
    container = await prove(workshop, app)
    assert container.medium == "filesystem"
    assert container.principal.app_id == "org.example.demo"
    assert container.principal.proof is Proof.FILESYSTEM
    assert container.location["directory"] == str(app.folder.resolve())


async def test_every_app_of_this_machine_is_on_one_device(workshop: Workshop, app: DesktopApp, tmp_path: Path) -> None:
    other = DesktopApp(tmp_path / "apps" / "other", "org.example.other")
    one, two = await prove(workshop, app), await prove(workshop, other)
    assert one.principal.device_id == two.principal.device_id != ""


@pytest.mark.row("A-03", "F-15")
@pytest.mark.parametrize(
    "destination",
    [
        "sonar/",
        "./",
        "~/sonar",
        "C:\\Users\\me\\sonar\\",
        "/",
        "/etc",
        "/proc/self/root",
        "/nowhere/sonar",
        "/dev/null",
    ],
)
async def test_a_place_that_is_not_the_apps_own_is_refused(
    workshop: Workshop, app: DesktopApp, destination: str
) -> None:
    await refusal(workshop, app, destination=destination)


@pytest.mark.row("A-03")
async def test_tricks_with_the_path_are_refused_though_the_folder_is_right(
    workshop: Workshop, app: DesktopApp, tmp_path: Path
) -> None:
    folder = app.folder
    (tmp_path / "link").symlink_to(folder)
    for destination in (
        f"{folder.parent}/../apps/{folder.name}",
        f"{folder}/.",
        f"{folder}//",
        f"{folder}\0",
        f"{folder}\n",
        f"'{folder}'",
        os.path.relpath(folder),
        f"{tmp_path}/link/",
    ):
        await refusal(workshop, app, destination=destination)


@pytest.mark.row("A-02")
async def test_the_folder_of_another_app_is_no_proof(workshop: Workshop, app: DesktopApp, tmp_path: Path) -> None:
    other = DesktopApp(tmp_path / "apps" / "other", "org.example.other")
    await refusal(workshop, app, destination=f"{other.folder}/")


@pytest.mark.row("A-13")
async def test_a_stranger_cannot_learn_what_exists_here(workshop: Workshop, app: DesktopApp, tmp_path: Path) -> None:
    (tmp_path / "private").mkdir(mode=0o700)
    texts, causes = set(), set()
    for destination in (tmp_path / "private", tmp_path / "nothing", Path("/etc"), Path("/etc/passwd")):
        refused = await refusal(workshop, app, destination=f"{destination}/")
        texts.add(refused.public)
        causes.add(str(refused.__cause__))
    assert len(texts) == 1
    assert len(causes) == 4, "but the log of the broker says what is wrong with each"


async def test_a_long_id_is_taken_from_the_claims(workshop: Workshop, tmp_path: Path) -> None:
    app = DesktopApp(tmp_path / "long", "org.example." + "long" * 14)
    assert workshop.authority.check_request(app.csr).common_name == "com.flipper"
    await refusal(workshop, app)


@pytest.mark.row("F-16", "F-17", "F-27", "F-30")
async def test_what_is_delivered_is_a_working_pair(workshop: Workshop, app: DesktopApp) -> None:
    answer = await workshop.enroller.serve(app.message(), app.claims, LOCALHOST)
    assert answer == {"deviceId": driver_of(workshop).context.devices.host_device_id()}
    held = Credentials.load(app.folder)
    assert held.trust_pem == workshop.authority.trust_pem
    certificate = x509.load_pem_x509_certificate(held.chain_pem)
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [x509.ExtendedKeyUsageOID.CLIENT_AUTH]
    assert not app.leftovers()


def entry(container: Container, app: DesktopApp) -> JournalEntry:
    bundle = Bundle(csr=app.csr.strip(), trust_pem=b"anchor", certificate_pem=b"certificate")
    return JournalEntry(number=1, container=container, bundle=bundle, started=datetime.now(UTC))


@pytest.mark.row("D-7")
async def test_a_container_that_has_gone_is_settled(workshop: Workshop, app: DesktopApp) -> None:
    begun = entry(await prove(workshop, app), app)
    app.folder.rename(app.folder.with_name("moved"))
    settled = await driver_of(workshop).settle(begun)
    assert settled.outcome is Outcome.UNDONE  # type: ignore[union-attr]
    with pytest.raises(EnrollmentRefused) as caught:
        await driver_of(workshop).deploy(begun.container, begun.bundle)
    assert caught.value.step == "deploy"


@pytest.mark.row("D-7")
async def test_a_container_that_cannot_be_used_now_is_kept_for_later(workshop: Workshop, app: DesktopApp) -> None:
    begun = entry(await prove(workshop, app), app)
    app.folder.chmod(0o777)
    pending = await driver_of(workshop).settle(begun)
    assert isinstance(pending, StillPending)
    assert "others may write to it" in pending.reason


def test_a_system_without_what_safe_delivery_needs_is_told(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filesystem, "SUPPORTED", False)
    context = MediumContext(devices=driver_of(workshop).context.devices, log=logging.getLogger("x"))
    with pytest.raises(ConfigurationError, match="hold a folder by descriptor"):
        FilesystemMedium(context)


async def test_two_users_of_one_name_are_one_principal_only_by_the_same_proof(
    workshop: Workshop, app: DesktopApp
) -> None:
    container = await prove(workshop, app)
    assert container.principal != Principal("org.example.demo", container.principal.device_id, Proof.ADB)
