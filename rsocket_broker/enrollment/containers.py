"""The containers that hold a certificate of ours, and the request that it answers: what a renewal is made from.

One row per container, written in the transaction in which its deployment ends, so that it tells of what lies there and
not of what was to lie there. A row goes when its certificate has ended, or its container: then the app must ask again.
"""

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from sqlite3 import Connection, Row
from typing import TypeVar

import attrs

from rsocket_broker.enrollment.leaf import Leaf, delivered
from rsocket_broker.enrollment.mediums.base import Container, JournalEntry
from rsocket_broker.identity import Principal, Proof
from rsocket_broker.moments import timestamp
from rsocket_broker.state import State
from rsocket_broker.transports.base import Channel

RENEWAL_DUE = 2 / 3
"""Of a certificate's life, after which its place is taken by a new one: a device may then be away for ten of thirty
days before its app has to ask again."""
SELF_RENEWAL_DUE = 5 / 6
"""The same where the app renews by itself over its session: it has half of what is left to do so."""

FIRST_PAUSE, LONGEST_PAUSE = timedelta(minutes=1), timedelta(hours=1)
"""Between two tries. A device that comes back is tried at once; this is for what comes back unseen."""

T = TypeVar("T")

MAX_EARLY = 4096
"""Apps that are remembered as seen before their deployment has ended, which is half a second later; and clients that
have none. The oldest are forgotten first."""

_SCHEMA = (
    """
    CREATE TABLE containers (
        medium TEXT NOT NULL,
        location TEXT NOT NULL,
        app_id TEXT NOT NULL,
        device_id TEXT NOT NULL,
        proof TEXT NOT NULL,
        answer TEXT NOT NULL,
        csr TEXT NOT NULL,
        serial TEXT NOT NULL,                 -- of the certificate that lies there; hex
        generation INTEGER NOT NULL,          -- of the CA that signed it
        trust TEXT NOT NULL,                  -- SHA-256 of the anchors that lie there; hex
        begins INTEGER NOT NULL, ends INTEGER NOT NULL,   -- of the certificate; seconds since 1970
        channel TEXT NOT NULL DEFAULT '',     -- on which its app was seen last
        self_renewing INTEGER NOT NULL DEFAULT 0,
        retry INTEGER NOT NULL DEFAULT 0,     -- not to be tried before; seconds since 1970
        failures INTEGER NOT NULL DEFAULT 0,
        problem TEXT NOT NULL DEFAULT '',     -- why the last try came to nothing
        PRIMARY KEY (medium, location)
    ) STRICT;
    CREATE INDEX containers_by_serial ON containers (serial);
    CREATE INDEX containers_by_end ON containers (ends);
    """,
)


@attrs.frozen(slots=True, kw_only=True)
class Kept:
    """One row. `csr` is the request that `leaf` answers; `trust` the digest of the anchors beside it (see `digest`).

    `channel` is the transport on which its app was seen last ("" for not yet); `self_renewing`: the app renews over its
    session. `retry` and `problem` tell of the last try that came to nothing.
    """

    container: Container
    csr: str = attrs.field(repr=False)
    leaf: Leaf
    trust: str
    channel: str = ""
    self_renewing: bool = False
    retry: datetime
    failures: int = 0
    problem: str = ""

    @property
    def principal(self) -> Principal:
        return self.container.principal

    @property
    def knows_one_anchor(self) -> bool:
        """An app with a Flipper SDK of the WebSocket era: of its file of anchors it reads the first certificate."""
        return self.channel == Channel.WSS.value and not self.self_renewing

    def describe(self) -> dict[str, object]:
        """What `ca list` and `clients show` tell of the renewal of its certificate, as JSON."""
        return {
            "renewal_due": timestamp(self.due),
            "renewal_by": "session" if self.self_renewing else self.container.medium,
            "renewal_problem": self.problem or None,
        }

    @property
    def due(self) -> datetime:
        """When its certificate is to be replaced, by the driver at the latest."""
        share = SELF_RENEWAL_DUE if self.self_renewing else RENEWAL_DUE
        return self.leaf.begins + (self.leaf.ends - self.leaf.begins) * share


@attrs.frozen(slots=True)
class Sighting:
    """How an app was seen: the transport of its session, and whether it renews by itself."""

    channel: str
    self_renewing: bool


NO_RENEWAL: Mapping[str, object] = {"renewal_due": None, "renewal_by": None, "renewal_problem": None}
"""What is told of a certificate that lies in no container that we know: nobody renews it but its holder."""


def digest(trust_pem: bytes) -> str:
    """What a set of anchors is told apart by."""
    return hashlib.sha256(trust_pem).hexdigest()


