"""What every bundled driver holds to that places files by itself: one or both, into what was proven, or nothing."""

import contextlib
import shutil
import stat
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path

import attrs
import pytest

from rsocket_broker.credentials import CA_FILE, CERTIFICATE_FILE, CSR_FILE
from rsocket_broker.enrollment.exchange import SignRequest, parse_message
from rsocket_broker.enrollment.mediums.base import (
    PUBLIC_FILE_MODE,
    Bundle,
    Container,
    JournalEntry,
    Medium,
    Outcome,
    Settled,
    StillPending,
)
from rsocket_broker.errors import EnrollmentRefused
from tests.emulated_device import AdbServer, EmulatedDevice
from tests.enrollment.mediums.android import CLAIMS, android_workshop, app_on
from tests.enrollment.workshop import SIMULATED, DesktopApp, open_workshop

OLD = (b"old anchor\n", b"old certificate\n")
NEW = (b"new anchor\n", b"new certificate\n")
KINDS = ["filesystem", "simulator", "adb"]
KNOWN = {CSR_FILE, "privateKey.pem", CA_FILE, CERTIFICATE_FILE}


@attrs.frozen
class Bench:
    """A container that was proven, with an old pair in it."""

    driver: Medium
    container: Container
    folder: Path
    csr: str
    ask_anew: Callable[[], object]

    def bundle(self, *, trust: bool = True, certificate: bool = True) -> Bundle:
        return Bundle(csr=self.csr, trust_pem=NEW[0] if trust else b"", certificate_pem=NEW[1] if certificate else b"")

    def pair(self) -> tuple[bytes, ...]:
        return tuple((self.folder / name).read_bytes() for name in (CA_FILE, CERTIFICATE_FILE))

    def leftovers(self) -> set[str]:
        return {path.name for path in self.folder.iterdir()} - KNOWN

    def entry(self, bundle: Bundle) -> JournalEntry:
        return JournalEntry(number=1, container=self.container, bundle=bundle, started=datetime.now(UTC))


@pytest.fixture(params=KINDS)
async def bench(
    request: pytest.FixtureRequest, home: Path, tmp_path: Path, adb_server: AdbServer
) -> AsyncIterator[Bench]:
    kind: str = request.param
    async with contextlib.AsyncExitStack() as stack:
        if kind == "adb":
            device = await stack.enter_async_context(adb_server.attached(EmulatedDevice(tmp_path / "phone")))
            phone = app_on(device)
            workshop = stack.enter_context(android_workshop(home, adb_server.address))
            asked = SignRequest(csr=phone.csr, claims=CLAIMS, destination=phone.destination)
            folder, csr, ask_anew = phone.folder, phone.csr, lambda: _another(phone.folder)
        else:
            where, system = ("apps/demo", "Linux") if kind == "filesystem" else (f"{SIMULATED}/Library/sonar", "iOS")
            app = DesktopApp(tmp_path / where, os=system)
            workshop = stack.enter_context(open_workshop(home))
            parsed = parse_message(app.message(), app.claims)
            assert isinstance(parsed, SignRequest)
            asked, folder, csr, ask_anew = parsed, app.folder, app.csr, lambda: _another(app.folder)
        driver = workshop.mediums.offered[kind]
        checked = workshop.authority.check_request(csr)
        container = await driver.prove(asked, checked)
        await driver.deploy(container, Bundle(csr=checked.csr_pem, trust_pem=OLD[0], certificate_pem=OLD[1]))
        yield Bench(driver, container, folder, checked.csr_pem, ask_anew)


def _another(folder: Path) -> None:
    """The app has begun another exchange since."""
    (folder / CSR_FILE).write_text("another request")


