"""What is kept of each container: what lies there, when it is to be replaced, and why that failed the last time."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import attrs
import pytest

from rsocket_broker.enrollment.containers import (
    FIRST_PAUSE,
    LONGEST_PAUSE,
    MAX_EARLY,
    NO_RENEWAL,
    Containers,
    Kept,
    Sighting,
    digest,
    next_try,
)
from rsocket_broker.enrollment.leaf import Leaf
from rsocket_broker.enrollment.mediums.base import Bundle, Container, JournalEntry
from rsocket_broker.identity import Principal, Proof
from rsocket_broker.state import State
from tests.enrollment.workshop import Workshop

CLIENT = Principal("org.example.demo", "device-1", Proof.ADB)
CONTAINER = Container(medium="adb", principal=CLIENT, location={"device": "1", "user": "0"}, answer={"slot": 1})


@attrs.frozen
class Shelf:
    """The table, and certificates to put into it."""

    workshop: Workshop

    @property
    def containers(self) -> Containers:
        return self.workshop.containers

    def certificate(self, csr: str) -> bytes:
        authority = self.workshop.authority
        return authority.issue(authority.check_request(csr), CLIENT).certificate_pem

    def ended(self, csr: str, trust: bytes, certificate: bytes, container: Container = CONTAINER) -> None:
        bundle = Bundle(csr=csr, trust_pem=trust, certificate_pem=certificate)
        entry = JournalEntry(number=1, container=container, bundle=bundle, started=datetime.now(UTC))
        with self.workshop.state.transaction() as database:
            self.containers.keep(database, entry)

    def only(self) -> Kept:
        (kept,) = self.containers.all()
        return kept


@pytest.fixture
def shelf(workshop: Workshop) -> Shelf:
    return Shelf(workshop)


@pytest.fixture
def csr(app: object) -> Iterator[str]:
    yield app.csr  # type: ignore[attr-defined]


@pytest.mark.row("A-18")
def test_a_deployment_that_has_ended_is_kept_with_its_request(shelf: Shelf, csr: str) -> None:
    pem = shelf.certificate(csr)
    shelf.ended(csr, b"anchors", pem)
    kept = shelf.only()
    assert (kept.container, kept.csr, kept.trust) == (CONTAINER, csr, digest(b"anchors"))
    assert kept.leaf == Leaf.read(pem)
    assert kept.leaf.begins < datetime.now(UTC) < kept.leaf.ends
    assert (kept.channel, kept.self_renewing, kept.problem) == ("", False, "")
    assert "BEGIN" not in repr(kept)


def test_one_file_changes_what_it_stands_for_and_nothing_else(shelf: Shelf, csr: str) -> None:
    shelf.ended(csr, b"anchors", first := shelf.certificate(csr))
    shelf.ended(csr, b"both anchors", b"")
    assert (shelf.only().trust, shelf.only().leaf) == (digest(b"both anchors"), Leaf.read(first))
    shelf.ended(csr, b"", second := shelf.certificate(csr))
    assert (shelf.only().trust, shelf.only().leaf) == (digest(b"both anchors"), Leaf.read(second))
    elsewhere = attrs.evolve(CONTAINER, location={"device": "2"})
    shelf.ended(csr, b"", second, elsewhere)
    assert shelf.only().container == CONTAINER, "only a whole pair begins a row"


def test_a_new_exchange_takes_the_row_of_its_container(shelf: Shelf, csr: str) -> None:
    shelf.ended(csr, b"anchors", shelf.certificate(csr))
    shelf.containers.failed(shelf.only(), "away", datetime.now(UTC) + timedelta(hours=1))
    assert (shelf.only().failures, shelf.only().problem) == (1, "away")
    turned = attrs.evolve(CONTAINER, location=dict(reversed(CONTAINER.location.items())))
    shelf.ended(csr, b"anchors", second := shelf.certificate(csr), turned)
    assert (shelf.only().leaf.serial, shelf.only().failures, shelf.only().problem) == (Leaf.read(second).serial, 0, "")


@pytest.mark.row("A-18")
def test_a_certificate_is_due_at_two_thirds_of_its_life_and_later_for_who_renews_alone(shelf: Shelf, csr: str) -> None:
    shelf.ended(csr, b"anchors", shelf.certificate(csr))
    kept, containers, trusts = shelf.only(), shelf.containers, [digest(b"anchors"), "x"]
    begins, life = kept.leaf.begins, kept.leaf.ends - kept.leaf.begins
    assert kept.due == begins + life * 2 / 3
    second = timedelta(seconds=1)
    assert containers.stale(kept.due - second, 1, trusts) == []
    assert containers.stale(kept.due + second, 1, trusts) == [kept]
    containers.seen({kept.leaf.serial: Sighting("tls", True), 5: Sighting("wss", False)})
    assert (shelf.only().channel, shelf.only().self_renewing) == ("tls", True)
    assert shelf.only().due == begins + life * 5 / 6
    assert containers.stale(kept.leaf.ends, 1, trusts) == [], "it has ended: its app must ask"


def test_an_app_that_is_seen_before_its_deployment_has_ended_is_not_forgotten(shelf: Shelf, csr: str) -> None:
    pem = shelf.certificate(csr)
    shelf.containers.seen({Leaf.read(pem).serial: Sighting("wss", True), 5: Sighting("tls", False)})
    shelf.ended(csr, b"anchors", pem)
    assert (shelf.only().channel, shelf.only().self_renewing) == ("wss", True)
    shelf.containers.seen({number: Sighting("tls", False) for number in range(MAX_EARLY + 10)})
    assert len(shelf.containers._early) == MAX_EARLY


def test_a_renewal_before_the_deployment_has_ended_is_not_forgotten(shelf: Shelf, csr: str) -> None:
    first, second, third = (shelf.certificate(csr) for _ in range(3))
    shelf.containers.renewed(Leaf.read(first).serial, second, b"two")
    shelf.containers.renewed(Leaf.read(second).serial, third, b"three")
    shelf.containers.seen({Leaf.read(third).serial: Sighting("wss", True)})
    shelf.ended(csr, b"one", first)
    assert (shelf.only().channel, shelf.only().self_renewing) == ("wss", True)
    assert (shelf.only().leaf, shelf.only().trust) == (Leaf.read(third), digest(b"three"))


@pytest.mark.row("A-14")
def test_what_an_earlier_generation_has_left_is_stale(shelf: Shelf, csr: str) -> None:
    shelf.ended(csr, b"anchors", shelf.certificate(csr))
    kept, now, containers = shelf.only(), datetime.now(UTC), shelf.containers
    assert containers.stale(now, 1, [kept.trust]) == []
    assert containers.stale(now, 2, [kept.trust]) == [kept]
    assert containers.stale(now, 1, [digest(b"two anchors")]) == [kept]
    containers.failed(kept, "the device is not attached", now + timedelta(minutes=1))
    assert containers.stale(now, 2, [kept.trust]) == []
    containers.retry_now(["filesystem"])
    assert containers.stale(now, 2, [kept.trust]) == []
    containers.retry_now(["adb"])
    assert [each.problem for each in containers.stale(now, 2, [kept.trust])] == ["the device is not attached"]
    assert containers.find(CONTAINER) == containers.stale(now, 2, [kept.trust])[0]
    assert containers.find(attrs.evolve(CONTAINER, medium="filesystem")) is None


def test_what_an_app_has_stored_by_itself_is_noted(shelf: Shelf, csr: str) -> None:
    shelf.ended(csr, b"anchors", first := shelf.certificate(csr))
    second = shelf.certificate(csr)
    shelf.containers.trusts(Leaf.read(first).serial, b"both")
    assert shelf.only().trust == digest(b"both")
    shelf.containers.renewed(Leaf.read(first).serial, second, b"new")
    assert (shelf.only().leaf, shelf.only().trust) == (Leaf.read(second), digest(b"new"))
    found = shelf.containers.by_serial([Leaf.read(first).serial, Leaf.read(second).serial])
    assert list(found) == [Leaf.read(second).serial]


def test_rows_go_with_their_certificates_and_containers(shelf: Shelf, csr: str) -> None:
    shelf.ended(csr, b"anchors", shelf.certificate(csr))
    stale = shelf.only()
    shelf.ended(csr, b"", shelf.certificate(csr))
    shelf.containers.forget(stale)
    assert len(shelf.containers.all()) == 1, "it holds another certificate by now"
    assert shelf.containers.expire(shelf.only().leaf.ends) == 0
    assert shelf.containers.expire(shelf.only().leaf.ends + timedelta(seconds=1)) == 1
    shelf.ended(csr, b"anchors", shelf.certificate(csr))
    shelf.containers.forget(shelf.only())
    assert shelf.containers.all() == []


def test_tries_come_further_apart_up_to_a_limit() -> None:
    now = datetime(2024, 6, 10, tzinfo=UTC)
    assert next_try(0, now) - now == FIRST_PAUSE
    assert next_try(1, now) - now == FIRST_PAUSE * 2
    assert next_try(1000, now) - now == LONGEST_PAUSE


def test_the_table_is_there_after_a_restart(tmp_path: Path) -> None:
    for _ in range(2):
        with State.open(tmp_path / "home" / "state.db") as state:
            assert Containers(state).all() == []


def test_operators_see_when_and_by_whom_a_certificate_is_renewed_and_what_is_in_the_way(shelf: Shelf, csr: str) -> None:
    shelf.ended(csr, b"anchors", shelf.certificate(csr))
    told = shelf.only().describe()
    assert told == {
        "renewal_due": shelf.only().due.isoformat(timespec="seconds"), "renewal_by": "adb", "renewal_problem": None
    }  # fmt: skip
    shelf.containers.failed(shelf.only(), "the device is not attached", datetime.now(UTC))
    shelf.containers.seen({shelf.only().leaf.serial: Sighting("tls", True)})
    told = shelf.only().describe()
    assert (told["renewal_by"], told["renewal_problem"]) == ("session", "the device is not attached")
    assert set(told) == set(NO_RENEWAL)


@pytest.mark.row("A-14")
def test_who_has_which_anchors_is_counted(shelf: Shelf, csr: str) -> None:
    now = datetime.now(UTC)
    assert shelf.containers.informed(now, ["x"]) == (0, 0)
    shelf.ended(csr, b"anchors", shelf.certificate(csr))
    assert shelf.containers.informed(now, [digest(b"anchors"), "x"]) == (1, 1)
    assert shelf.containers.informed(now, ["x"]) == (0, 1)
    assert shelf.containers.informed(shelf.only().leaf.ends, ["x"]) == (0, 0)
