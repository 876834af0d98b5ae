"""Certificates that are withdrawn before their end, and who gets no new one: what the database knows of both.

A revocation is one transaction: the certificates, the block and the record of it in the audit. Every new row of the
inventory is checked in the transaction that adds it (`guard`), so that whatever is being issued at that moment is
either revoked with the rest or refused.
"""

import enum
import re
from collections.abc import Callable
from datetime import UTC, datetime
from sqlite3 import Connection, Row
from typing import Self

import attrs

from rsocket_broker.audit import Audit, Event
from rsocket_broker.authority.crl import Entry
from rsocket_broker.authority.inventory import Guard, Status
from rsocket_broker.authority.names import check_app_id, check_device_id
from rsocket_broker.authority.profiles import CLIENT_PROFILES
from rsocket_broker.errors import AuthorityError, ConfigurationError, EnrollmentRefused
from rsocket_broker.identity import NO_DEVICE, Identity, Principal
from rsocket_broker.moments import parse_moment
from rsocket_broker.spelling import listed
from rsocket_broker.state import State

COMPONENT = "revocation"
STEPS = (
    """
    CREATE TABLE blocks (
        by TEXT NOT NULL,                 -- client, app or device
        app_id TEXT NOT NULL,             -- '' for a device
        device_id TEXT NOT NULL,          -- '' for an app
        since INTEGER NOT NULL,           -- seconds since 1970
        reason TEXT NOT NULL,
        PRIMARY KEY (by, app_id, device_id)
    ) STRICT;
    """,
)
BLOCKED = "block list"
"""The step of an enrolment that a block refuses."""
UNSPECIFIED = "revoked by the operator"
MAX_REASON = 200
"""Characters: it goes into the log and the audit, and to the app that is refused."""
_HEX = re.compile(r"[0-9a-fA-F]{1,40}", re.ASCII)
"""A serial number has 20 bytes at most (RFC 5280, 4.1.2.2)."""
MAX_NAMED = 5
"""Clients that a text names before it says how many more there are."""


class By(enum.Enum):
    """What a selector names."""

    SERIAL = "serial"
    CLIENT = "client"
    APP = "app"
    DEVICE = "device"
    BEFORE = "all_before"


@attrs.frozen(slots=True)
class Selector:
    """Which certificates are meant. Make one with the method of its kind."""

    by: By
    number: int = 0
    app_id: str = ""
    device_id: str = ""
    moment: datetime | None = None

    @classmethod
    def serial(cls, number: int) -> Self:
        """One certificate, by its serial number."""
        return cls(By.SERIAL, number=number)

    @classmethod
    def client(cls, app_id: str, device_id: str) -> Self:
        """An app on a device, however it was proven. "" is a client without a device."""
        return cls(By.CLIENT, app_id=app_id, device_id=device_id)

    @classmethod
    def app(cls, app_id: str) -> Self:
        """An app on every device. Raises AuthorityError for an id that no certificate can have."""
        check_app_id(_named(app_id, "app"))
        return cls(By.APP, app_id=app_id)

    @classmethod
    def device(cls, device_id: str) -> Self:
        """Every app on a device. Raises AuthorityError for an id that no certificate can have."""
        check_device_id(_named(device_id, "device"))
        return cls(By.DEVICE, device_id=device_id)

    @classmethod
    def all_before(cls, moment: datetime) -> Self:
        """Whatever was issued to clients before an aware moment."""
        return cls(By.BEFORE, moment=moment.astimezone(UTC))

    @property
    def blocks(self) -> bool:
        """Whether who is named gets no new certificate either."""
        return self.by in _BLOCKING

    def names(self, identity: Identity) -> bool:
        """Whether the holder of this certificate is named, or the certificate itself. When it was issued is not told
        by an identity, so `all_before` names none: ask for the serial numbers that were revoked."""
        match self.by:
            case By.SERIAL:
                return identity.serial == self.number
            case By.CLIENT:
                return (identity.app_id, identity.device_id) == (self.app_id, self.device_id)
            case By.APP:
                return identity.app_id == self.app_id
            case By.DEVICE:
                return identity.device_id == self.device_id
            case _:
                return False

    def __str__(self) -> str:
        match self.by:
            case By.SERIAL:
                return f"certificate {self.number:x}"
            case By.CLIENT:
                return f"client {self.app_id}@{self.device_id or NO_DEVICE}"
            case By.APP:
                return f"app {self.app_id}"
            case By.DEVICE:
                return f"device {self.device_id}"
            case _:
                assert self.moment is not None
                return f"all issued before {self.moment:%Y-%m-%d %H:%M:%S} UTC"