class Containers:
    """The table of containers in `state.db`. Every method may be called from any thread."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._early: dict[int, Sighting] = {}
        self._early_renewals: dict[int, tuple[Leaf, str]] = {}
        """Of those that have no row yet, or never will: how they were seen, and what they have renewed by themselves.
        Only touched within a transaction, which one thread has."""
        state.migrate("containers", _SCHEMA)

    def keep(self, database: Connection, entry: JournalEntry) -> None:
        """A deployment has reached its end, in a transaction of the caller's: what it has delivered lies there now."""
        leaf = delivered(entry)
        if leaf is not None and entry.bundle.trust_pem:
            self._keep_pair(database, entry, leaf)
        elif leaf is not None:
            self._set_leaf(database, leaf, _where(entry.container))
        else:
            database.execute(
                "UPDATE containers SET trust = ?, retry = 0, failures = 0, problem = ''"
                " WHERE medium = ? AND location = ?",
                (digest(entry.bundle.trust_pem), *_where(entry.container)),
            )

    def _keep_pair(self, database: Connection, entry: JournalEntry, leaf: Leaf) -> None:
        container, principal = entry.container, entry.container.principal
        database.execute(
            "INSERT INTO containers (medium, location, app_id, device_id, proof, answer, csr, serial, generation,"
            " trust, begins, ends) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
            " ON CONFLICT DO UPDATE SET app_id = excluded.app_id, device_id = excluded.device_id,"
            " proof = excluded.proof, answer = excluded.answer, csr = excluded.csr, serial = excluded.serial,"
            " generation = excluded.generation, trust = excluded.trust, begins = excluded.begins,"
            " ends = excluded.ends, retry = 0, failures = 0, problem = ''",
            (
                *_where(container),
                principal.app_id,
                principal.device_id,
                principal.proof.value,
                json.dumps(dict(container.answer), sort_keys=True),
                entry.bundle.csr,
                *_leaf_columns(leaf)[:2],
                digest(entry.bundle.trust_pem),
                *_leaf_columns(leaf)[2:],
            ),
        )
        self._catch_up(database, leaf.serial)

    def _catch_up(self, database: Connection, serial: int) -> None:
        """What has happened to this certificate before its row was there."""
        if (sighting := self._early.pop(serial, None)) is not None:
            _note(database, serial, sighting)
        if (renewal := self._early_renewals.pop(serial, None)) is not None:
            _renew(database, serial, *renewal)
            self._catch_up(database, renewal[0].serial)

    @staticmethod
    def _set_leaf(database: Connection, leaf: Leaf, where: tuple[str, str]) -> None:
        database.execute(
            "UPDATE containers SET serial = ?, generation = ?, begins = ?, ends = ?, retry = 0, failures = 0,"
            " problem = '' WHERE medium = ? AND location = ?",
            (*_leaf_columns(leaf), *where),
        )

    def renewed(self, old_serial: int, certificate_pem: bytes, trust_pem: bytes) -> None:
        """The app of the container that holds `old_serial` has put this in its place by itself, anchors included. Where
        that one's deployment is still on its way to the disk, this is remembered until it ends."""
        renewal = Leaf.read(certificate_pem), digest(trust_pem)
        with self._state.transaction() as database:
            if not _renew(database, old_serial, *renewal):
                _remember(self._early_renewals, old_serial, renewal)

    def trusts(self, serial: int, trust_pem: bytes) -> None:
        """The app of the container that holds `serial` has stored these anchors by itself."""
        with self._state.transaction() as database:
            database.execute("UPDATE containers SET trust = ? WHERE serial = ?", (digest(trust_pem), f"{serial:x}"))

    def seen(self, sightings: Mapping[int, Sighting]) -> None:
        """The apps with these certificates (serial numbers) have opened sessions. Those whose deployment is still on
        its way to the disk are remembered until it ends."""
        with self._state.transaction() as database:
            for serial, sighting in sightings.items():
                if not _note(database, serial, sighting):
                    _remember(self._early, serial, sighting)

    def failed(self, kept: Kept, problem: str, retry: datetime) -> None:
        """A try came to nothing; the next one is not to be made before `retry`."""
        with self._state.transaction() as database:
            database.execute(
                "UPDATE containers SET problem = ?, retry = ?, failures = failures + 1"
                " WHERE medium = ? AND location = ? AND serial = ?",
                (problem, int(retry.timestamp()), *_where(kept.container), f"{kept.leaf.serial:x}"),
            )

    def retry_now(self, mediums: Collection[str]) -> None:
        """What could not be reached by these drivers may be reached now."""
        with self._state.transaction() as database:
            database.executemany(
                "UPDATE containers SET retry = 0 WHERE medium = ? AND retry != 0", [(name,) for name in mediums]
            )

    def forget(self, kept: Kept) -> None:
        """The container has gone, or holds another request by now."""
        with self._state.transaction() as database:
            database.execute(
                "DELETE FROM containers WHERE medium = ? AND location = ? AND serial = ?",
                (*_where(kept.container), f"{kept.leaf.serial:x}"),
            )

    def withdraw(self, serials: Collection[int]) -> None:
        """These certificates were revoked: there is nothing to renew in the containers that hold them."""
        with self._state.transaction() as database:
            database.executemany("DELETE FROM containers WHERE serial = ?", [(f"{serial:x}",) for serial in serials])

    def expire(self, now: datetime) -> int:
        """Forget the containers whose certificates have ended; how many there were."""
        ended = self._state.read("SELECT 1 FROM containers WHERE ends < ? LIMIT 1", (int(now.timestamp()),))
        if not ended:
            return 0
        with self._state.transaction() as database:
            return database.execute("DELETE FROM containers WHERE ends < ?", (int(now.timestamp()),)).rowcount

    def all(self) -> list[Kept]:
        """Every container, the one whose certificate ends first in front."""
        return [_kept(row) for row in self._state.read("SELECT * FROM containers ORDER BY ends, medium, location")]

    def stale(self, now: datetime, generation: int, trusts: Collection[str], *, waiting: bool = False) -> list[Kept]:
        """Those that may be tried now and whose certificate is due or of another generation, or beside which lie other
        anchors than one of `trusts` (digests); the one whose certificate ends first in front. With `waiting` also those
        that are not to be tried before later."""
        at = int(now.timestamp())
        marks = ", ".join("?" * len(trusts))
        rows = self._state.read(
            "SELECT * FROM containers WHERE (retry <= ? OR ?) AND ends > ? AND (generation != ?"  # noqa: S608 (marks alone)
            f" OR begins + (ends - begins) * ? <= ? OR trust NOT IN ({marks})) ORDER BY ends, medium, location",
            (at, waiting, at, generation, RENEWAL_DUE, at, *trusts),
        )
        return [_kept(row) for row in rows]

    def informed(self, now: datetime, trusts: Collection[str]) -> tuple[int, int]:
        """How many have anchors of one of these digests beside a certificate that has not ended; and how many of such
        certificates there are."""
        marks = ", ".join("?" * len(trusts))
        rows = self._state.read(
            f"SELECT COALESCE(SUM(trust IN ({marks})), 0), COUNT(*) FROM containers WHERE ends > ?",  # noqa: S608
            (*trusts, int(now.timestamp())),
        )
        return rows[0][0], rows[0][1]

    def find(self, container: Container) -> Kept | None:
        """What is kept of this container now."""
        rows = self._state.read("SELECT * FROM containers WHERE medium = ? AND location = ?", _where(container))
        return _kept(rows[0]) if rows else None

    def by_serial(self, serials: Iterable[int]) -> dict[int, Kept]:
        """The containers that hold these certificates, by serial number."""
        found: dict[int, Kept] = {}
        for serial in serials:
            for row in self._state.read("SELECT * FROM containers WHERE serial = ?", (f"{serial:x}",)):
                found[serial] = _kept(row)
        return found


