"""Selectors, revocations and blocks in a database of their own, by a clock that stands."""

import contextlib
import json
import tempfile
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from hypothesis import given, settings
from hypothesis import strategies as st

from rsocket_broker.audit import Audit
from rsocket_broker.authority.inventory import Inventory, Record, Status, make_record
from rsocket_broker.authority.issue import Issuer, issue_leaf, issue_root
from rsocket_broker.authority.names import to_uri
from rsocket_broker.authority.profiles import CLIENT, ROOT, load_profile
from rsocket_broker.authority.revocation import MAX_REASON, UNSPECIFIED, By, Revocations, Selector, checked_reason
from rsocket_broker.errors import AuthorityError, EnrollmentRefused
from rsocket_broker.identity import Identity, Principal, Proof
from rsocket_broker.state import State
from tests.authority.conftest import START, Clock, some_key

A1 = Principal("org.a", "d1", Proof.ADB)
A1_FILES = Principal("org.a", "d1", Proof.FILESYSTEM)
A2 = Principal("org.a", "d2", Proof.ADB)
B1 = Principal("org.b", "d1", Proof.ADB)
BARE = Principal("org.bare", "", Proof.OPERATOR)

Add = Callable[..., Record]


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    key = some_key()
    return Issuer(1, issue_root(load_profile(ROOT), key, 1, 1, START), key)


@pytest.fixture
def inventory(state: State) -> Inventory:
    return Inventory(state)


@pytest.fixture
def revocations(state: State, inventory: Inventory, clock: Clock) -> Revocations:
    return Revocations(state, Audit(state), clock)


@pytest.fixture
def add(inventory: Inventory, revocations: Revocations, issuer: Issuer, clock: Clock) -> Add:
    """`add(principal, renews=None)`: a certificate, as the authority adds it."""

    def one(principal: Principal, renews: int | None = None) -> Record:
        certificate = issue_leaf(
            load_profile(CLIENT),
            some_key("p-256").public_key(),
            [x509.UniformResourceIdentifier(to_uri(principal, 1))],
            issuer,
            x509.random_serial_number(),
            clock(),
            common_name=principal.app_id,
        )
        record = make_record(certificate, CLIENT, 1, clock(), principal, renews)
        inventory.add(record, guard=revocations.guard(principal, renews))
        return record

    return one


def statuses(inventory: Inventory, *records: Record) -> list[str]:
    found = [inventory.by_serial(record.serial) for record in records]
    return [each.status.value for each in found if each is not None]


def identity_of(record: Record) -> Identity:
    assert record.principal is not None
    return Identity(record.principal, CLIENT, record.serial, record.key_fingerprint, 1, record.not_after)


@pytest.mark.row("D-3", "M-12")
@pytest.mark.parametrize(
    ("selector", "gone"),
    [
        (Selector.client("org.a", "d1"), {0, 1}),
        (Selector.app("org.a"), {0, 1, 2}),
        (Selector.device("d1"), {0, 1, 3}),
        (Selector.client("org.bare", ""), {4}),
        (Selector.all_before(START + timedelta(hours=1)), {0, 1, 2, 3, 4}),
        (Selector.all_before(START), set()),
        (Selector.app("org.nobody"), set()),
    ],
    ids=str,
)
def test_who_is_named_is_revoked_and_nobody_else(
    add: Add, inventory: Inventory, revocations: Revocations, selector: Selector, gone: set[int]
) -> None:
    records = [add(one) for one in (A1, A1_FILES, A2, B1, BARE)]
    done = revocations.revoke(selector, "lost")
    assert done.serials == {records[each].serial for each in gone}
    assert [status == "revoked" for status in statuses(inventory, *records)] == [each in gone for each in range(5)]
    assert [done.ends(identity_of(record)) for record in records] == [each in gone for each in range(5)]
    found = inventory.by_serial(records[min(gone)].serial) if gone else None
    assert found is None or (found.reason, found.revoked) == ("lost", START)


@pytest.mark.row("M-12")
def test_by_its_number_only_that_certificate_goes_and_nobody_is_blocked(
    add: Add, inventory: Inventory, revocations: Revocations
) -> None:
    one, other = add(A1), add(A1)
    done = revocations.revoke(Selector.serial(one.serial))
    assert statuses(inventory, one, other) == ["revoked", "active"]
    assert (done.blocks, revocations.blocks(), done.reason) == ((), [], UNSPECIFIED)
    add(A1)


