"""The directory of sessions, and the duplicate rule as a table."""

from datetime import UTC, datetime

import attrs
import pytest

from rsocket_broker.errors import ApplicationError, SetupRefused
from rsocket_broker.identity import Identity, Principal, Proof
from rsocket_broker.sessions.live import (
    MAX_REPLACEMENTS,
    REPLACEMENT_WINDOW,
    SEARCH_PAUSE,
    DuplicateRule,
    Kind,
    LiveSessions,
    SessionLimits,
)

F, R = Kind.FLIPPER, Kind.ROUTED
REPLACE, REFUSE, COEXIST = DuplicateRule.REPLACE, DuplicateRule.REFUSE, DuplicateRule.COEXIST


@attrs.frozen(eq=False)
class Entry:
    id: str
    identity: Identity
    kind: Kind
    suspended: bool = False
    is_child: bool = False


def entry(
    session_id: str, kind: Kind = R, app_id: str = "app", device_id: str = "device", proof: Proof = Proof.ADB
) -> Entry:
    principal = Principal(app_id, device_id, proof)
    return Entry(session_id, Identity(principal, "client", 1, "", 1, datetime.now(UTC)), kind)


def ids(sessions: LiveSessions[Entry]) -> list[str]:
    return [session.id for session in sessions]


@pytest.mark.row("A-34")
@pytest.mark.parametrize(
    ("rule", "older", "newcomer", "left"),
    [
        (None, [F], F, ["new"]),
        (None, [F], R, ["0", "new"]),
        (None, [R], F, ["0", "new"]),
        (None, [R, R], R, ["0", "1", "new"]),
        (None, [R, F], F, ["0", "new"]),
        (REPLACE, [R], R, ["new"]),
        (REPLACE, [F], R, ["new"]),
        (REFUSE, [R], R, None),
        (REFUSE, [F], F, None),
        (REFUSE, [], F, ["new"]),
        (COEXIST, [F], F, ["0", "new"]),
        (COEXIST, [R], R, ["0", "new"]),
    ],
)
def test_the_rule_for_a_second_session(
    rule: DuplicateRule | None, older: list[Kind], newcomer: Kind, left: list[str] | None
) -> None:
    sessions = LiveSessions[Entry](rule=COEXIST)
    for number, kind in enumerate(older):
        sessions.admit(entry(str(number), kind), 0.0)
    sessions._rule = rule
    if left is None:
        with pytest.raises(SetupRefused, match="has a session already"):
            sessions.admit(entry("new", newcomer), 0.0)
        assert ids(sessions) == [str(number) for number in range(len(older))]
        return
    gone = sessions.admit(entry("new", newcomer), 0.0)
    assert ids(sessions) == left
    assert {one.id for one in gone} == {str(number) for number in range(len(older))} - set(left)


@pytest.mark.row("A-34")
@pytest.mark.parametrize("other", [{"app_id": "b"}, {"device_id": "b"}, {"proof": Proof.FILESYSTEM}])
def test_who_differs_in_anything_that_was_proven_is_someone_else(other: dict[str, object]) -> None:
    sessions = LiveSessions[Entry](SessionLimits(per_identity=1), REPLACE)
    sessions.admit(entry("old", F), 0.0)
    assert sessions.admit(entry("new", F, **other), 0.0) == []  # type: ignore[arg-type]
    assert ids(sessions) == ["old", "new"]


@pytest.mark.row("M-15")
@pytest.mark.parametrize(
    ("limits", "second", "text"),
    [
        (SessionLimits(total=1), entry("new", app_id="other"), "serves 1 sessions, which is its limit in all"),
        (SessionLimits(per_identity=1), entry("new"), r"app@device \(adb\) has 1 sessions, which is the limit for one"),
    ],
)
def test_with_a_limit_of_one_the_second_is_refused_and_the_first_undisturbed(
    limits: SessionLimits, second: Entry, text: str
) -> None:
    sessions = LiveSessions[Entry](limits)
    sessions.admit(entry("old"), 0.0)
    with pytest.raises(SetupRefused, match=text):
        sessions.admit(second, 0.0)
    assert ids(sessions) == ["old"]


