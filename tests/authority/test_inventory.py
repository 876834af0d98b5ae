import json
import sqlite3
import threading
from datetime import datetime, timedelta
from pathlib import Path

import attrs
import pytest

from rsocket_broker.authority import Authority, CheckedRequest
from rsocket_broker.authority import inventory as module
from rsocket_broker.authority.inventory import Inventory, Record, Status
from rsocket_broker.errors import HomeError
from rsocket_broker.identity import Principal, Proof
from rsocket_broker.state import State
from tests.authority.conftest import START, Clock

MAX_SERIAL = (1 << 159) - 1


def record(serial: int, app_id: str = "org.example.app", profile: str = "client") -> Record:
    return Record(
        serial=serial,
        fingerprint=f"{serial:064x}",
        generation=1,
        profile=profile,
        subject=f"CN={app_id}",
        principal=Principal(app_id, "device", Proof.ADB) if profile == "client" else None,
        key_fingerprint="ab" * 32,
        issued=START,
        not_before=START - timedelta(days=1),
        not_after=START + timedelta(days=30),
        status=Status.ACTIVE,
        certificate=b"DER",
    )


@pytest.fixture
def inventory(state: State) -> Inventory:
    return Inventory(state)


def test_a_record_is_found_again_as_it_was(inventory: Inventory) -> None:
    added = record(MAX_SERIAL)
    inventory.add(added)
    assert inventory.by_serial(MAX_SERIAL) == added
    assert inventory.by_fingerprint(bytes.fromhex(added.fingerprint)) == added
    assert inventory.by_serial(1) is None
    assert inventory.by_fingerprint(b"nothing") is None
    assert inventory.records("org.example.app") == [added]
    assert inventory.records("org.example") == []


@pytest.mark.row("M-12")
def test_a_serial_number_is_used_once(inventory: Inventory) -> None:
    inventory.add(record(5))
    with pytest.raises(sqlite3.IntegrityError):
        inventory.add(attrs.evolve(record(6), serial=5))
    with pytest.raises(sqlite3.IntegrityError):
        inventory.add(attrs.evolve(record(5), serial=7))
    inventory.add(record(8))
    assert [each.serial for each in inventory.records("org.example.app")] == [5, 8]


def test_threads_that_add_at_once_all_find_their_row(inventory: Inventory) -> None:
    missing = []

    def work(first: int) -> None:
        for serial in range(first, first + 25):
            inventory.add(record(serial))
            if inventory.by_serial(serial) is None:
                missing.append(serial)

    threads = [threading.Thread(target=work, args=(1000 * number,)) for number in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert missing == []
    assert len(inventory.records("org.example.app")) == 200


def test_a_commit_that_fails_is_told_to_everyone_who_waits(inventory: Inventory, state: State) -> None:
    """While the writer is busy others queue up; when their batch cannot be written each of them hears of it."""
    told: list[str] = []

    def work(serial: int) -> None:
        try:
            inventory.add(record(serial))
        except (HomeError, sqlite3.Error) as error:
            told.append(type(error).__name__)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(1, 5)]
    with state.transaction() as database:
        for thread in threads:
            thread.start()
        database.execute("ALTER TABLE certificates RENAME TO hidden")
    for thread in threads:
        thread.join()
    assert told == ["HomeError"] * 4


def test_a_new_server_certificate_supersedes_the_old_one(inventory: Inventory) -> None:
    inventory.add_server(record(5, profile="broker"))
    inventory.add_server(record(6, profile="broker"))
    inventory.add(record(7))
    found = {each.serial: each.status for each in inventory.records() if each.serial < 10}
    assert found == {5: Status.SUPERSEDED, 6: Status.ACTIVE, 7: Status.ACTIVE}


def test_roots_are_listed_by_generation(inventory: Inventory, home: Path) -> None:
    assert list(inventory.roots()) == [1]
    assert inventory.roots()[1].profile == "root"


def test_certificates_are_counted_by_what_became_of_them(inventory: Inventory) -> None:
    for serial in (1, 2, 3):
        inventory.add(record(serial))
    day = timedelta(days=1)

    def clients(now: datetime, soon: datetime) -> list[tuple[str, str, int, int, int]]:
        return [row for row in inventory.counts(now, soon) if row[0] == "client"]

    assert clients(START, START + 40 * day) == [("client", "active", 3, 3, 3)]
    assert clients(START, START + 20 * day) == [("client", "active", 3, 3, 0)]
    assert clients(START + 31 * day, START + 40 * day) == [("client", "active", 3, 0, 0)]


@pytest.mark.row("D-4")
def test_what_a_certificate_renews_is_kept_and_older_homes_learn_to(tmp_path: Path) -> None:
    with State.open(tmp_path / "old.db") as old:
        old.migrate("authority", module._STEPS[:1])
        with old.transaction() as database:
            values = (hex(3)[2:], b"f", 1, "client", "CN=x", "x", "d", "adb", "ab", 1, 2, 3, "active", b"DER")
            database.execute(f"INSERT INTO certificates VALUES ({', '.join('?' * 14)})", values)
        found = Inventory(old)
        assert found.by_serial(3) is not None
        assert found.by_serial(3).renews is None  # type: ignore[union-attr]
        found.add(attrs.evolve(record(MAX_SERIAL), renews=3))
        assert found.by_serial(MAX_SERIAL).renews == 3  # type: ignore[union-attr]


@pytest.mark.row("D-14")
def test_each_new_row_is_recorded_with_it_and_one_that_fails_is_not(inventory: Inventory, state: State) -> None:
    def told() -> list[dict[str, object]]:
        rows = state.read("SELECT body FROM audit ORDER BY book, number")
        return [body for body in (json.loads(row["body"]) for row in rows) if body["facts"]["serial"] in "5 6 7"]

    inventory.add(record(5))
    with pytest.raises(sqlite3.IntegrityError):
        inventory.add(attrs.evolve(record(6), serial=5))
    inventory.add(attrs.evolve(record(6), renews=5))
    inventory.add_server(record(7, profile="broker"))
    assert [(each["event"], each["facts"]["profile"]) for each in told()] == [  # type: ignore[index]
        ("issue", "client"),
        ("renew", "client"),
        ("issue", "broker"),
    ]
    assert told()[1]["facts"]["renews"] == "5"  # type: ignore[index]
    assert told()[0]["facts"]["app_id"] == "org.example.app"  # type: ignore[index]


@pytest.mark.row("A-16")
def test_the_living_are_the_clients_whose_certificates_have_not_ended(
    authority: Authority, state: State, clock: Clock, principal: Principal, request_of_app: CheckedRequest
) -> None:
    first = authority.issue(request_of_app, principal)
    clock.advance(days=1)
    second = authority.issue(request_of_app, principal, renews=first.serial)
    inventory = Inventory(state)
    living = inventory.living(clock())
    assert [each.serial for each in living] == [first.serial, second.serial]
    assert [attrs.evolve(each, certificate=b"") for each in inventory.records(principal.app_id)] == living
    assert [each.serial for each in inventory.living(first.not_after + timedelta(hours=1))] == [second.serial]
