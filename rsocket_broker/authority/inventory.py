"""Every certificate that was ever issued: a row is on the disk before its certificate leaves the authority.

Rows are added from many threads at once. Whoever reaches the database first writes for all who wait, so that one
flush to the disk serves many certificates.
"""

import enum
import hashlib
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from sqlite3 import Connection, Row

import attrs
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from rsocket_broker.audit import Audit, Event
from rsocket_broker.authority.keys import key_fingerprint
from rsocket_broker.authority.profiles import BROKER, CROSS, ROOT
from rsocket_broker.errors import BrokerError
from rsocket_broker.identity import Principal, Proof
from rsocket_broker.state import State

_COMPONENT = "authority"
_STEPS = (
    """
    CREATE TABLE certificates (
        serial TEXT PRIMARY KEY,              -- hex, lower case: 159 bits do not fit an INTEGER
        fingerprint BLOB NOT NULL UNIQUE,     -- SHA-256 of the DER
        generation INTEGER NOT NULL,          -- of the CA that signed it
        profile TEXT NOT NULL,
        subject TEXT NOT NULL,
        app_id TEXT, device_id TEXT, proof TEXT,   -- whom it names; NULL for the CA and the broker
        key_fingerprint TEXT NOT NULL,        -- SHA-256 of the SubjectPublicKeyInfo, hex
        issued INTEGER NOT NULL, not_before INTEGER NOT NULL, not_after INTEGER NOT NULL,   -- seconds since 1970
        status TEXT NOT NULL,
        certificate BLOB NOT NULL             -- DER
    ) STRICT;
    CREATE INDEX certificates_by_app ON certificates (app_id, issued);
    CREATE INDEX certificates_by_profile ON certificates (profile, generation);
    """,
    "ALTER TABLE certificates ADD COLUMN renews TEXT",  # the serial number of the certificate whose place it takes
    """
    ALTER TABLE certificates ADD COLUMN revoked INTEGER;   -- seconds since 1970
    ALTER TABLE certificates ADD COLUMN reason TEXT;       -- why it was revoked, in the operator's words
    CREATE INDEX certificates_by_device ON certificates (device_id);
    CREATE INDEX certificates_revoked ON certificates (generation, not_after) WHERE status = 'revoked';
    """,
)
_NAMES = (
    "serial, fingerprint, generation, profile, subject, app_id, device_id, proof, key_fingerprint, issued, not_before, "
    "not_after, status, certificate, renews"
)
"""The columns of a new row; the others tell what became of it."""


class Status(enum.Enum):
    """What became of a certificate. One that has ended stays `active` here: its dates say so."""

    ACTIVE = "active"
    SUPERSEDED = "superseded"
    """A later certificate of the broker has taken its place."""
    REVOKED = "revoked"
    """The operator has withdrawn it."""


_STATUSES = {status.value: status for status in Status}


@attrs.frozen(slots=True)
class Record:
    """One row: dates are aware and in UTC, fingerprints hex; `principal` is None for the CA and the broker.

    `renews` is the serial number of the certificate that this one was issued to take the place of, at the request of
    its holder; None for one that was issued on a proof of its own. `revoked` and `reason` say when and why it was
    withdrawn.
    """

    serial: int
    fingerprint: str
    generation: int
    profile: str
    subject: str
    principal: Principal | None
    key_fingerprint: str
    issued: datetime
    not_before: datetime
    not_after: datetime
    status: Status
    certificate: bytes = attrs.field(repr=False)
    renews: int | None = None
    revoked: datetime | None = None
    reason: str | None = None

    @property
    def serial_hex(self) -> str:
        return f"{self.serial:x}"


def make_record(
    certificate: x509.Certificate,
    profile: str,
    generation: int,
    issued: datetime,
    principal: Principal | None = None,
    renews: int | None = None,
) -> Record:
    """The row for a certificate that has just been signed."""
    der = certificate.public_bytes(serialization.Encoding.DER)
    return Record(
        serial=certificate.serial_number,
        fingerprint=hashlib.sha256(der).hexdigest(),
        generation=generation,
        profile=profile,
        subject=certificate.subject.rfc4514_string(),
        principal=principal,
        key_fingerprint=key_fingerprint(certificate.public_key()),
        issued=issued,
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
        status=Status.ACTIVE,
        certificate=der,
        renews=renews,
    )


