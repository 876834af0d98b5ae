"""Who is connected, and what happens when someone comes a second time. Time is passed in, in seconds.

The duplicate rule as a table, for a newcomer whose principal (app, device and proof together) has live sessions:

    rule        a Flipper newcomer                      a routed newcomer
    (none)      replaces the older Flipper sessions     comes in beside the others
    replace     replaces all older ones                 replaces all older ones
    refuse      is refused                              is refused
    coexist     comes in beside the others              comes in beside the others

Whoever would come in beside others is held to the limit for one identity, and everyone to the limit in all. A child
session (see `tree`) replaces nobody but its own older line, and is found by its id alone; of one identity there may be
as many children beside each other as there may be sessions with a certificate, so that neither shuts out the other.

Sessions of clients that have proved nothing (`Proof.UNVERIFIED`) are a crowd of their own: they replace only each
other, have a share that counts for nobody else's, and nobody finds them by the names of certified clients.

Where a limit is reached, sessions that are suspended give way, the oldest first: their clients may never come back. Two
clients with one identity that keep replacing each other would do so for ever: after a few rounds the newcomer is
refused, and told why.
"""

import enum
import itertools
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Generic, Protocol, TypeVar

import attrs

from rsocket_broker.errors import ApplicationError, SetupRefused
from rsocket_broker.identity import Identity, Principal

MAX_SESSIONS = 10_000
"""Sessions in all: what one process serves with memory to spare; a leak of connections is found before it hurts."""

MAX_PER_IDENTITY = 32
"""Sessions of one identity: a desktop app with a session for each of its windows, and no more."""

MAX_REPLACEMENTS = 4
REPLACEMENT_WINDOW = 20.0
"""Replacements of one identity within so many seconds: an app that crashes and comes back does it once or twice."""

MAX_UNVERIFIED = 32
"""Sessions of browser and Node apps in all, which anybody on this machine may open: the tabs and processes of a
developer's day. Each may make us hold a message."""

SEARCH_PAUSE = 1.0
"""Seconds between two searches of a full directory for a session that could give way: each looks at every session, and
a crowd that is refused must not cost more than a crowd that is served."""

MAX_REMEMBERED = 10_000
"""Principals whose replacements are remembered; old entries are dropped before that number is passed."""


class Kind(enum.Enum):
    """How a session talks: as Flipper's SDKs do, or by routes alone."""

    FLIPPER = "flipper"
    ROUTED = "routed"


class DuplicateRule(enum.Enum):
    """`serve --duplicate`: one rule for everybody."""

    REPLACE = "replace"
    REFUSE = "refuse"
    COEXIST = "coexist"


@attrs.frozen(slots=True)
class SessionLimits:
    """How many sessions there may be with a certificate at their root, of one identity, and without any certificate.
    1 is a number like any other."""

    total: int = MAX_SESSIONS
    per_identity: int = MAX_PER_IDENTITY
    unverified: int = MAX_UNVERIFIED


class LiveSession(Protocol):
    """What this module needs to know of a session."""

    @property
    def id(self) -> str: ...

    @property
    def identity(self) -> Identity: ...

    @property
    def kind(self) -> Kind: ...

    @property
    def suspended(self) -> bool:
        """Its line is lost, and it may be resumed."""

    @property
    def is_child(self) -> bool:
        """It was opened with a token, below the session of its identity."""


S = TypeVar("S", bound=LiveSession)


def replaced(kind: Kind, older: Sequence[S], rule: DuplicateRule | None) -> list[S]:
    """Which of the `older` sessions of its principal a newcomer of this kind takes the place of. Pure."""
    if rule is DuplicateRule.REPLACE:
        return list(older)
    if rule is None and kind is Kind.FLIPPER:
        return [session for session in older if session.kind is Kind.FLIPPER]
    return []