def test_the_certificates_that_a_stolen_one_was_renewed_to_are_named(add: Add, revocations: Revocations) -> None:
    stolen = add(A1)
    renewed = add(A1, stolen.serial)
    again = add(A1, renewed.serial)
    assert set(revocations.revoke(Selector.serial(stolen.serial)).successors) == {renewed.serial, again.serial}
    assert revocations.revoke(Selector.serial(renewed.serial)).successors == (again.serial,)


def test_again_changes_nothing_but_says_so(add: Add, inventory: Inventory, revocations: Revocations) -> None:
    record = add(A1)
    revocations.revoke(Selector.serial(record.serial), "first")
    done = revocations.revoke(Selector.serial(record.serial), "second")
    assert (done.serials, done.before) == (frozenset(), 1)
    found = inventory.by_serial(record.serial)
    assert found is not None and found.reason == "first"
    assert done.ends(identity_of(record)), "whoever is still there goes all the same"


@pytest.mark.parametrize("what", ["unknown", "ended", "of the CA"])
def test_what_cannot_be_revoked_is_said(
    add: Add, inventory: Inventory, revocations: Revocations, clock: Clock, issuer: Issuer, what: str
) -> None:
    serial = add(A1).serial
    if what == "unknown":
        serial += 1
    elif what == "ended":
        clock.advance(days=31)
    else:
        root = next(iter(inventory.roots().values()), None) or make_record(issuer.certificate, ROOT, 1, START)
        if inventory.by_serial(root.serial) is None:
            inventory.add(root)
        serial = root.serial
    with pytest.raises(AuthorityError, match={"unknown": "ever issued", "ended": "ended on"}.get(what, "itself")):
        revocations.revoke(Selector.serial(serial))


@pytest.mark.row("D-3")
@pytest.mark.parametrize(
    ("selector", "free"),
    [
        (Selector.client("org.a", "d1"), [A2, B1]),
        (Selector.app("org.a"), [B1, BARE]),
        (Selector.device("d1"), [A2, BARE]),
    ],
    ids=str,
)
def test_who_is_blocked_gets_no_certificate_until_it_is_unblocked(
    add: Add, revocations: Revocations, selector: Selector, free: list[Principal]
) -> None:
    revocations.revoke(selector, "stolen phone")
    assert [revocations.blocked(one) for one in free] == [None] * len(free)
    for one in free:
        add(one)
    with pytest.raises(EnrollmentRefused, match=r"stolen phone.*Ask whoever runs.*ca unblock --") as refusal:
        add(A1)
    assert refusal.value.step == "block list"
    block = revocations.unblock(selector)
    assert (block.selector, block.reason, block.since) == (selector, "stolen phone", START)
    add(A1)
    with pytest.raises(AuthorityError, match="Nothing is blocked"):
        revocations.unblock(selector)


def test_the_block_of_an_app_is_known_before_its_device_is(revocations: Revocations) -> None:
    revocations.revoke(Selector.device("d1"))
    assert revocations.blocked_app("org.a") is None
    revocations.revoke(Selector.app("org.a"))
    found = revocations.blocked_app("org.a")
    assert found is not None and found.selector.by is By.APP


def test_a_block_that_is_not_there_is_answered_with_those_that_are(revocations: Revocations) -> None:
    revocations.revoke(Selector.app("org.a"))
    with pytest.raises(AuthorityError, match=r"no block of client org.a@d1. Blocked: app org.a"):
        revocations.unblock(Selector.client("org.a", "d1"))
    for selector in (Selector.serial(1), Selector.all_before(START)):
        with pytest.raises(AuthorityError, match="a client, an app or a device"):
            revocations.unblock(selector)


@pytest.mark.row("A-19")
def test_a_revoked_certificate_is_not_renewed(add: Add, revocations: Revocations) -> None:
    record = add(A1)
    revocations.revoke(Selector.serial(record.serial))
    with pytest.raises(AuthorityError, match="not an active certificate"):
        add(A1, record.serial)


def test_a_row_that_is_refused_keeps_no_other_out(
    add: Add, inventory: Inventory, revocations: Revocations, state: State
) -> None:
    """Rows are written for many threads at once."""
    revocations.revoke(Selector.app("org.a"))
    with pytest.raises(EnrollmentRefused):
        add(A1)
    assert add(B1).serial in {each.serial for each in inventory.records()}
    assert not inventory.records("org.a")


