"""What lies in containers is replaced by their drivers: what is due, and never without a look at the request."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import attrs
import pytest
from cryptography import x509

from rsocket_broker.authority.revocation import Selector
from rsocket_broker.credentials import Credentials
from rsocket_broker.enrollment.containers import Kept, Sighting, digest
from rsocket_broker.enrollment.leaf import Leaf
from rsocket_broker.enrollment.mediums.base import Container, StillPending
from rsocket_broker.enrollment.mediums.filesystem import FilesystemMedium
from rsocket_broker.lifecycle.renewal import CANNOT, GONE, Need, Renewer
from rsocket_broker.lifecycle.rotation import Outcome
from tests.enrollment.workshop import LOCALHOST, DesktopApp, Workshop, open_workshop


@attrs.define
class Bench:
    """A renewer over a real authority and real folders; `ahead` is how far its time of day is ahead."""

    workshop: Workshop
    live: set[int] = attrs.field(factory=set)
    ahead: timedelta = timedelta()

    @property
    def renewer(self) -> Renewer:
        delivery = self.workshop.enroller.delivery
        return Renewer(self.workshop.authority, delivery, lambda: self.live, now=lambda: datetime.now(UTC) + self.ahead)

    async def enrol(self, app: DesktopApp) -> Kept:
        await self.workshop.enroller.serve(app.message(), app.claims, LOCALHOST)
        await self.workshop.enroller.delivery.secured(self.container())
        return self.kept()

    def container(self) -> Container:
        pending = self.workshop.journal.pending()
        return pending[0].container if pending else self.kept().container

    def kept(self) -> Kept:
        (kept,) = self.workshop.containers.all()
        return kept

    async def bring(self, only: Need | None = None) -> tuple[Outcome, str] | None:
        spread = await self.renewer.bring(self.kept(), only)
        await self.workshop.enroller.delivery.secured(self.container())
        return None if spread is None else (spread.outcome, spread.reason)


@pytest.fixture
def bench(workshop: Workshop) -> Bench:
    return Bench(workshop)


def leaf(app: DesktopApp) -> Leaf:
    certificate = app.pair()[1]
    assert certificate is not None
    return Leaf.read(certificate)


@pytest.mark.row("A-18")
async def test_at_two_thirds_of_its_life_only_the_certificate_is_replaced(bench: Bench, app: DesktopApp) -> None:
    kept = await bench.enrol(app)
    old, anchors = leaf(app), app.pair()[0]
    assert bench.renewer.stale() == []
    assert await bench.bring() is None
    bench.ahead = kept.due - datetime.now(UTC) + timedelta(minutes=1)
    assert bench.renewer.stale() == [kept]
    assert bench.renewer.need(kept) == Need(certificate=True)
    assert await bench.bring() == (Outcome.DONE, "")
    assert app.pair()[0] == anchors
    assert leaf(app).serial == bench.kept().leaf.serial != old.serial
    record = bench.workshop.authority.record(leaf(app).serial)
    assert record is not None
    assert record.renews == old.serial
    assert Credentials.load(app.folder)
    assert leaf(app).serial in bench.workshop.authority._arrivals.all()


@pytest.mark.row("A-18", "A-02")
async def test_nothing_is_signed_for_a_request_that_is_not_there_any_more(bench: Bench, app: DesktopApp) -> None:
    kept = await bench.enrol(app)
    bench.ahead = kept.due - datetime.now(UTC) + timedelta(minutes=1)
    issued = bench.workshop.issued(app.app_id)
    app.make_request()
    spread = await bench.renewer.bring(kept)
    assert spread is not None
    assert (spread.outcome, spread.reason) == (Outcome.LATER, GONE)
    assert bench.workshop.issued(app.app_id) == issued
    assert bench.workshop.containers.all() == []
    assert app.pair() == (None, None)


@pytest.mark.row("A-18")
async def test_what_cannot_be_reached_is_tried_again_and_less_often(
    bench: Bench, app: DesktopApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = await bench.enrol(app)
    bench.ahead = kept.due - datetime.now(UTC) + timedelta(minutes=1)
    issued = bench.workshop.issued(app.app_id)

    async def holds(self: FilesystemMedium, container: Container, csr: str) -> StillPending:
        return StillPending("the disk is not mounted")

    monkeypatch.setattr(FilesystemMedium, "holds", holds)
    assert await bench.bring() == (Outcome.LATER, "the disk is not mounted")
    assert (bench.kept().failures, bench.kept().problem) == (1, "the disk is not mounted")
    assert bench.renewer.stale() == []
    bench.ahead += timedelta(minutes=2)
    assert len(bench.renewer.stale()) == 1
    await bench.bring()
    bench.ahead += timedelta(minutes=1, seconds=30)
    assert bench.renewer.stale() == [], "two minutes after the second"
    assert len(bench.renewer.stale(waiting=True)) == 1, "an operator who rotates does not wait"
    bench.workshop.containers.retry_now(["filesystem"])
    assert len(bench.renewer.stale()) == 1
    assert bench.workshop.issued(app.app_id) == issued
    monkeypatch.undo()
    assert await bench.bring() == (Outcome.DONE, "")
    assert (bench.kept().failures, bench.kept().problem) == (0, "")


@pytest.mark.row("A-18", "A-53")
async def test_tries_to_renew_are_counted_and_new_anchors_are_not(
    bench: Bench, app: DesktopApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, renewer = await bench.enrol(app), bench.renewer
    bench.workshop.authority.prepare()
    assert await renewer.bring(kept) is not None
    assert renewer.results == {}
    bench.ahead = kept.due - datetime.now(UTC) + timedelta(minutes=1)
    monkeypatch.setattr(FilesystemMedium, "places", False)
    assert await renewer.bring(bench.kept()) is not None
    assert renewer.results == {"later": 1}
    monkeypatch.undo()
    assert await renewer.bring(bench.kept()) is not None
    assert renewer.results == {"later": 1, "done": 1}


@pytest.mark.row("A-05")
async def test_a_driver_that_cannot_place_is_said_to_be_unable(
    bench: Bench, app: DesktopApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = await bench.enrol(app)
    bench.ahead = kept.due - datetime.now(UTC) + timedelta(minutes=1)
    monkeypatch.setattr(FilesystemMedium, "places", False)
    assert await bench.bring() == (Outcome.LATER, CANNOT.format("filesystem"))
    assert bench.kept().problem == CANNOT.format("filesystem")


@pytest.mark.row("A-19", "A-20")
@pytest.mark.parametrize("by", ["serial", "app"])
async def test_a_revoked_certificate_is_not_renewed_in_its_container(bench: Bench, app: DesktopApp, by: str) -> None:
    kept = await bench.enrol(app)
    bench.ahead = kept.due - datetime.now(UTC) + timedelta(minutes=1)
    selector = Selector.serial(kept.leaf.serial) if by == "serial" else Selector.app(app.app_id)
    bench.workshop.authority.revocations.revoke(selector, "a test")
    before, issued = app.pair(), bench.workshop.issued(app.app_id)
    found = await bench.bring()
    assert found is not None
    assert found[0] is Outcome.FAILED
    assert app.pair() == before
    assert bench.workshop.issued(app.app_id) == issued
    assert app.leftovers() == []


@pytest.mark.row("A-18")
async def test_an_app_that_renews_over_its_session_is_left_to_that_while_it_is_connected(
    bench: Bench, app: DesktopApp
) -> None:
    kept = await bench.enrol(app)
    bench.workshop.containers.seen({kept.leaf.serial: Sighting("tls", True)})
    bench.ahead = kept.due - datetime.now(UTC) + timedelta(minutes=1)
    assert bench.renewer.stale() == [], "it has its own time until five sixths"
    bench.workshop.authority.prepare()
    assert len(bench.renewer.stale()) == 1
    bench.live.add(kept.leaf.serial)
    assert bench.renewer.stale() == []
    bench.ahead = bench.kept().due - datetime.now(UTC) + timedelta(minutes=1)
    assert len(bench.renewer.stale()) == 1, "it has not used its time"


@pytest.mark.row("A-14", "D-1")
async def test_a_rotation_brings_two_anchors_first_and_then_the_certificate(bench: Bench, app: DesktopApp) -> None:
    await bench.enrol(app)
    authority, first = bench.workshop.authority, app.pair()
    authority.prepare()
    assert await bench.bring() == (Outcome.DONE, "")
    both, certificate = app.pair()
    assert (both, certificate) == (authority.trust_pem, first[1])
    assert both is not None
    assert len(x509.load_pem_x509_certificates(both)) == 2
    authority.switch()
    assert await bench.bring(Need(trust=True)) is None
    assert await bench.bring() == (Outcome.DONE, "")
    assert app.pair()[0] == both
    assert leaf(app).generation == authority.generation
    assert authority.holders(1) == []
    authority.finish()
    assert await bench.bring() == (Outcome.DONE, "")
    assert app.pair()[0] == authority.trust_pem
    assert Credentials.load(app.folder)


@pytest.mark.row("A-14", "D-1")
async def test_an_app_of_the_websocket_port_gets_both_files_in_one_deployment(bench: Bench, app: DesktopApp) -> None:
    kept = await bench.enrol(app)
    bench.workshop.containers.seen({kept.leaf.serial: Sighting("wss", False)})
    authority = bench.workshop.authority
    authority.prepare()
    authority.switch()
    assert bench.renewer.need(bench.kept()) == Need(trust=True, certificate=True)
    assert await bench.bring() == (Outcome.DONE, "")
    assert app.pair()[0] == authority.web_trust_pem
    anchors = x509.load_pem_x509_certificates(authority.web_trust_pem)
    assert anchors[0] == authority.certificate
    assert leaf(app).generation == authority.generation
    assert bench.kept().trust == digest(authority.web_trust_pem)


async def test_two_who_bring_the_same_at_once_bring_it_once(bench: Bench, app: DesktopApp) -> None:
    kept = await bench.enrol(app)
    bench.workshop.authority.prepare()
    bench.workshop.authority.switch()
    issued, renewer = bench.workshop.issued(app.app_id), bench.renewer
    spreads = await asyncio.gather(renewer.bring(kept), renewer.bring(kept))
    assert sorted(spread is None for spread in spreads) == [False, True]
    assert bench.workshop.issued(app.app_id) == issued + 1


@pytest.mark.row("D-7")
async def test_a_renewal_that_was_cut_off_is_finished_at_the_next_start(home: Path, app: DesktopApp) -> None:
    with open_workshop(home) as workshop:
        bench = Bench(workshop)
        kept = await bench.enrol(app)
        bench.ahead = kept.due - datetime.now(UTC) + timedelta(minutes=1)
        entry = bench.renewer._prepare(kept, Need(certificate=True))  # and here the machine loses its power
    with open_workshop(home) as workshop:
        assert await workshop.enroller.settle() == []
        assert app.pair()[1] == entry.bundle.certificate_pem
        assert workshop.containers.all()[0].leaf == leaf(app)