Alongside = Callable[[Connection], object]
"""Writes something more in the transaction of a row."""
Guard = Callable[[Connection], object]
"""Raises what keeps a row from being added, as things stand in the transaction that adds it."""


@attrs.define(eq=False, slots=True)
class _Waiting:
    record: Record
    alongside: Alongside | None
    guard: Guard | None
    done: bool = False
    error: BaseException | None = None


class Inventory:
    """The table of certificates. Every method may be called from any thread."""

    def __init__(self, state: State, audit: Audit | None = None) -> None:
        """`audit` is where each new row is recorded, in its own transaction."""
        self.audit = Audit(state) if audit is None else audit
        self._state = state
        self._queue: list[_Waiting] = []
        self._queue_lock = threading.Lock()
        self._turn = threading.Lock()
        state.migrate(_COMPONENT, _STEPS)

    @property
    def state(self) -> State:
        """The database that it is in."""
        return self._state

    def add(self, record: Record, alongside: Alongside | None = None, guard: Guard | None = None) -> None:
        """Returns when the row is on the disk, and with it what `alongside` has written, on whatever thread.

        Raises HomeError when it cannot be written, sqlite3.IntegrityError when the serial number exists, and what
        `guard` raises: then neither is written, and the rows of others are.
        """
        mine = _Waiting(record, alongside, guard)
        with self._queue_lock:
            self._queue.append(mine)
        with self._turn:
            if not mine.done:
                self._write_queue()
        if mine.error is not None:
            raise mine.error

    def add_server(self, record: Record) -> None:
        """Add the broker's new certificate, and mark the ones before it as superseded, in one step."""
        with self._state.transaction() as database:
            database.execute(
                "UPDATE certificates SET status = ? WHERE profile = ? AND status = ?",
                (Status.SUPERSEDED.value, BROKER, Status.ACTIVE.value),
            )
            self.put(database, record)

    def put(self, database: Connection, record: Record) -> None:
        """Add a row inside the transaction of the caller."""
        database.execute(_INSERT, _to_row(record))
        self.audit.write_all(database, [_told(record)])

    def supersede_root(self, database: Connection, generation: int) -> None:
        """Another certificate of this generation takes the place of its CA certificate, in the caller's transaction."""
        database.execute(
            "UPDATE certificates SET status = ? WHERE profile = ? AND generation = ? AND status = ?",
            (Status.SUPERSEDED.value, ROOT, generation, Status.ACTIVE.value),
        )

    def crosses(self) -> list[Record]:
        """The certificates of one generation for the key of another, the newest last."""
        rows = self._state.read("SELECT * FROM certificates WHERE profile = ? ORDER BY issued, rowid", (CROSS,))
        return [_from_row(row) for row in rows]

    def counts(self, now: datetime, soon: datetime) -> list[tuple[str, str, int, int, int]]:
        """(profile, status, how many, of these valid at `now`, of these no more at `soon`)."""
        rows = self._state.read(
            "SELECT profile, status, COUNT(*), SUM(not_before <= ? AND not_after > ?),"
            " SUM(not_before <= ? AND not_after > ? AND not_after <= ?)"
            " FROM certificates GROUP BY profile, status",
            (at := int(now.timestamp()), at, at, at, int(soon.timestamp())),
        )
        return [(row[0], row[1], row[2], row[3], row[4]) for row in rows]

    def by_fingerprint(self, fingerprint: bytes) -> Record | None:
        """The certificate whose DER has this SHA-256; None when it was never issued here."""
        rows = self._state.read("SELECT * FROM certificates WHERE fingerprint = ?", (fingerprint,))
        return _from_row(rows[0]) if rows else None

    def status(self, fingerprint: bytes) -> Status | None:
        """The status at this moment, which is all of a row that ever changes; None for an unknown certificate."""
        rows = self._state.read("SELECT status FROM certificates WHERE fingerprint = ?", (fingerprint,))
        return _STATUSES[rows[0][0]] if rows else None

    def by_serial(self, serial: int) -> Record | None:
        rows = self._state.read("SELECT * FROM certificates WHERE serial = ?", (f"{serial:x}",))
        return _from_row(rows[0]) if rows else None

    def roots(self) -> dict[int, Record]:
        """The newest CA certificate of each generation that was ever made."""
        rows = self._state.read("SELECT * FROM certificates WHERE profile = ? ORDER BY issued, rowid", (ROOT,))
        return {row["generation"]: _from_row(row) for row in rows}

    def records(self, app_id: str | None = None) -> list[Record]:
        """All certificates, or those of one app, in the order in which they were issued."""
        rows = self._state.read(
            "SELECT * FROM certificates WHERE ? IS NULL OR app_id = ? ORDER BY issued, rowid", (app_id, app_id)
        )
        return [_from_row(row) for row in rows]

    def living(self, now: datetime) -> list[Record]:
        """The certificates of clients that have not ended, revoked ones among them, in the order of issue. Their
        content (`certificate`) is left out: there may be many, and it is the most of them."""
        columns = _NAMES.replace("certificate,", "x'' AS certificate,")
        rows = self._state.read(
            f"SELECT {columns}, revoked, reason FROM certificates"  # noqa: S608 (no value is spliced in)
            " WHERE app_id IS NOT NULL AND not_after >= ? ORDER BY issued, rowid",
            (int(now.timestamp()),),
        )
        return [_from_row(row) for row in rows]

    def _write_queue(self) -> None:
        """Commit every row that waits, this thread's among them. Called by the thread that has the turn."""
        with self._queue_lock:
            batch, self._queue = self._queue, []
        try:
            with self._state.transaction() as database:
                allowed = [waiting for waiting in batch if _is_allowed(waiting, database)]
                database.executemany(_INSERT, [_to_row(waiting.record) for waiting in allowed])
                self.audit.write_all(database, [_told(waiting.record) for waiting in allowed])
                for waiting in allowed:
                    if waiting.alongside is not None:
                        waiting.alongside(database)
        except BaseException as error:
            for waiting in batch:
                waiting.error = error
            raise
        finally:
            for waiting in batch:
                waiting.done = True