def test_a_client_may_be_named_without_its_device_where_there_is_one(add: Add, revocations: Revocations) -> None:
    add(A1), add(B1), add(A2)
    assert revocations.client("org.b") == Selector.client("org.b", "d1")
    assert revocations.client("org.a@d7") == Selector.client("org.a", "d7")
    assert revocations.client("org.a@-") == revocations.client("org.a@") == Selector.client("org.a", "")
    assert str(Selector.client("org.a", "")) == "client org.a@-"
    with pytest.raises(AuthorityError, match=r"2 devices: org.a@d1, org.a@d2"):
        revocations.client("org.a")
    with pytest.raises(AuthorityError, match="ever issued"):
        revocations.client("org.c")
    for empty in (lambda: Selector.app(""), lambda: Selector.device(""), lambda: revocations.client("@d1")):
        with pytest.raises(AuthorityError, match="empty"):
            empty()


@pytest.mark.parametrize("app_id", ["a b", "org.ä", "a" * 256])
def test_nobody_is_blocked_by_an_id_that_no_certificate_can_have(revocations: Revocations, app_id: str) -> None:
    for make in (
        lambda: Selector.app(app_id),
        lambda: revocations.client(app_id),
        lambda: revocations.client(f"{app_id}@d1"),
    ):
        with pytest.raises(AuthorityError, match="1 to 255 letters"):
            make()
    for make in (lambda: Selector.device("ä" + app_id), lambda: revocations.client(f"org.a@ä{app_id}")):
        with pytest.raises(AuthorityError, match="device id"):
            make()


@pytest.mark.row("A-23")
def test_a_list_has_what_is_revoked_and_has_not_ended(add: Add, revocations: Revocations, clock: Clock) -> None:
    first = add(A1)
    revocations.revoke(Selector.serial(first.serial), "key-compromise")
    clock.advance(days=20)
    second = add(A2)
    revocations.revoke(Selector.serial(second.serial), "lost")
    (one, two) = revocations.entries(1, clock())
    assert (one.serial, one.revoked, one.reason) == (first.serial, START, "key-compromise")
    clock.advance(days=20)
    assert revocations.entries(1, clock()) == [two]
    assert revocations.entries(2, clock()) == []


def test_a_revocation_and_its_record_are_one(add: Add, revocations: Revocations, state: State) -> None:
    record = add(A1)
    revocations.revoke(Selector.app("org.a"), "lost")
    rows = state.read("SELECT event, body FROM audit ORDER BY number DESC LIMIT 2")
    assert [row["event"] for row in rows] == ["revoke", "block"]
    facts = json.loads(rows[0]["body"])["facts"]
    assert (facts["count"], facts["serials"], facts["reason"]) == (1, [record.serial_hex], "lost")
    revocations.unblock(Selector.app("org.a"))
    assert state.read("SELECT event FROM audit ORDER BY number DESC LIMIT 1")[0]["event"] == "unblock"


def test_a_reason_is_one_short_line() -> None:
    assert checked_reason(" lost\n in\x1b[2J the  train ") == "lost in [2J the train"
    assert checked_reason(" \n ") == UNSPECIFIED
    with pytest.raises(AuthorityError, match=str(MAX_REASON)):
        checked_reason("x" * (MAX_REASON + 1))


def test_ended_certificates_are_not_counted(
    add: Add, inventory: Inventory, revocations: Revocations, clock: Clock
) -> None:
    ended = add(A1)
    clock.advance(days=31)
    assert revocations.revoke(Selector.app("org.a")).serials == frozenset()
    assert statuses(inventory, ended) == [Status.ACTIVE.value]


@pytest.mark.parametrize(
    ("by", "text", "selector"),
    [
        (By.SERIAL, "AB:cd:01", Selector.serial(0xABCD01)),
        (By.CLIENT, "org.a@d 1", Selector.client("org.a", "d 1")),
        (By.APP, "org.a", Selector.app("org.a")),
        (By.DEVICE, "d1", Selector.device("d1")),
        (By.BEFORE, "2026-03-01", Selector.all_before(START - timedelta(hours=12))),
        (By.BEFORE, "2026-03-01T13:00+01:00", Selector.all_before(START)),
    ],
)
def test_what_an_operator_types_names_what_is_meant(
    revocations: Revocations, by: By, text: str, selector: Selector
) -> None:
    assert revocations.selector(by, text) == selector


@pytest.mark.parametrize(
    ("by", "text", "words"),
    [(By.SERIAL, "xyz", "in hex"), (By.SERIAL, "1" * 41, "in hex"), (By.BEFORE, "yesterday", "not a date")],
)
def test_what_an_operator_mistypes_is_said(revocations: Revocations, by: By, text: str, words: str) -> None:
    with pytest.raises(AuthorityError, match=words):
        revocations.selector(by, text)