def test_who_replaces_needs_no_room_of_its_own() -> None:
    sessions = LiveSessions[Entry](SessionLimits(total=1, per_identity=1))
    sessions.admit(entry("old", F), 0.0)
    assert [one.id for one in sessions.admit(entry("new", F), 0.0)] == ["old"]


@pytest.mark.row("A-34")
def test_two_that_keep_replacing_each_other_are_stopped_and_may_go_on_later() -> None:
    sessions = LiveSessions[Entry]()
    for number in range(MAX_REPLACEMENTS + 1):
        sessions.admit(entry(str(number), F), number * 1.0)
    with pytest.raises(SetupRefused, match="use the same identity and push each other out"):
        sessions.admit(entry("refused", F), 5.0)
    assert ids(sessions) == [str(MAX_REPLACEMENTS)]
    sessions.admit(entry("other", F, app_id="other"), 5.0)
    sessions.admit(entry("later", F), REPLACEMENT_WINDOW + 1.5)
    assert ids(sessions) == ["other", "later"]


def test_leaving_is_leaving_once() -> None:
    sessions = LiveSessions[Entry]()
    old, new = entry("old", F), entry("new", F)
    sessions.admit(old, 0.0)
    sessions.admit(new, 0.0)
    sessions.remove(old)  # it was replaced, and now its connection has gone too
    assert sessions.get("new") is new
    assert sessions.of(new.identity.principal) == (new,)
    sessions.remove(new)
    sessions.remove(new)
    assert len(sessions) == 0
    assert sessions.of(new.identity.principal) == ()


def test_a_client_is_found_by_id_or_by_name_where_that_is_one_only() -> None:
    sessions = LiveSessions[Entry]()
    for one in (entry("c1", app_id="a"), entry("c2", app_id="b", device_id="x"), entry("c3", app_id="b")):
        sessions.admit(one, 0.0)
    assert sessions.find("c2").id == "c2"
    assert sessions.find("a").id == "c1"
    assert sessions.find("b@x").id == "c2"
    with pytest.raises(ApplicationError, match=r"b means 2 clients: c2 \(b@x \(adb\)\), c3"):
        sessions.find("b")
    for spec in ("c9", "b@", "b@nowhere", "A", ""):
        with pytest.raises(ApplicationError, match="No client"):
            sessions.find(spec)


# ---- suspended sessions ------------------------------------------------------------------------------------------


def away(session_id: str, **changes: str) -> Entry:
    return attrs.evolve(entry(session_id, **changes), suspended=True)  # type: ignore[arg-type]


@pytest.mark.row("A-41")
def test_at_the_limit_of_an_identity_its_oldest_suspended_session_gives_way() -> None:
    sessions = LiveSessions[Entry](SessionLimits(per_identity=3))
    for one in (entry("live"), away("first"), away("second")):
        sessions.admit(one, 0.0)
    assert [one.id for one in sessions.admit(entry("new"), 0.0)] == ["first"]
    assert [one.id for one in sessions.admit(entry("newer"), 0.0)] == ["second"]
    with pytest.raises(SetupRefused, match="limit for one identity"):
        sessions.admit(entry("newest"), 0.0)
    assert ids(sessions) == ["live", "new", "newer"]


@pytest.mark.row("A-41")
def test_where_all_is_full_the_oldest_suspended_session_of_anybody_gives_way() -> None:
    sessions = LiveSessions[Entry](SessionLimits(total=3))
    for one in (entry("live"), away("first", app_id="b"), away("second", app_id="c")):
        sessions.admit(one, 0.0)
    assert [one.id for one in sessions.admit(entry("new"), 0.0)] == ["first"]
    assert [one.id for one in sessions.admit(entry("newer"), 0.0)] == ["second"]
    with pytest.raises(SetupRefused, match="limit in all"):
        sessions.admit(entry("newest"), 0.0)
    assert ids(sessions) == ["live", "new", "newer"]