def next_try(failures: int, now: datetime) -> datetime:
    """When a container is tried again that could not be reached `failures` times before."""
    return now + min(LONGEST_PAUSE, FIRST_PAUSE * (1 << min(failures, 16)))


def _renew(database: Connection, old_serial: int, leaf: Leaf, trust: str) -> bool:
    """Whether there is a container that held the old certificate, and now holds this."""
    done = database.execute(
        "UPDATE containers SET serial = ?, generation = ?, begins = ?, ends = ?, trust = ?, retry = 0,"
        " failures = 0, problem = '' WHERE serial = ?",
        (*_leaf_columns(leaf), trust, f"{old_serial:x}"),
    )
    return done.rowcount > 0


def _remember(early: dict[int, T], serial: int, what: T) -> None:
    early[serial] = what
    while len(early) > MAX_EARLY:
        del early[next(iter(early))]


def _note(database: Connection, serial: int, sighting: Sighting) -> bool:
    """Whether there is a container that holds this certificate. What has not changed costs the disk nothing."""
    known = database.execute("SELECT channel, self_renewing FROM containers WHERE serial = ?", (f"{serial:x}",))
    row, values = known.fetchone(), (sighting.channel, int(sighting.self_renewing))
    if row is not None and tuple(row) != values:
        database.execute(
            "UPDATE containers SET channel = ?, self_renewing = ? WHERE serial = ?", (*values, f"{serial:x}")
        )
    return row is not None


def _where(container: Container) -> tuple[str, str]:
    return container.medium, json.dumps(dict(container.location), sort_keys=True)


def _leaf_columns(leaf: Leaf) -> tuple[str, int, int, int]:
    return f"{leaf.serial:x}", leaf.generation, int(leaf.begins.timestamp()), int(leaf.ends.timestamp())


def _kept(row: Row) -> Kept:
    return Kept(
        container=Container(
            medium=row["medium"],
            principal=Principal(row["app_id"], row["device_id"], Proof(row["proof"])),
            location=json.loads(row["location"]),
            answer=json.loads(row["answer"]),
        ),
        csr=row["csr"],
        leaf=Leaf(
            serial=int(row["serial"], 16),
            generation=row["generation"],
            begins=datetime.fromtimestamp(row["begins"], UTC),
            ends=datetime.fromtimestamp(row["ends"], UTC),
        ),
        trust=row["trust"],
        channel=row["channel"],
        self_renewing=bool(row["self_renewing"]),
        retry=datetime.fromtimestamp(row["retry"], UTC),
        failures=row["failures"],
        problem=row["problem"],
    )