# ---- any order of events, against a model that only counts ----------------------------------------------------------

APPS, DEVICES, PROOFS = ("org.a", "org.b"), ("d1", "d2"), (Proof.ADB, Proof.UPLOAD)
CLIENTS = st.builds(Principal, st.sampled_from(APPS), st.sampled_from(DEVICES), st.sampled_from(PROOFS))
WHOM = st.one_of(
    st.builds(Selector.client, st.sampled_from(APPS), st.sampled_from(DEVICES)),
    st.builds(Selector.app, st.sampled_from(APPS)),
    st.builds(Selector.device, st.sampled_from(DEVICES)),
)
EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("issue"), CLIENTS),
        st.tuples(st.sampled_from(("renew", "revoke_one", "revoke_before")), st.integers(0, 20)),
        st.tuples(st.sampled_from(("revoke", "unblock")), WHOM),
        st.tuples(st.just("wait"), st.integers(1, 20)),
    ),
    max_size=25,
)
LIFE = timedelta(days=30)


class World:
    """A database, and beside it what should be in it: certificates with holder and age, and who is blocked."""

    def __init__(self, state: State) -> None:
        self.clock = Clock()
        self.inventory = Inventory(state)
        self.revocations = Revocations(state, self.inventory.audit, self.clock)
        self.issued: list[tuple[int, Principal, datetime]] = []
        self.revoked: set[int] = set()
        self.blocks: set[Selector] = set()

    def _good(self, serial: int) -> bool:
        return serial not in self.revoked and self.clock.now <= self.issued[serial - 1][2] + LIFE

    def issue(self, who: Principal, renews: int | None = None) -> None:
        serial, now = len(self.issued) + 1, self.clock.now
        dates = (now, now, now + LIFE)
        record = Record(serial, f"{serial:064x}", 1, CLIENT, "CN=x", who, "ab", *dates, Status.ACTIVE, b"", renews)
        allowed = renews not in self.revoked and not any(names(block, who) for block in self.blocks)
        with contextlib.nullcontext() if allowed else pytest.raises((EnrollmentRefused, AuthorityError)):
            self.inventory.add(record, guard=self.revocations.guard(who, renews))
            self.issued.append((serial, who, now))

    def renew(self, number: int) -> None:
        if number < len(self.issued):
            self.issue(self.issued[number][1], self.issued[number][0])

    def revoke_one(self, number: int) -> None:
        if number < len(self.issued) and (self._good(number + 1) or number + 1 in self.revoked):
            self._revoke(Selector.serial(number + 1), {number + 1})

    def revoke(self, whom: Selector) -> None:
        self._revoke(whom, {serial for serial, who, _ in self.issued if names(whom, who)})
        self.blocks.add(whom)

    def revoke_before(self, days: int) -> None:
        moment = START + timedelta(days=days)
        self._revoke(Selector.all_before(moment), {serial for serial, _, when in self.issued if when < moment})

    def _revoke(self, selector: Selector, meant: set[int]) -> None:
        gone = {serial for serial in meant if self._good(serial)}
        assert self.revocations.revoke(selector).serials == gone
        self.revoked |= gone

    def unblock(self, whom: Selector) -> None:
        with contextlib.nullcontext() if whom in self.blocks else pytest.raises(AuthorityError):
            self.revocations.unblock(whom)
        self.blocks.discard(whom)

    def wait(self, days: int) -> None:
        self.clock.advance(days=days)

    def check(self) -> None:
        now = self.clock.now
        expected = {serial for serial in self.revoked if self.issued[serial - 1][2] + LIFE > now}
        assert {entry.serial for entry in self.revocations.entries(1, now)} == expected
        assert {block.selector for block in self.revocations.blocks()} == self.blocks


def names(selector: Selector, who: Principal) -> bool:
    return selector.names(Identity(who, CLIENT, 0, "", 1, START))


@pytest.mark.row("D-3", "A-19")
@settings(max_examples=60, deadline=None)
@given(events=EVENTS)
def test_whatever_happens_in_whatever_order_is_as_in_the_model(events: list[tuple[str, Any]]) -> None:
    with tempfile.TemporaryDirectory() as folder, State.open(Path(folder, "home") / "state.db") as state:
        world = World(state)
        for what, about in events:
            getattr(world, what)(about)
            world.check()