@pytest.mark.row("A-18", "D-7")
@pytest.mark.parametrize(("trust", "certificate"), [(True, False), (False, True), (True, True)])
async def test_what_a_bundle_has_is_put_in_place_and_nothing_else_is_touched(
    bench: Bench, trust: bool, certificate: bool
) -> None:
    assert bench.driver.places
    assert await bench.driver.holds(bench.container, bench.csr) is True
    untouched = bench.folder / (CERTIFICATE_FILE if trust else CA_FILE)
    before = untouched.stat()
    await bench.driver.place(bench.container, bench.bundle(trust=trust, certificate=certificate))
    assert bench.pair() == ((NEW if trust else OLD)[0], (NEW if certificate else OLD)[1])
    assert bench.leftovers() == set()
    for name in (CA_FILE, CERTIFICATE_FILE):
        assert stat.S_IMODE((bench.folder / name).stat().st_mode) == PUBLIC_FILE_MODE
    if not (trust and certificate):
        assert (untouched.stat().st_ino, untouched.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@pytest.mark.row("A-02")
async def test_nothing_is_put_beside_another_request(bench: Bench) -> None:
    bench.ask_anew()
    assert await bench.driver.holds(bench.container, bench.csr) is False
    with pytest.raises(EnrollmentRefused) as caught:
        await bench.driver.place(bench.container, bench.bundle(trust=False))
    assert caught.value.step == "deploy"
    assert bench.pair() == OLD
    assert bench.leftovers() == set()


async def test_into_a_container_that_has_gone_nothing_is_put(bench: Bench) -> None:
    """Gone from a device, it was removed; gone from this machine, its disk may come back."""
    shutil.rmtree(bench.folder)
    held = await bench.driver.holds(bench.container, bench.csr)
    assert held is False if bench.driver.name == "adb" else isinstance(held, StillPending)
    with pytest.raises(EnrollmentRefused):
        await bench.driver.place(bench.container, bench.bundle())
    assert not bench.folder.exists()


@pytest.mark.row("D-7")
@pytest.mark.parametrize("written", [True, False])
async def test_one_file_that_was_cut_off_is_finished_or_undone(bench: Bench, written: bool) -> None:
    bundle = bench.bundle(trust=False)
    if written:
        (bench.folder / f"{CERTIFICATE_FILE}.new").write_bytes(NEW[1][:5])
    assert await bench.driver.settle(bench.entry(bundle)) == Settled(Outcome.FINISHED)
    assert bench.pair() == (OLD[0], NEW[1])
    assert bench.leftovers() == set()
    assert await bench.driver.settle(bench.entry(bundle)) == Settled(Outcome.FINISHED)
    bench.ask_anew()
    (bench.folder / f"{CERTIFICATE_FILE}.new").write_bytes(b"left over")
    assert await bench.driver.settle(bench.entry(bundle)) == Settled(Outcome.UNDONE)
    assert bench.leftovers() == set()


async def test_a_device_that_is_away_is_said_to_be(home: Path, tmp_path: Path, adb_server: AdbServer) -> None:
    async with adb_server.attached(EmulatedDevice(tmp_path / "phone")) as device:
        phone = app_on(device)
        with android_workshop(home, adb_server.address) as workshop:
            driver = workshop.mediums.offered["adb"]
            asked = SignRequest(csr=phone.csr, claims=CLAIMS, destination=phone.destination)
            container = await driver.prove(asked, workshop.authority.check_request(phone.csr))
            await adb_server.disconnect(device)
            assert isinstance(await driver.holds(container, phone.csr), StillPending)
            await adb_server.connect(device)
            assert await driver.holds(container, phone.csr) is True


# ---- nonces ------------------------------------------------------------------------------------------------------

NONCE, CONTENT = "nonce-0123456789abcdef", b"0123456789abcdef" * 4


@pytest.mark.row("D-6")
async def test_a_nonce_is_a_new_file_for_the_app_alone(bench: Bench) -> None:
    assert bench.driver.writes_nonces
    await bench.driver.write_nonce(bench.container, NONCE, CONTENT)
    assert (bench.folder / NONCE).read_bytes() == CONTENT
    assert stat.S_IMODE((bench.folder / NONCE).stat().st_mode) == 0o600
    assert bench.pair() == OLD
    for _ in range(2):
        assert await bench.driver.remove_nonce(bench.container, NONCE) is None
        assert bench.leftovers() == set()


@pytest.mark.row("D-6", "A-03")
async def test_a_nonce_takes_no_files_place_and_follows_no_link(bench: Bench, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    (bench.folder / NONCE).symlink_to(victim)
    with pytest.raises(EnrollmentRefused, match="nonce"):
        await bench.driver.write_nonce(bench.container, NONCE, CONTENT)
    assert not victim.exists()
    victim.write_bytes(b"another's")
    with pytest.raises(EnrollmentRefused, match="nonce"):
        await bench.driver.write_nonce(bench.container, NONCE, CONTENT)
    assert victim.read_bytes() == b"another's"
    assert await bench.driver.remove_nonce(bench.container, NONCE) is None
    assert victim.read_bytes() == b"another's" and bench.leftovers() == set()


@pytest.mark.row("D-6")
async def test_a_nonce_in_a_container_that_has_gone_is_gone(bench: Bench) -> None:
    shutil.rmtree(bench.folder)
    assert await bench.driver.remove_nonce(bench.container, NONCE) is None