def test_a_crowd_at_a_full_directory_is_refused_without_a_search_each() -> None:
    sessions = LiveSessions[Entry](SessionLimits(total=2))
    lost = entry("lost", app_id="b")
    for one in (entry("live"), lost):
        sessions.admit(one, 0.0)
    with pytest.raises(SetupRefused):
        sessions.admit(entry("new", app_id="c"), 1.0)
    object.__setattr__(lost, "suspended", True)
    with pytest.raises(SetupRefused):
        sessions.admit(entry("new", app_id="c"), 1.0 + SEARCH_PAUSE / 2)
    assert sessions.admit(entry("new", app_id="c"), 1.0 + SEARCH_PAUSE) == [lost]


@pytest.mark.row("A-34", "A-41")
def test_where_a_second_one_is_refused_one_that_is_away_is_no_reason() -> None:
    """An app that crashed and was started again is not locked out until its old session has ended."""
    sessions = LiveSessions[Entry](rule=REFUSE)
    for n in range(MAX_REPLACEMENTS + 2):  # nor is that a fight of two clients
        sessions.admit(away(str(n)), 0.0)
    assert ids(sessions) == [str(MAX_REPLACEMENTS + 1)]
    sessions.admit(entry("live"), 0.0)
    with pytest.raises(SetupRefused, match="has a session already"):
        sessions.admit(entry("new"), 0.0)


@pytest.mark.row("A-41")
def test_a_name_means_the_session_that_is_here() -> None:
    sessions = LiveSessions[Entry]()
    sessions.admit(away("old"), 0.0)
    assert sessions.find("app").id == "old"
    sessions.admit(entry("new"), 0.0)
    assert (sessions.find("app").id, sessions.find("app@device").id, sessions.find("old").id) == ("new", "new", "old")
    sessions.admit(away("older"), 0.0)
    sessions.remove(sessions.find("new"))
    with pytest.raises(ApplicationError, match="means 2 clients"):
        sessions.find("app")


def test_no_more_are_looked_at_than_asked_for() -> None:
    """A client may ask for its whole app, over and over, and there may be thousands of it."""
    looked_at = 0

    class Counting:
        def __init__(self, session_id: str) -> None:
            self.id, self.identity, self.kind, self.is_child = session_id, entry(session_id).identity, R, False

        @property
        def suspended(self) -> bool:
            nonlocal looked_at
            looked_at += 1
            return False

    sessions = LiveSessions[Counting](SessionLimits(per_identity=100))
    for number in range(100):
        sessions.admit(Counting(str(number)), 0.0)
    looked_at = 0
    assert [one.id for one in sessions.named("app", 2)] == ["0", "1"]
    assert looked_at == 2
    assert len(sessions.named("app")) == 100
    absent = LiveSessions[Entry]()
    for name in ("one", "two", "three"):
        absent.admit(away(name), 0.0)
    assert [one.id for one in absent.named("app", 2)] == ["one", "two"]


def test_what_was_found_holds_until_somebody_comes_or_goes() -> None:
    sessions = LiveSessions[Entry]()
    versions = [sessions.version]
    sessions.admit(entry("one"), 0.0)
    versions.append(sessions.version)
    assert [one.id for one in sessions.named("app")] == ["one"]
    sessions.admit(entry("two"), 0.0)
    versions.append(sessions.version)
    assert [one.id for one in sessions.named("app@device")] == ["one", "two"]
    sessions.remove(sessions.find("one"))
    versions.append(sessions.version)
    assert ([one.id for one in sessions.named("app")], sessions.named("one"), sessions.named("x")) == (["two"], (), ())
    assert len(set(versions)) == 4


def child(session_id: str) -> Entry:
    return attrs.evolve(entry(session_id), is_child=True)


@pytest.mark.row("A-30", "A-34")
@pytest.mark.parametrize("rule", [None, REPLACE, REFUSE, COEXIST])
def test_a_child_comes_in_beside_the_session_above_it_whatever_the_rule(rule: DuplicateRule | None) -> None:
    sessions = LiveSessions[Entry](SessionLimits(per_identity=1), rule)
    assert sessions.admit(entry("c1"), 0) == []
    first = child("c2")
    assert sessions.admit(first, 0) == []
    assert ids(sessions) == ["c1", "c2"]
    with pytest.raises(SetupRefused, match="1 child sessions, which is the limit for one identity"):
        sessions.admit(child("c3"), 0)
    assert sessions.admit(child("c4"), 0, instead=first) == [first]
    assert ids(sessions) == ["c1", "c4"]


