from datetime import datetime, timedelta

import attrs
import pytest

from rsocket_broker.authority.holders import Holder, find_holders
from rsocket_broker.authority.inventory import Record, Status
from rsocket_broker.identity import Principal, Proof
from tests.authority.conftest import START

APP = Principal("org.example.app", "device-1", Proof.ADB)
OTHER = Principal("org.example.other", "device-1", Proof.ADB)
BY_HAND = Principal("org.example.tool", "", Proof.OPERATOR)
OLD, NEW = 1, 2


def record(serial: int, generation: int, principal: Principal | None = APP, **changes: object) -> Record:
    made = Record(
        serial=serial,
        fingerprint=f"{serial:064x}",
        generation=generation,
        profile="client",
        subject="CN=x",
        principal=principal,
        key_fingerprint=f"key {serial}",
        issued=minute(serial),
        not_before=START,
        not_after=START + timedelta(days=30),
        status=Status.ACTIVE,
        certificate=b"",
    )
    return attrs.evolve(made, **changes)


def minute(number: int) -> datetime:
    return START + timedelta(minutes=number)


def holders(records: list[Record], seen: dict[int, datetime], now: datetime = START) -> list[Principal]:
    return [each.principal for each in find_holders(records, seen, OLD, {NEW}, now)]


@pytest.mark.row("A-16")
def test_who_has_nothing_of_the_new_generation_is_named() -> None:
    records = [record(1, OLD), record(2, OLD, OTHER), record(3, NEW, None)]
    assert find_holders(records, {1: minute(5)}, OLD, {NEW}, START) == [
        Holder(APP, (1,), minute(5), START + timedelta(days=30)),
        Holder(OTHER, (2,), None, START + timedelta(days=30)),
    ]


@pytest.mark.row("A-16")
def test_a_renewal_counts_once_it_has_arrived() -> None:
    records = [record(1, OLD), record(2, NEW, renews=1)]
    assert holders(records, {1: minute(1)}) == [APP]
    assert holders(records, {1: minute(1), 2: minute(3)}) == []


def test_a_certificate_for_the_same_key_is_of_the_same_holder() -> None:
    records = [record(1, OLD, key_fingerprint="k"), record(2, NEW, key_fingerprint="k")]
    assert holders(records, {2: minute(3)}) == []
    assert holders([records[0], attrs.evolve(records[1], principal=OTHER)], {2: minute(3)}) == [APP]


@pytest.mark.parametrize(
    "changes", [{"status": Status.REVOKED}, {"status": Status.SUPERSEDED}, {"not_after": START - timedelta(seconds=1)}]
)
def test_what_is_no_longer_good_holds_nobody_and_saves_nobody(changes: dict[str, object]) -> None:
    assert holders([record(1, OLD, **changes)], {}) == []
    assert holders([record(1, OLD), record(2, NEW, renews=1, **changes)], {2: minute(3)}) == [APP]


def test_an_app_that_was_installed_again_is_not_two_clients() -> None:
    records = [record(1, OLD), record(5, NEW)]
    assert holders(records, {1: minute(1), 5: minute(6)}) == []
    assert holders(records, {1: minute(1)}) == [APP], "the second may never have got there"


@pytest.mark.row("A-16")
def test_two_copies_of_one_app_are_two_holders_while_both_are_in_use() -> None:
    records = [record(1, OLD), record(5, OLD), record(9, NEW, renews=5)]
    assert holders(records, {1: minute(7), 5: minute(6), 9: minute(10)}) == [APP]
    assert holders(records, {1: minute(4), 5: minute(6), 9: minute(10)}) == []


def test_what_was_issued_by_hand_stands_for_itself() -> None:
    records = [record(1, OLD, BY_HAND), record(5, OLD, BY_HAND), record(9, NEW, BY_HAND, renews=5)]
    assert find_holders(records, {5: minute(6), 9: minute(10)}, OLD, {NEW}, START)[0].serials == (1,)


def test_several_lines_of_one_client_are_one_entry() -> None:
    records = [record(1, OLD, BY_HAND), record(2, OLD, BY_HAND, not_after=START + timedelta(days=90))]
    (found,) = find_holders(records, {1: minute(4)}, OLD, set(), START)
    assert found == Holder(BY_HAND, (1, 2), minute(4), START + timedelta(days=90))