class LiveSessions(Generic[S]):
    """The directory of sessions. One per broker; not thread-safe: it lives on the event loop."""

    def __init__(self, limits: SessionLimits | None = None, rule: DuplicateRule | None = None) -> None:
        self._limits = limits or SessionLimits()
        self._rule = rule
        self._by_id: dict[str, S] = {}
        self._by_principal: dict[Principal, list[S]] = {}
        self._by_name: dict[str, dict[str, S]] = {}
        self.version = 0
        """Changes with every session that comes or goes: what was found before may not hold now."""
        self._unverified = 0
        self._rounds = {certified: _Rounds() for certified in (True, False)}
        """Apart, so that a crowd that has proved nothing cannot bring those of certified clients into oblivion."""
        self._searched = float("-inf")
        """When all were looked through for one that is suspended, and none was."""

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[S]:
        """Oldest first."""
        return iter(tuple(self._by_id.values()))

    def get(self, session_id: str) -> S | None:
        return self._by_id.get(session_id)

    def of(self, principal: Principal) -> Sequence[S]:
        """The live sessions of one principal, oldest first."""
        return tuple(self._by_principal.get(principal, ()))

    def named(self, spec: str, most: int | None = None) -> Sequence[S]:
        """The sessions that `spec` may mean, found without a search: a session's id, `app_id` or `app_id@device_id`.

        A name does not mean one that is suspended while it fits another: that client has been started again. With
        `most` no more than so many are looked for: thousands may be of one app.
        """
        if spec in self._by_id:
            return (self._by_id[spec],)
        found = self._by_name.get(spec, {}).values()
        here = (one for one in found if not one.suspended)
        return tuple(itertools.islice(here, most)) or tuple(itertools.islice(found, most))

    def admit(self, session: S, now: float, instead: S | None = None) -> list[S]:
        """Take `session` in. Gives the sessions that it replaces: they are out of the directory, and to be closed.

        `instead` is the older line of a child. Raises SetupRefused, and changes nothing, when the duplicate rule or a
        limit says no.
        """
        principal = session.identity.principal
        older = [one for one in self._by_principal.get(principal, ()) if one.is_child is session.is_child]
        if session.is_child:
            leaving = [] if instead is None or instead not in older else [instead]
        else:
            leaving = self._leaving(session, older, now)
        counts = bool(leaving) and not session.is_child
        if principal.certified:
            leaving += self._giving_way([one for one in older if one not in leaving], leaving, now)
        self._check_limits(session, len([one for one in older if one not in leaving]), len(leaving))
        if counts:
            self._rounds[principal.certified].note(principal, now)
        for one in leaving:
            self.remove(one)
        self.version += 1
        self._by_id[session.id] = session
        self._unverified += not principal.certified
        for name in _names(session):
            self._by_name.setdefault(name, {})[session.id] = session
        self._by_principal.setdefault(principal, []).append(session)
        return leaving

    def remove(self, session: S) -> None:
        """Take `session` out; nothing happens when it is out already."""
        if self._by_id.get(session.id) is not session:
            return
        self.version += 1
        del self._by_id[session.id]
        for name in _names(session):
            del self._by_name[name][session.id]
            if not self._by_name[name]:
                del self._by_name[name]
        principal = session.identity.principal
        self._unverified -= not principal.certified
        self._by_principal[principal].remove(session)
        if not self._by_principal[principal]:
            del self._by_principal[principal]

    def find(self, spec: str) -> S:
        """The session that `spec` means: its id, or `app_id[@device_id]` where that fits one session only.

        Raises ApplicationError when it fits none, or several (whose ids are then named).
        """
        found = self.named(spec)
        if len(found) == 1:
            return found[0]
        if not found:
            raise ApplicationError(f'No client "{spec}" is connected. `rsocket-broker clients list` shows who is.')
        names = ", ".join(f"{session.id} ({session.identity.principal})" for session in found[:10])
        raise ApplicationError(f"{spec} means {len(found)} clients: {names}. Name one by its id.")

    def _leaving(self, session: S, older: Sequence[S], now: float) -> list[S]:
        principal = session.identity.principal
        if self._rule is DuplicateRule.REFUSE and not all(one.suspended for one in older):
            raise SetupRefused(f"{principal} has a session already, and this broker refuses a second one.")
        leaving = replaced(session.kind, older, self._rule)
        if leaving and self._rounds[principal.certified].count(principal, now) >= MAX_REPLACEMENTS:
            raise SetupRefused(
                f"{principal} was replaced {MAX_REPLACEMENTS} times in {REPLACEMENT_WINDOW:g} s: two clients use the "
                "same identity and push each other out. Stop one of them, or give it a certificate of its own."
            )
        return leaving

    def _giving_way(self, beside: Sequence[S], leaving: Sequence[S], now: float) -> list[S]:
        """The suspended sessions that make room for a newcomer, of its own identity or, where all is full, of any."""
        room = 1 if self._rule is DuplicateRule.REFUSE else self._limits.per_identity
        away = (one for one in beside if one.suspended)
        chosen = list(itertools.islice(away, max(0, len(beside) + 1 - room)))  # nobody is looked at while there is room
        surplus = len(self._by_id) - self._unverified + 1 - len(leaving) - len(chosen) - self._limits.total
        if surplus > 0 and now - self._searched >= SEARCH_PAUSE:
            gone = {one.id for one in (*leaving, *chosen)}
            others = (one for one in self._by_id.values() if one.suspended and one.id not in gone)
            found = list(itertools.islice(others, surplus))
            if len(found) < surplus:
                self._searched = now
            chosen += found
        return chosen

    def _check_limits(self, session: S, beside: int, leaving: int) -> None:
        limits = self._limits
        if beside >= limits.per_identity:
            what = "child sessions" if session.is_child else "sessions"
            raise SetupRefused(
                f"{session.identity.principal} has {beside} {what}, which is the limit for one identity."
            )
        if not session.identity.principal.certified:
            if self._unverified - leaving >= limits.unverified:
                raise SetupRefused(
                    f"This broker serves {limits.unverified} sessions without a certificate, which is its limit."
                )
        elif len(self._by_id) - self._unverified - leaving >= limits.total:
            raise SetupRefused(f"This broker serves {limits.total} sessions, which is its limit in all. Try later.")


class _Rounds:
    """How often sessions were replaced, by their principal."""

    def __init__(self) -> None:
        self._moments: dict[Principal, deque[float]] = {}

    def note(self, principal: Principal, now: float) -> None:
        self._moments.setdefault(principal, deque(maxlen=MAX_REPLACEMENTS)).append(now)
        self._forget_old(now)

    def count(self, principal: Principal, now: float) -> int:
        """How often within the window."""
        return sum(now - moment < REPLACEMENT_WINDOW for moment in self._moments.get(principal, ()))

    def _forget_old(self, now: float) -> None:
        if len(self._moments) <= MAX_REMEMBERED:
            return
        for principal in [one for one in self._moments if not self.count(one, now)]:
            del self._moments[principal]
        while len(self._moments) > MAX_REMEMBERED:
            del self._moments[next(iter(self._moments))]


def _names(session: LiveSession) -> tuple[str, ...]:
    return () if session.is_child else session.identity.principal.names