_BLOCKING = frozenset({By.CLIENT, By.APP, By.DEVICE})
_WHERE: dict[By, str] = {
    By.SERIAL: "serial = :serial",
    By.CLIENT: "app_id = :app_id AND device_id = :device_id",
    By.APP: "app_id = :app_id",
    By.DEVICE: "device_id = :device_id",
    By.BEFORE: "issued < :issued",
}


@attrs.frozen(slots=True)
class Block:
    """Who gets no certificate until `ca unblock`, since when (aware, UTC), and why."""

    selector: Selector
    since: datetime
    reason: str

    @property
    def remedy(self) -> str:
        """The command that takes it away."""
        who = self.selector
        if who.by is By.CLIENT:
            return f"rsocket-broker ca unblock --client {who.app_id}@{who.device_id or NO_DEVICE}"
        return f"rsocket-broker ca unblock --{who.by.value} {who.app_id or who.device_id}"

    def refusal(self) -> EnrollmentRefused:
        """What the asker is told."""
        return EnrollmentRefused(
            BLOCKED,
            f"{self.selector} was revoked on {self.since:%Y-%m-%d %H:%M} UTC and gets no new certificate"
            f" ({self.reason}).",
            f"Ask whoever runs this broker to allow it again, with: {self.remedy}",
        )


@attrs.frozen(slots=True)
class Revoked:
    """What one revocation changed in the database.

    `serials` were good until now. Where there were none, `before` counts certificates that the selector names and that
    had been revoked earlier. `successors` are the serial numbers of good certificates that were issued to renew a
    single one that was revoked by its number. `time` is aware and in UTC.
    """

    selector: Selector
    reason: str
    time: datetime
    serials: frozenset[int]
    before: int = 0
    blocks: tuple[Block, ...] = ()
    successors: tuple[int, ...] = ()

    def ends(self, identity: Identity) -> bool:
        """Whether the holder of this certificate must go."""
        return identity.serial in self.serials or self.selector.names(identity)