def _told(record: Record) -> tuple[Event, dict[str, object]]:
    """A new certificate, as the audit records it."""
    facts: dict[str, object] = {
        "serial": record.serial_hex,
        "profile": record.profile,
        "generation": record.generation,
        "not_after": record.not_after,
    }
    if record.principal is not None:
        facts |= principal_facts(record.principal)
    if record.renews is None:
        return Event.ISSUED, facts
    return Event.RENEWED, {**facts, "renews": f"{record.renews:x}"}


def principal_facts(principal: Principal) -> dict[str, object]:
    """A client as records name it."""
    return {"app_id": principal.app_id, "device_id": principal.device_id, "proof": principal.proof}


def _is_allowed(waiting: _Waiting, database: Connection) -> bool:
    """Whether the guard of a row lets it in; if not, whoever waits is to be told."""
    try:
        if waiting.guard is not None:
            waiting.guard(database)
    except BrokerError as error:
        waiting.error = error
    return waiting.error is None


_MARKS = ", ".join("?" * (_NAMES.count(",") + 1))
_INSERT = f"INSERT INTO certificates ({_NAMES}) VALUES ({_MARKS})"  # noqa: S608 (no value is spliced in)


def _to_row(record: Record) -> tuple[object, ...]:
    principal = record.principal
    return (
        record.serial_hex,
        bytes.fromhex(record.fingerprint),
        record.generation,
        record.profile,
        record.subject,
        principal and principal.app_id,
        principal and principal.device_id,
        principal and principal.proof.value,
        record.key_fingerprint,
        *(int(date.timestamp()) for date in (record.issued, record.not_before, record.not_after)),
        record.status.value,
        record.certificate,
        None if record.renews is None else f"{record.renews:x}",
    )


def _from_row(row: Row) -> Record:
    principal = None
    if row["app_id"] is not None:
        principal = Principal(row["app_id"], row["device_id"], Proof(row["proof"]))
    issued, not_before, not_after = _dates(row, ("issued", "not_before", "not_after"))
    return Record(
        serial=int(row["serial"], 16),
        fingerprint=row["fingerprint"].hex(),
        generation=row["generation"],
        profile=row["profile"],
        subject=row["subject"],
        principal=principal,
        key_fingerprint=row["key_fingerprint"],
        issued=issued,
        not_before=not_before,
        not_after=not_after,
        status=Status(row["status"]),
        certificate=row["certificate"],
        renews=None if row["renews"] is None else int(row["renews"], 16),
        revoked=None if row["revoked"] is None else datetime.fromtimestamp(row["revoked"], UTC),
        reason=row["reason"],
    )


def _dates(row: Row, names: Sequence[str]) -> list[datetime]:
    return [datetime.fromtimestamp(row[name], UTC) for name in names]
