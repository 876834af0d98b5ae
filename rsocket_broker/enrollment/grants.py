"""Grants: leave to enrol for one app, given in advance as a token that is shown once.

Of a token the key that checks its proofs is kept, sealed with another one that lies beside the database in a file of
its own: a copy of the database alone lets nobody enrol, nor tells whether a guess was right. A grant is used up in the
transaction that records the certificate, so that no crash and no crowd makes it work once more, or loses it unused.
"""

import hmac
import os
import secrets
from datetime import UTC, datetime, timedelta
from pathlib import Path
from sqlite3 import Connection, Row

import attrs
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from rsocket_broker.audit import Audit, Event
from rsocket_broker.credentials import APP_ID, MAX_APP_ID
from rsocket_broker.enrollment.exchange import Step
from rsocket_broker.errors import ApplicationError, ConfigurationError, EnrollmentRefused, HomeError
from rsocket_broker.files import check_private_file, locked, read_private, write_private
from rsocket_broker.grant_tokens import ID_BYTES, SECRET_BYTES, SHAPE, proof_key, prove, prove_answer
from rsocket_broker.moments import timestamp
from rsocket_broker.state import State

KEY_FILE = "grants.key"
"""Its name in a home."""
KEY_BYTES = 32
NONCE_BYTES = 12
MAX_USES = 100_000
MAX_LIFE = timedelta(days=365)
"""A token that lies about for longer is a password; renewing it costs one command."""
MAX_GRANTS = 100_000
"""In all, ended ones included: some 20 MB."""
KEPT = timedelta(days=30)
"""How long after its end a grant is remembered, so that whoever shows it is told what became of it."""
MAX_DEVICE_NAME = 256

COMPONENT = "grants"
STEPS = (
    """
    CREATE TABLE grants (
        id TEXT PRIMARY KEY,
        sealed BLOB NOT NULL,            -- nonce and AES-256-GCM of the key of its proofs, bound to the id
        app_id TEXT NOT NULL,
        device TEXT NOT NULL,            -- '' for any
        made INTEGER NOT NULL,           -- seconds since 1970, as the others
        ends INTEGER NOT NULL,
        uses INTEGER NOT NULL,
        used INTEGER NOT NULL DEFAULT 0,
        withdrawn INTEGER
    ) STRICT;
    """,
)

_ASK_AGAIN = "Ask the operator for another one."


@attrs.frozen(slots=True, kw_only=True)
class Grant:
    """What is kept of a grant; nothing in it lets anybody enrol. `device` "" is any. Times are aware, in UTC."""

    id: str
    app_id: str
    device: str
    made: datetime
    ends: datetime
    uses: int
    used: int
    withdrawn: datetime | None

    def state(self, now: datetime) -> str:
        """`open`, or why not: `withdrawn`, `used up`, `over`."""
        if self.withdrawn is not None:
            return "withdrawn"
        if self.used >= self.uses:
            return "used up"
        return "open" if now < self.ends else "over"

    def describe(self, now: datetime) -> dict[str, object]:
        return {
            "id": self.id,
            "app_id": self.app_id,
            "device": self.device or None,
            "state": self.state(now),
            "uses": self.uses,
            "used": self.used,
            "made": timestamp(self.made),
            "ends": timestamp(self.ends),
        }


