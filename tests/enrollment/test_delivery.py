"""Deployments to their end: what is kept, recorded and reported when they have reached it, and nothing before."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from rsocket_broker.audit import Event
from rsocket_broker.credentials import CA_FILE, CERTIFICATE_FILE
from rsocket_broker.enrollment.containers import digest
from rsocket_broker.enrollment.delivery import Delivery
from rsocket_broker.enrollment.leaf import Leaf
from rsocket_broker.enrollment.mediums.base import Bundle, JournalEntry
from rsocket_broker.enrollment.throttle import EnrollmentLimits
from rsocket_broker.errors import EnrollmentRefused
from tests.enrollment.workshop import LOCALHOST, DesktopApp, Workshop


def bench(workshop: Workshop) -> tuple[Delivery, list[int]]:
    arrived: list[int] = []
    delivery = Delivery(
        workshop.mediums,
        workshop.journal,
        workshop.containers,
        EnrollmentLimits(),
        now=lambda: datetime.now(UTC),
        audit=workshop.authority.audit,
        arrived=lambda database, serial: arrived.append(serial),
    )
    return delivery, arrived


async def enrolled(workshop: Workshop, app: DesktopApp) -> bytes:
    await workshop.enroller.serve(app.message(), app.claims, LOCALHOST)
    await workshop.enroller.drain(10)
    certificate = app.pair()[1]
    assert certificate is not None
    return certificate


def journalled(workshop: Workshop, app: DesktopApp, *, trust: bytes = b"") -> JournalEntry:
    """The deployment of a new certificate, or of anchors, to the app that has enrolled."""
    (kept,) = workshop.containers.all()
    authority = workshop.authority
    issued = authority.issue(authority.check_request(app.csr), kept.principal, renews=kept.leaf.serial)
    bundle = Bundle(csr=app.csr, trust_pem=trust, certificate_pem=b"" if trust else issued.certificate_pem)
    return workshop.journal.begin(kept.container, bundle, datetime.now(UTC))


@pytest.mark.row("A-18", "D-14")
async def test_an_enrolment_that_has_reached_its_place_is_kept_and_recorded(
    workshop: Workshop, app: DesktopApp
) -> None:
    certificate = await enrolled(workshop, app)
    (kept,) = workshop.containers.all()
    assert (kept.csr, kept.leaf) == (app.csr.strip(), Leaf.read(certificate))
    assert kept.trust == digest(workshop.authority.trust_pem)
    recorded = workshop.state.read("SELECT * FROM audit WHERE event = ?", (Event.DEPLOYED.value,))
    assert len(recorded) == 1


@pytest.mark.row("A-18")
async def test_one_file_is_placed_and_its_arrival_told(workshop: Workshop, app: DesktopApp) -> None:
    await enrolled(workshop, app)
    delivery, arrived = bench(workshop)
    entry = journalled(workshop, app)
    await delivery.place(workshop.mediums.offered["filesystem"], entry)
    await delivery.secured(entry.container)
    assert app.pair() == (workshop.authority.trust_pem, entry.bundle.certificate_pem)
    (kept,) = workshop.containers.all()
    assert arrived == [kept.leaf.serial] == [Leaf.read(entry.bundle.certificate_pem).serial]
    assert workshop.journal.pending() == []
    anchors = journalled(workshop, app, trust=b"two anchors\n")
    await delivery.place(workshop.mediums.offered["filesystem"], anchors)
    await delivery.drain(10)
    assert app.pair() == (b"two anchors\n", entry.bundle.certificate_pem)
    assert len(arrived) == 1, "anchors are no certificate that anybody holds"


@pytest.mark.row("D-7")
async def test_what_is_undone_is_neither_kept_nor_told(workshop: Workshop, app: DesktopApp) -> None:
    before = await enrolled(workshop, app)
    delivery, arrived = bench(workshop)
    entry = journalled(workshop, app)
    app.make_request()
    with pytest.raises(EnrollmentRefused):
        await delivery.place(workshop.mediums.offered["filesystem"], entry)
    (kept,) = workshop.containers.all()
    assert (kept.leaf, arrived) == (Leaf.read(before), [])
    assert workshop.journal.pending() == []
    assert app.leftovers() == []


@pytest.mark.row("D-7")
async def test_what_was_cut_off_is_settled_and_then_kept(workshop: Workshop, app: DesktopApp, tmp_path: Path) -> None:
    await enrolled(workshop, app)
    delivery, arrived = bench(workshop)
    entry = journalled(workshop, app)
    (app.folder / f"{CERTIFICATE_FILE}.new").write_bytes(entry.bundle.certificate_pem[:7])
    assert await delivery.settle() == []
    assert (app.folder / CERTIFICATE_FILE).read_bytes() == entry.bundle.certificate_pem
    assert (app.folder / CA_FILE).read_bytes() == workshop.authority.trust_pem
    assert arrived == [Leaf.read(entry.bundle.certificate_pem).serial]
    assert workshop.containers.all()[0].leaf.serial == arrived[0]