class Revocations:
    """The revoked certificates and the blocks of one home. Every method may be called from any thread."""

    def __init__(self, state: State, audit: Audit, clock: Callable[[], datetime]) -> None:
        """The inventory's tables must be there already."""
        self._state = state
        self._audit = audit
        self._clock = clock
        state.migrate(COMPONENT, STEPS)

    def revoke(self, selector: Selector, reason: str = UNSPECIFIED) -> Revoked:
        """Withdraw every good certificate that `selector` names, and block who is named by it. On the disk when it
        returns; to do it again changes nothing but the block's reason.

        Raises AuthorityError, and nothing is changed, for a serial number that was never issued, has ended, or is that
        of the CA or of the broker itself; HomeError when the disk fails.
        """
        reason, now, is_one = checked_reason(reason), self._clock(), selector.by is By.SERIAL
        with self._state.transaction() as database:
            if is_one:
                _check_serial(database, selector.number, now)
            found = database.execute(
                f"UPDATE certificates SET status = :revoked, revoked = :now, reason = :reason WHERE {_good(selector)}"  # noqa: S608
                " RETURNING serial, app_id, device_id",
                _facts(selector, now) | {"reason": reason},
            ).fetchall()
            serials = [row[0] for row in found]
            before = 0 if serials else _count_revoked(database, selector, now)
            blocks = (self._block(database, selector, reason, now),) if selector.blocks else ()
            self._audit.write(
                database,
                Event.REVOKED,
                reason=reason,
                count=len(serials),
                serials=serials,
                **(_told(selector) | ({"app_id": found[0][1], "device_id": found[0][2]} if is_one and found else {})),
            )
            successors = _successors(database, selector)
        return Revoked(selector, reason, now, frozenset(int(each, 16) for each in serials), before, blocks, successors)

    def _block(self, database: Connection, selector: Selector, reason: str, now: datetime) -> Block:
        database.execute(
            "INSERT INTO blocks VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET reason = excluded.reason",
            (*_key(selector), int(now.timestamp()), reason),
        )
        self._audit.write(database, Event.BLOCKED, reason=reason, **_told(selector))
        row = database.execute("SELECT * FROM blocks WHERE by = ? AND app_id = ? AND device_id = ?", _key(selector))
        return _block_of(row.fetchone())

    def unblock(self, selector: Selector) -> Block:
        """Let whom `selector` names have certificates again; what was revoked stays revoked.

        Raises AuthorityError when no such block is there, naming the ones that are near.
        """
        with self._state.transaction() as database:
            found = database.execute(
                "DELETE FROM blocks WHERE by = ? AND app_id = ? AND device_id = ? RETURNING *", _key(selector)
            ).fetchall()
            if not found:
                raise AuthorityError(f"There is no block of {selector}. {_others(database)}")
            self._audit.write(database, Event.UNBLOCKED, **_told(selector))
        return _block_of(found[0])

    def blocks(self) -> list[Block]:
        """All blocks, the oldest first."""
        return [_block_of(row) for row in self._state.read("SELECT * FROM blocks ORDER BY since, rowid")]

    def blocked(self, principal: Principal) -> Block | None:
        """What keeps this client from getting a certificate; None when nothing does."""
        rows = self._state.read(_BLOCKED, _pair(principal) * 2)
        return _block_of(rows[0]) if rows else None

    def blocked_app(self, app_id: str) -> Block | None:
        """The block of an app as such: all that can be asked before it is known which device it is on."""
        rows = self._state.read("SELECT * FROM blocks WHERE by = 'app' AND app_id = ?", (app_id,))
        return _block_of(rows[0]) if rows else None

    def guard(self, principal: Principal, renews: int | None, condition: Guard | None = None) -> Guard:
        """For the row of a certificate that is issued now. Raises EnrollmentRefused when its client is blocked, and
        AuthorityError when the certificate that it renews is revoked; then asks `condition`."""

        def check(database: Connection) -> None:
            row = database.execute(_BLOCKED, _pair(principal) * 2).fetchone()
            if row is not None:
                raise _block_of(row).refusal()
            if renews is not None:
                _check_renewable(database, renews)
            if condition is not None:
                condition(database)

        return check

    def selector(self, by: By, value: str) -> Selector:
        """From what an operator types. A serial number is in hex, a date in ISO 8601 and in UTC unless it says more.

        Raises AuthorityError, naming what is wrong with it.
        """
        match by:
            case By.SERIAL:
                return Selector.serial(parse_serial(value))
            case By.CLIENT:
                return self.client(value)
            case By.APP:
                return Selector.app(value)
            case By.DEVICE:
                return Selector.device(value)
            case By.BEFORE:
                return Selector.all_before(_moment(value))

    def client(self, spec: str) -> Selector:
        """From `app_id@device_id` (`-` for no device), or `app_id` alone where that app is on one device only, to its
        selector.

        Raises AuthorityError when the app is on none, or on several, which are named.
        """
        app_id, at, device_id = spec.partition("@")
        check_app_id(_named(app_id, "app"))
        if at:
            device_id = "" if device_id == NO_DEVICE else device_id
            check_device_id(device_id)
            return Selector.client(app_id, device_id)
        rows = self._state.read(
            "SELECT DISTINCT device_id FROM certificates WHERE app_id = ? ORDER BY device_id", (app_id,)
        )
        if len(rows) == 1:
            return Selector.client(app_id, rows[0][0])
        if not rows:
            raise AuthorityError(f'No certificate was ever issued to "{app_id}". See: rsocket-broker ca list')
        names = listed([f"{app_id}@{row[0] or NO_DEVICE}" for row in rows], MAX_NAMED)
        raise AuthorityError(
            f"{app_id} is on {len(rows)} devices: {names}. Name one of them, or revoke all of them with --app {app_id}."
        )

    def entries(self, generation: int, since: datetime) -> list[Entry]:
        """The revoked certificates that a generation of the CA has signed and that had not ended `since` then."""
        rows = self._state.read(
            "SELECT serial, revoked, reason FROM certificates"
            " WHERE status = 'revoked' AND generation = ? AND not_after > ? ORDER BY revoked, serial",
            (generation, int(since.timestamp())),
        )
        return [Entry(int(row[0], 16), datetime.fromtimestamp(row[1], UTC), row[2]) for row in rows]


def checked_reason(reason: str) -> str:
    """A reason as it is kept: on one line, bounded. Raises AuthorityError for one that is too long."""
    words = " ".join("".join(letter if letter.isprintable() else " " for letter in reason).split())
    if len(words) > MAX_REASON:
        raise AuthorityError(f"A reason has at most {MAX_REASON} characters.")
    return words or UNSPECIFIED


_BLOCKED = (
    "SELECT * FROM blocks WHERE (by = 'app' AND app_id = ?) OR (by = 'device' AND device_id = ?)"
    " OR (by = 'client' AND app_id = ? AND device_id = ?) LIMIT 1"
)
_OF_CLIENTS = f"profile IN ({', '.join(repr(profile) for profile in CLIENT_PROFILES)})"