def test_children_do_not_keep_their_identity_out() -> None:
    sessions = LiveSessions[Entry](SessionLimits(per_identity=1), REPLACE)
    sessions.admit(entry("c1"), 0)
    sessions.admit(child("c2"), 0)
    assert [one.id for one in sessions.admit(entry("c3"), 0)] == ["c1"]
    assert ids(sessions) == ["c2", "c3"]


def test_a_line_that_has_left_is_not_replaced_again() -> None:
    sessions = LiveSessions[Entry]()
    old = child("c2")
    assert sessions.admit(child("c3"), 0, instead=old) == []


def test_a_child_is_found_by_its_id_alone() -> None:
    sessions = LiveSessions[Entry]()
    sessions.admit(entry("c1"), 0)
    sessions.admit(child("c2"), 0)
    assert [one.id for one in sessions.named("app")] == ["c1"]
    assert sessions.find("app").id == "c1"
    assert sessions.find("c2").id == "c2"
    sessions.remove(sessions.find("c2"))
    assert ids(sessions) == ["c1"]


# --- clients that have proved nothing --------------------------------------------------------------------------------

NOTHING = Proof.UNVERIFIED


@pytest.mark.row("M-9", "A-34")
@pytest.mark.parametrize("rule", [None, REPLACE])
def test_what_has_proved_nothing_replaces_only_its_kind(rule: DuplicateRule | None) -> None:
    sessions = LiveSessions[Entry](rule=rule)
    sessions.admit(entry("real", F), 0.0)
    assert sessions.admit(entry("page", F, proof=NOTHING), 0.0) == []
    assert [one.id for one in sessions.admit(entry("again", F, proof=NOTHING), 0.0)] == ["page"]
    assert [one.id for one in sessions.admit(entry("real2", F), 0.0)] == ["real"]
    assert ids(sessions) == ["again", "real2"]


@pytest.mark.row("M-9")
def test_nobody_finds_it_by_the_name_of_a_certified_client() -> None:
    sessions = LiveSessions[Entry]()
    sessions.admit(entry("page", F, proof=NOTHING), 0.0)
    assert not sessions.named("app")
    assert not sessions.named("app@device")
    sessions.admit(entry("real", F), 0.0)
    assert sessions.find("app").id == sessions.find("app@device").id == "real"
    assert sessions.find("unverified:app").id == sessions.find("unverified:app@device").id == "page"


@pytest.mark.row("A-30", "M-15")
def test_it_has_a_share_of_its_own() -> None:
    sessions = LiveSessions[Entry](SessionLimits(total=1, unverified=2))
    away = attrs.evolve(entry("away", device_id="0"), suspended=True)
    sessions.admit(away, 0.0)
    for number in range(2):
        sessions.admit(entry(f"page{number}", F, device_id=str(number), proof=NOTHING), 0.0)
    with pytest.raises(SetupRefused, match="2 sessions without a certificate"):
        sessions.admit(entry("page2", F, device_id="2", proof=NOTHING), 0.0)
    assert sessions.admit(entry("page1", F, device_id="1", proof=NOTHING), 0.0), "its own place is free for it"
    assert away in sessions, "no certified client gives way to one that has proved nothing"
    assert sessions.admit(entry("real", device_id="1"), 1.0) == [away], "and those take no place from it"
    sessions.remove(sessions.find("page0"))
    sessions.admit(entry("page3", F, device_id="3", proof=NOTHING), 0.0)


@pytest.mark.row("A-34")
def test_its_replacements_are_remembered_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rsocket_broker.sessions.live.MAX_REMEMBERED", 2)
    sessions = LiveSessions[Entry]()
    for round_ in range(MAX_REPLACEMENTS + 1):
        sessions.admit(entry(f"real{round_}", F), 0.0)
    for number in range(6):
        sessions.admit(entry(f"page{number}", F, device_id=str(number // 2), proof=NOTHING), 0.0)
    with pytest.raises(SetupRefused, match="push each other out"):
        sessions.admit(entry("real", F), 0.0)