class Grants:
    """The grants of one home. May be called from any thread; every method waits for the disk."""

    def __init__(self, home: Path, state: State, audit: Audit) -> None:
        """Raises HomeError for a key file that others can read."""
        if os.path.lexists(home / KEY_FILE):
            check_private_file(home / KEY_FILE)
        self._home = home
        self._state = state
        self._audit = audit
        self._seal: _Seal | None = None
        state.migrate(COMPONENT, STEPS)

    def make(
        self, app_id: str, *, now: datetime, life: timedelta, uses: int = 1, device: str = ""
    ) -> tuple[Grant, str]:
        """A new grant and its token, which can be had only here. `device` is the device's id, or a name of it.

        Raises ConfigurationError for what no enrolment could fit, HomeError when it cannot be written.
        """
        check(app_id, life, uses, device)
        number, secret = secrets.token_hex(ID_BYTES), secrets.token_urlsafe(SECRET_BYTES)
        made = now.astimezone(UTC).replace(microsecond=0)
        grant = Grant(
            id=number, app_id=app_id, device=device, made=made, ends=made + life, uses=uses, used=0, withdrawn=None
        )
        sealed = self._load_seal(make_key=True).close(number, proof_key(secret))
        with self._state.transaction() as database:
            database.execute("DELETE FROM grants WHERE ends < ?", (_seconds(made - KEPT),))
            if database.execute("SELECT COUNT(*) FROM grants").fetchone()[0] >= MAX_GRANTS:
                raise ConfigurationError(f"there are {MAX_GRANTS} grants already, which leave {KEPT.days} days after.")
            database.execute(
                "INSERT INTO grants (id, sealed, app_id, device, made, ends, uses) VALUES (?, ?, ?, ?, ?, ?, ?)",
                (number, sealed, app_id, device, _seconds(made), _seconds(grant.ends), uses),
            )
            self._audit.write(
                database,
                Event.GRANT,
                action="made",
                grant=number,
                app_id=app_id,
                device=device,
                ends=grant.ends,
                uses=uses,
            )
        return grant, f"{number}.{secret}"

    def list(self) -> list[Grant]:
        """Those that are remembered, the oldest first."""
        return [_grant(row) for row in self._state.read("SELECT * FROM grants ORDER BY rowid")]

    def withdraw(self, number: str, now: datetime) -> Grant:
        """The grant lets nobody in any more. Raises ApplicationError where there is none, or it has ended already."""
        with self._state.transaction() as database:
            row = database.execute("SELECT * FROM grants WHERE id = ?", (number,)).fetchone()
            if row is None:
                raise ApplicationError(f'There is no grant "{number[:40]}". See: rsocket-broker enrollment grants')
            grant = _grant(row)
            if (state := grant.state(now)) != "open":
                raise ApplicationError(f"The grant {number} is {state} already.")
            database.execute("UPDATE grants SET withdrawn = ? WHERE id = ?", (_seconds(now), number))
            self._audit.write(database, Event.GRANT, action="withdrawn", grant=number, app_id=grant.app_id)
        return attrs.evolve(grant, withdrawn=now)

    # --- enrolling with one ------------------------------------------------------------------------------------------

    def find(self, shown: str, csr: str) -> Grant | None:
        """The grant that `shown` (`ID.PROOF`) proves for that very CSR, whatever its state; None for any other text.

        The time it takes tells nothing of a secret: a key is unsealed and a proof made and compared as a whole, also
        where there is no grant of that id.
        """
        row, _key = self._proven(shown, csr)
        return None if row is None else _grant(row)

    def answer(self, shown: str, csr: str, device_id: str, trust_pem: bytes) -> str | None:
        """What shows the holder of that token that those anchors are ours; None for any other text, as `find`."""
        row, key = self._proven(shown, csr)
        return None if row is None else prove_answer(key, csr, device_id, trust_pem)

    def _proven(self, shown: str, csr: str) -> tuple[Row | None, bytes]:
        parts = SHAPE.fullmatch(shown)
        number, proof = parts.groups() if parts else ("", "")
        rows = self._state.read("SELECT * FROM grants WHERE id = ?", (number,))
        seal = self._load_seal()
        try:
            key = seal.open(number, rows[0]["sealed"]) if rows else seal.open("", seal.decoy)
        except InvalidTag:  # its key file was lost
            key, rows = bytes(KEY_BYTES), []
        same = hmac.compare_digest(prove(key, csr).encode(), proof.encode())
        return (rows[0] if rows and same else None), key

    def use(self, database: Connection, grant: Grant, device_id: str, now: datetime) -> None:
        """One use less, in the transaction that records the certificate, and with it or not at all.

        Raises EnrollmentRefused when there is none left by now; then nothing was changed.
        """
        changed = database.execute(
            "UPDATE grants SET used = used + 1 WHERE id = ? AND used < uses AND withdrawn IS NULL AND ends > ?",
            (grant.id, _seconds(now)),
        ).rowcount
        if not changed:
            row = database.execute("SELECT * FROM grants WHERE id = ?", (grant.id,)).fetchone()
            raise ended("withdrawn" if row is None else _grant(row).state(now))
        self._audit.write(
            database, Event.GRANT, action="used", grant=grant.id, app_id=grant.app_id, device_id=device_id
        )

    def _load_seal(self, *, make_key: bool = False) -> "_Seal":
        """Raises HomeError for a key file that others can read, or that is damaged."""
        if self._seal is not None:
            return self._seal
        key = self._load_key(make_key=make_key)
        if not key:
            return _Seal(secrets.token_bytes(KEY_BYTES))  # a command may make the true one at any moment
        self._seal = _Seal(key)
        return self._seal

    def _load_key(self, *, make_key: bool) -> bytes:
        path = self._home / KEY_FILE
        if not os.path.lexists(path):
            if not make_key:
                return b""  # no grant was ever made here: nothing is sealed with any key
            with locked(self._home):
                if not os.path.lexists(path):
                    write_private(path, secrets.token_bytes(KEY_BYTES))
        key = read_private(path, 2 * KEY_BYTES)
        if len(key) != KEY_BYTES:
            raise HomeError(f"{path} is damaged. Remove it: grants that were not used yet are then worth nothing.")
        return key


