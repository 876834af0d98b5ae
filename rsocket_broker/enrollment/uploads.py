"""What was issued to apps that fetch it: one row for each request, and its sealed bundle until that is fetched.

lying     the bundle is here  --fetched once, by the key of the request-->  fetched
sent      the bundle is with the operator's own service
any       --ends-->  forgotten
"""

import hashlib
import hmac
from datetime import UTC, datetime, timedelta
from sqlite3 import Connection
from typing import Final

from rsocket_broker.credentials import clean
from rsocket_broker.errors import ApplicationError
from rsocket_broker.state import State

KEPT: Final = timedelta(hours=24)
"""How long a bundle lies here, and a repeated request is given the same answer: a day for a phone without a network."""
MAX_ROWS: Final = 10_000
"""Remembered at once; with MAX_BUNDLE each they would take 2.5 GB, and take 60 MB as bundles are."""

COMPONENT: Final = "uploads"
STEPS: Final = (
    """
    CREATE TABLE uploads (
        device_id TEXT NOT NULL,
        csr TEXT PRIMARY KEY,            -- SHA-256 of the request's text, in hex
        key BLOB NOT NULL,               -- SubjectPublicKeyInfo of the request, DER
        bundle BLOB,                     -- sealed; NULL when it is elsewhere, or was fetched
        made INTEGER NOT NULL            -- seconds since 1970
    ) STRICT;
    CREATE INDEX uploads_by_device ON uploads (device_id);
    """,
)


class Uploads:
    """Those of one home. May be called from any thread; every method waits for the disk."""

    def __init__(self, state: State) -> None:
        self._state = state
        state.migrate(COMPONENT, STEPS)

    def put(self, device_id: str, csr: str, key: bytes, bundle: bytes | None, now: datetime) -> None:
        """What was issued for that request: `key` (SPKI, DER), `bundle` None where it lies elsewhere.

        Raises ApplicationError where too many are remembered.
        """
        with self._state.transaction() as database:
            _forget(database, now)
            if database.execute("SELECT COUNT(*) FROM uploads").fetchone()[0] >= MAX_ROWS:
                raise ApplicationError(f"{MAX_ROWS} bundles were left within {KEPT}.")
            database.execute(
                "INSERT OR REPLACE INTO uploads VALUES (?, ?, ?, ?, ?)",
                (device_id, _digest(csr), key, bundle, int(now.timestamp())),
            )

    def answered(self, csr: str, now: datetime) -> str | None:
        """The device id that this very request was answered with, while that is remembered."""
        rows = self._state.read(
            "SELECT device_id FROM uploads WHERE csr = ? AND made > ?", (_digest(csr), _oldest(now))
        )
        return str(rows[0]["device_id"]) if rows else None

    def lying(self, device_id: str, now: datetime) -> tuple[bytes, bytes] | None:
        """(key, bundle) of what lies here for that id, the last one where its key has asked twice; None for everything
        else, whatever the reason."""
        rows = self._state.read(
            "SELECT key, bundle, device_id FROM uploads WHERE device_id = ? AND made > ? AND bundle IS NOT NULL"
            " ORDER BY rowid DESC LIMIT 1",
            (device_id, _oldest(now)),
        )
        if not rows or not hmac.compare_digest(str(rows[0]["device_id"]).encode(), device_id.encode()):
            return None
        return bytes(rows[0]["key"]), bytes(rows[0]["bundle"])

    def take(self, device_id: str, bundle: bytes) -> bool:
        """The bundle was fetched. False when somebody else was first."""
        with self._state.transaction() as database:
            changed = database.execute(
                "UPDATE uploads SET bundle = NULL WHERE device_id = ? AND bundle = ?", (device_id, bundle)
            ).rowcount
        return changed == 1


def _forget(database: Connection, now: datetime) -> None:
    database.execute("DELETE FROM uploads WHERE made <= ?", (_oldest(now),))


def _oldest(now: datetime) -> int:
    return int((now.astimezone(UTC) - KEPT).timestamp())


def _digest(csr: str) -> str:
    return hashlib.sha256(clean(csr).encode("utf-8", "surrogatepass")).hexdigest()