def _good(selector: Selector) -> str:
    return f"{_WHERE[selector.by]} AND {_OF_CLIENTS} AND status = :active AND not_after >= :now"


def _told(selector: Selector) -> dict[str, object]:
    """Whom a selector names, as records say it."""
    names = {"app_id": selector.app_id, "device_id": selector.device_id}
    return {"by": selector.by, "whom": str(selector), **{name: value for name, value in names.items() if value}}


def _facts(selector: Selector, now: datetime) -> dict[str, object]:
    """The parameters of `_WHERE` and `_good`."""
    moment = selector.moment
    return {
        "serial": f"{selector.number:x}",
        "app_id": selector.app_id,
        "device_id": selector.device_id,
        "issued": 0 if moment is None else int(moment.timestamp()),
        "active": Status.ACTIVE.value,
        "revoked": Status.REVOKED.value,
        "now": int(now.timestamp()),
    }


def _check_serial(database: Connection, serial: int, now: datetime) -> None:
    row = database.execute(
        "SELECT profile, status, not_after FROM certificates WHERE serial = ?", (f"{serial:x}",)
    ).fetchone()
    if row is None:
        raise AuthorityError(f"No certificate {serial:x} was ever issued here. See: rsocket-broker ca list")
    if row["profile"] not in CLIENT_PROFILES:
        raise AuthorityError(
            f"{serial:x} is a certificate of the broker itself. To replace the CA: rsocket-broker ca rotate"
        )
    ended = datetime.fromtimestamp(row["not_after"], UTC)
    if row["status"] == Status.ACTIVE.value and ended < now:
        raise AuthorityError(f"{serial:x} ended on {ended:%Y-%m-%d}: it is refused anyway.")


def _count_revoked(database: Connection, selector: Selector, now: datetime) -> int:
    row = database.execute(
        f"SELECT COUNT(*) FROM certificates WHERE {_WHERE[selector.by]} AND status = :revoked",  # noqa: S608
        _facts(selector, now),
    ).fetchone()
    return int(row[0])


def _check_renewable(database: Connection, serial: int) -> None:
    row = database.execute("SELECT status FROM certificates WHERE serial = ?", (f"{serial:x}",)).fetchone()
    if row is None or row["status"] != Status.ACTIVE.value:
        raise AuthorityError(f"{serial:x} is not an active certificate, so it cannot be renewed. Enrol again.")


def _successors(database: Connection, selector: Selector) -> tuple[int, ...]:
    """The good certificates that renew the one of a serial number, directly or by others in between."""
    if selector.by is not By.SERIAL:
        return ()
    rows = database.execute(
        "WITH RECURSIVE later (serial) AS (SELECT serial FROM certificates WHERE renews = ? UNION"
        " SELECT each.serial FROM certificates AS each JOIN later ON each.renews = later.serial)"
        " SELECT serial FROM certificates WHERE serial IN later AND status = ? ORDER BY issued",
        (f"{selector.number:x}", Status.ACTIVE.value),
    ).fetchall()
    return tuple(int(row[0], 16) for row in rows)


def _others(database: Connection) -> str:
    rows = database.execute("SELECT * FROM blocks ORDER BY since DESC, rowid DESC").fetchall()
    if not rows:
        return "Nothing is blocked."
    return f"Blocked: {listed([str(_block_of(row).selector) for row in rows], MAX_NAMED)}."


def _key(selector: Selector) -> tuple[str, str, str]:
    """The primary key of its block. Raises AuthorityError for a selector that blocks nobody."""
    if not selector.blocks:
        raise AuthorityError("A block is of a client, an app or a device.")
    return selector.by.value, selector.app_id, selector.device_id


def _pair(principal: Principal) -> tuple[str, str]:
    return principal.app_id, principal.device_id


def _block_of(row: Row) -> Block:
    selector = Selector(By(row["by"]), app_id=row["app_id"], device_id=row["device_id"])
    return Block(selector, datetime.fromtimestamp(row["since"], UTC), row["reason"])


def parse_serial(text: str) -> int:
    """A serial number from its digits in hex. Raises AuthorityError."""
    digits = text.replace(":", "").replace(" ", "")
    if not _HEX.fullmatch(digits):
        raise AuthorityError(f'"{text[:64]}" is not a serial number in hex. See: rsocket-broker ca list')
    return int(digits, 16)


def _moment(text: str) -> datetime:
    try:
        return parse_moment(text)
    except ConfigurationError as error:
        raise AuthorityError(error.public) from None


def _named(text: str, what: str) -> str:
    if not text:
        raise AuthorityError(f"Name the {what}: its id is empty.")
    return text