def check(app_id: str, life: timedelta, uses: int, device: str = "") -> None:
    """Raises ConfigurationError for a grant that no enrolment could fit, or that would be as good as none."""
    if not APP_ID.fullmatch(app_id):
        raise ConfigurationError(
            f"{app_id[:80]!r} is not an app id: use 1 to {MAX_APP_ID} letters, digits, '_', '.' and '-'."
        )
    if not timedelta(0) < life <= MAX_LIFE:
        raise ConfigurationError(f"a grant lives for up to {MAX_LIFE.days}d.")
    if not 0 < uses <= MAX_USES:
        raise ConfigurationError(f"a grant has 1 to {MAX_USES} uses.")
    if len(device) > MAX_DEVICE_NAME or not device.isprintable():
        raise ConfigurationError(f"a device's name is printable, of up to {MAX_DEVICE_NAME} characters.")


def ended(state: str) -> EnrollmentRefused:
    """The refusal of a grant that was good once."""
    reasons = {"used up": "was used already", "withdrawn": "was withdrawn", "over": "has ended"}
    return EnrollmentRefused(Step.TOKEN, f"the token {reasons[state]}.", _ASK_AGAIN)


class _Seal:
    """Closes the keys of grants, each to be opened for that grant only. `decoy` is one of no grant."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)
        self.decoy = self.close("", bytes(KEY_BYTES))

    def close(self, number: str, key: bytes) -> bytes:
        nonce = secrets.token_bytes(NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, key, number.encode())

    def open(self, number: str, sealed: bytes) -> bytes:
        """Raises InvalidTag for what was closed with another key, or for another grant."""
        return self._cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], number.encode())


def _grant(row: Row) -> Grant:
    return Grant(
        id=row["id"],
        app_id=row["app_id"],
        device=row["device"],
        made=datetime.fromtimestamp(row["made"], UTC),
        ends=datetime.fromtimestamp(row["ends"], UTC),
        uses=row["uses"],
        used=row["used"],
        withdrawn=None if row["withdrawn"] is None else datetime.fromtimestamp(row["withdrawn"], UTC),
    )


def _seconds(moment: datetime) -> int:
    return int(moment.timestamp())
