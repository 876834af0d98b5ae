"""Deployments that were begun, on the disk before the first file is touched, so that a crash leaves none half-done.

One row per container: a new deployment into it takes the place of one that was cut off, whose certificate the app has
no use for any more.
"""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from sqlite3 import Connection, Row

from rsocket_broker.enrollment.leaf import Leaf
from rsocket_broker.enrollment.mediums.base import Bundle, Container, JournalEntry
from rsocket_broker.identity import Principal, Proof
from rsocket_broker.state import State

KEEP = timedelta(days=30)
"""How long a device may stay away with a deployment half-done. Its certificate has ended by then."""

_SCHEMA = (
    """
    CREATE TABLE deployments (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        medium TEXT NOT NULL,
        location TEXT NOT NULL,
        app_id TEXT NOT NULL,
        device_id TEXT NOT NULL,
        proof TEXT NOT NULL,
        answer TEXT NOT NULL,
        csr TEXT NOT NULL,
        trust_pem BLOB NOT NULL,
        certificate_pem BLOB NOT NULL,
        started TEXT NOT NULL,
        UNIQUE (medium, location)
    )
    """,
    """
    CREATE TABLE nonces (
        name TEXT PRIMARY KEY,
        medium TEXT NOT NULL,
        location TEXT NOT NULL,
        app_id TEXT NOT NULL,
        device_id TEXT NOT NULL,
        proof TEXT NOT NULL,
        written TEXT NOT NULL
    ) STRICT, WITHOUT ROWID
    """,
)


class Journal:
    """The deployments in `state.db`. May be called from any thread; `begin` and `end` wait for the disk."""

    def __init__(self, state: State) -> None:
        self._state = state
        state.migrate("enrollment", _SCHEMA)

    def begin(self, container: Container, bundle: Bundle, now: datetime) -> JournalEntry:
        """Record that the bundle is about to be deployed. On the disk when this returns."""
        with self._state.transaction() as database:
            return self.write(database, container, bundle, now)

    def write(
        self, database: Connection, container: Container, bundle: Bundle, now: datetime, leaf: Leaf | None = None
    ) -> JournalEntry:
        """As `begin`, within a transaction of the caller's. `leaf` is what the certificate of the bundle says."""
        principal = container.principal
        cursor = database.execute(
            "INSERT OR REPLACE INTO deployments"
            " (medium, location, app_id, device_id, proof, answer, csr, trust_pem, certificate_pem, started)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                container.medium,
                _to_text(dict(container.location)),
                principal.app_id,
                principal.device_id,
                principal.proof.value,
                _to_text(dict(container.answer)),
                bundle.csr,
                bundle.trust_pem,
                bundle.certificate_pem,
                now.astimezone(UTC).isoformat(),
            ),
        )
        assert cursor.lastrowid is not None
        return JournalEntry(number=cursor.lastrowid, container=container, bundle=bundle, started=now, leaf=leaf)

    def end(self, *entries: JournalEntry, alongside: Callable[[Connection], object] | None = None) -> None:
        """The deployments have come to their ends. One whose place a newer one has taken is passed over.

        `alongside` writes what is then true, in the same transaction.
        """
        with self._state.transaction() as database:
            if alongside is not None:
                alongside(database)
            database.executemany("DELETE FROM deployments WHERE number = ?", [(entry.number,) for entry in entries])

    def pending(self) -> list[JournalEntry]:
        """The deployments that were not seen to end, oldest first."""
        return [_entry(row) for row in self._state.read("SELECT * FROM deployments ORDER BY number")]

    def expire(self, now: datetime) -> list[JournalEntry]:
        """Forget, and return, the deployments whose device has been away for longer than KEEP."""
        old = [entry for entry in self.pending() if now - entry.started > KEEP]
        for entry in old:
            self.end(entry)
        return old

    def begin_nonce(self, container: Container, name: str, now: datetime) -> None:
        """Record that a file with a nonce is about to be written there. On the disk when this returns."""
        principal = container.principal
        with self._state.transaction() as database:
            database.execute(
                "INSERT INTO nonces (name, medium, location, app_id, device_id, proof, written)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    name,
                    container.medium,
                    _to_text(dict(container.location)),
                    principal.app_id,
                    principal.device_id,
                    principal.proof.value,
                    now.astimezone(UTC).isoformat(),
                ),
            )

    def end_nonce(self, name: str) -> None:
        """The file has gone."""
        with self._state.transaction() as database:
            database.execute("DELETE FROM nonces WHERE name = ?", (name,))

    def nonces(self) -> list[tuple[Container, str, datetime]]:
        """(container, file name, when it was written) of the nonces that may still lie somewhere."""
        return [
            (_container(row), row["name"], datetime.fromisoformat(row["written"]))
            for row in self._state.read("SELECT *, '{}' AS answer FROM nonces ORDER BY written")
        ]


def _entry(row: Row) -> JournalEntry:
    return JournalEntry(
        number=row["number"],
        container=_container(row),
        bundle=Bundle(csr=row["csr"], trust_pem=row["trust_pem"], certificate_pem=row["certificate_pem"]),
        started=datetime.fromisoformat(row["started"]),
    )


def _container(row: Row) -> Container:
    return Container(
        medium=row["medium"],
        principal=Principal(row["app_id"], row["device_id"], Proof(row["proof"])),
        location=json.loads(row["location"]),
        answer=json.loads(row["answer"]),
    )


def _to_text(value: dict[str, object]) -> str:
    """Sorted, so that equal locations are equal text."""
    return json.dumps(value, sort_keys=True)
