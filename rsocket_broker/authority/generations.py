"""The generations of an authority: which sign, which are trusted, and how one takes another's place.

The database says in which phase a home is; the folders hold the keys. A change is one transaction. What belongs to it
on the disk is written beside its place before, and moved or removed after; whoever opens the home next finishes that:

    prepare     the new generation's files are staged; the transaction; they are placed
    switch      the transaction alone
    finish, rollback of `prepared`     the transaction; the dropped generation's files are destroyed
    renewal of a CA certificate        the transaction; the file
"""

import contextlib
import logging
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from sqlite3 import Connection, Row

import attrs
from cryptography import x509

from rsocket_broker import files
from rsocket_broker.audit import Event
from rsocket_broker.authority import keys
from rsocket_broker.authority.arrivals import Arrivals
from rsocket_broker.authority.holders import Holder, find_holders
from rsocket_broker.authority.home import CaHome
from rsocket_broker.authority.inventory import Guard, Inventory, Record, make_record
from rsocket_broker.authority.issue import Issuer, issue_cross, issue_root, renew_root
from rsocket_broker.authority.profiles import CROSS, ROOT, load_profile
from rsocket_broker.authority.rotation import Phase, Rotation, Step
from rsocket_broker.errors import AuthorityError
from rsocket_broker.identity import Principal
from rsocket_broker.spelling import listed
from rsocket_broker.state import State

FIRST_GENERATION = 1
ANCHOR_AGE = timedelta(days=25)
"""From the first day of a CA certificate to its renewal. On the WebSocket port Android refuses one whose first day is
more than 30 days ago; this leaves time for a broker that is started only now and then."""
MAX_NAMED = 10
"""Clients that a refusal names before it says how many more there are."""

COMPONENT = "rotation"
STEPS = (
    """
    CREATE TABLE rotation (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        phase TEXT NOT NULL,
        current INTEGER NOT NULL,    -- the generation that signs
        other INTEGER,               -- the one that is trusted beside it
        since INTEGER NOT NULL       -- seconds since 1970
    ) STRICT;
    """,
)

Clock = Callable[[], datetime]

_log = logging.getLogger(__name__)


class Generations:
    """The generations of one home. Every method may be called from any thread; those that change something lock the
    home against other processes."""

    def __init__(self, home: CaHome, inventory: Inventory, clock: Clock, passphrase: bytes | None) -> None:
        """Use `Generations.open`."""
        self.rotation: Rotation
        self._home = home
        self._inventory = inventory
        self._clock = clock
        self._passphrase = passphrase
        self._changing = threading.RLock()
        """Taken before the lock on the home, by whoever changes something."""
        self._lock = threading.Lock()
        """For the keys at hand."""
        self._issuers: dict[int, Issuer] = {}
        inventory.state.migrate(COMPONENT, STEPS)

    @classmethod
    def open(
        cls, home: CaHome, inventory: Inventory, clock: Clock, passphrase: bytes | None, *, create: bool
    ) -> "Generations":
        """The generations of `home`; the first is made where there is none, and what a killed process left undone is
        done. Needs the lock on the home. Without `create` no key is read, nothing is made, and only what was decided is
        finished.

        Raises HomeError for an unsafe or missing file; AuthorityError when a generation cannot be used.
        """
        opened = cls(home, inventory, clock, passphrase)
        opened._finish_placing()
        if create:
            home.prepare()
            opened._load_or_make()
        else:
            home.settle()
            opened.rotation = opened._stored() or opened._first(_newest(home, inventory))
            _check_present(home, opened.rotation.trusted)
        return opened

    # --- what there is -----------------------------------------------------------------------------------------------

    def issuer(self, generation: int) -> Issuer:
        """A trusted generation with its key, read when it is needed first. Raises HomeError, AuthorityError."""
        with self._lock:
            known = self._issuers.get(generation)
        if known is None:
            known = self._home.load_generation(generation, self._passphrase)
            with self._lock:
                known = self._issuers.setdefault(generation, known)
        return known

    def signer(self) -> Issuer:
        """The generation that signs at present. Raises HomeError, AuthorityError."""
        return self.issuer(self.rotation.current)

    def certificate(self, generation: int) -> x509.Certificate:
        """The certificate that a trusted generation signs with. Needs no key."""
        with self._lock:
            known = self._issuers.get(generation)
        return known.certificate if known is not None else self._home.load_ca_certificate(generation)

    def above(self, generation: int) -> tuple[x509.Certificate, ...]:
        """What is above that certificate, the nearest first and the root last; empty for a root."""
        with self._lock:
            known = self._issuers.get(generation)
        return known.above if known is not None else self._home.load_above(generation) or ()

    def anchor(self, generation: int) -> x509.Certificate:
        """The root that clients of a trusted generation are to trust."""
        return (self.certificate(generation), *self.above(generation))[-1]

    def cross(self) -> x509.Certificate | None:
        """In `switched`: the certificate by the old generation for the anchor of the new one; None where both have one
        anchor."""
        rotation = self.rotation
        if rotation.phase is not Phase.SWITCHED or rotation.previous is None:
            return None
        anchor = self.anchor(rotation.current)
        for record in reversed(self._inventory.crosses()):
            certificate = x509.load_der_x509_certificate(record.certificate)
            same = certificate.subject == anchor.subject and certificate.public_key() == anchor.public_key()
            if record.generation == rotation.previous and same:
                return certificate
        return None

    def holders(self, generation: int, arrivals: Arrivals) -> list[Holder]:
        """The clients that hold no certificate but of `generation`; see `find_holders`."""
        others, now = set(self.rotation.trusted) - {generation}, self._clock()
        return find_holders(self._inventory.living(now), arrivals.all(), generation, others, now)

    def guard(self, generation: int, condition: Guard | None = None) -> Guard:
        """For the row of a certificate that this generation has signed: raises AuthorityError when it was dropped
        meanwhile; then asks `condition`."""

        def check(database: Connection) -> None:
            stored = _from_row(database.execute(_READ).fetchone())
            if stored is not None and generation not in stored.trusted:
                raise AuthorityError("The CA was replaced while it signed. Ask again.")
            if condition is not None:
                condition(database)

        return check

    def due(self) -> datetime:
        """When the current generation's certificate must be renewed; the end of time for one that cannot be."""
        generation = self.rotation.current
        if self._home.load_above(generation) is not None:
            return datetime.max.replace(tzinfo=UTC)
        return self.certificate(generation).not_valid_before_utc + ANCHOR_AGE

    # --- changes -----------------------------------------------------------------------------------------------------

    def prepare(self, imported: Issuer | None = None) -> Issuer:
        """Make the next generation, or take `imported` for it (its number is set here), and have it certified by the
        current one. Raises AuthorityError, HomeError; then nothing was changed."""
        with self._change(Step.PREPARE):
            now, current = self._clock(), self.issuer(self.rotation.current)
            number = max({*self._inventory.roots(), *self._home.generations(), 0}) + 1
            made = _make(number, now) if imported is None else attrs.evolve(imported, generation=number)
            self._check_distinct(made)
            records = [make_record(made.certificate, ROOT, number, now), *self._certified(made, current, now)]
            self._home.stage_generation(made, self._passphrase if self._is_encrypted(current.generation) else None)
            self._move(Step.PREPARE, number, records=records)
            self._issuers[number] = made  # before its files: it counts from now on, whatever the disk says
            self._home.place_generation(number)
            return made

    def switch(self) -> None:
        """Sign with the next generation from now on. Raises AuthorityError, HomeError; then nothing was changed."""
        with self._change(Step.SWITCH):
            assert self.rotation.next is not None
            self.issuer(self.rotation.next)
            self._move(Step.SWITCH)

    def drop(self, step: Step, arrivals: Arrivals, without: Collection[Principal] = ()) -> int | None:
        """`finish` or `rollback`; the generation that was dropped by it, whose key is destroyed.

        Raises AuthorityError, and nothing is changed, when clients hold only what would be dropped and are not among
        `without`.
        """
        with self._change(step):
            dropped = self.rotation.dropped_by(step)
            if dropped is None:
                assert self.rotation.previous is not None
                self.issuer(self.rotation.previous)  # which is to sign again: it must be there, and open
                self._move(step)
                return None

            def check() -> list[str]:
                left = self.holders(dropped, arrivals)
                _check_forced(left, frozenset(without), dropped, step)
                return [str(each.principal) for each in left]

            self._move(step, check=check)
            with self._lock:
                self._issuers.pop(dropped, None)
            self._home.destroy_generation(dropped)
            return dropped

    def renew_anchor(self) -> bool:
        """Give the current generation's certificate new dates if it is due; whether it was. Needs the lock on the home.

        One that an operator imported is left alone.
        """
        now, generation = self._clock(), self.rotation.current
        certificate = self.certificate(generation)
        if certificate.not_valid_before_utc <= now < self.due():
            return False
        issuer = self.issuer(generation)
        if issuer.imported:
            return False
        renewed = renew_root(load_profile(ROOT), issuer, x509.random_serial_number(), now)
        with self._inventory.state.transaction() as database:
            self._inventory.supersede_root(database, generation)
            self._inventory.put(database, make_record(renewed, ROOT, generation, now))
            self._inventory.audit.write(
                database, Event.ANCHOR, generation=generation, serial=f"{renewed.serial_number:x}"
            )
        with self._lock:
            self._issuers[generation] = attrs.evolve(issuer, certificate=renewed)
        self._home.save_ca_certificate(generation, renewed)
        _log.info("renewed the certificate of generation %d of the CA: the key is the same", generation)
        return True

    @contextlib.contextmanager
    def _change(self, step: Step) -> Iterator[None]:
        """Holds the home against other threads and processes, and sees that the phase it is in has the step."""
        with self._changing, files.locked(self._home.root):
            self._reload()
            self.rotation.check(step)
            yield

    def _is_encrypted(self, generation: int) -> bool:
        return keys.is_encrypted(files.read_private(self._home.ca_key(generation)))

    def _move(
        self,
        step: Step,
        made: int | None = None,
        *,
        records: Sequence[Record] = (),
        check: Callable[[], list[str]] | None = None,
    ) -> None:
        """Take `step` in one transaction, with new rows of the inventory and the record of it in the audit. `check` is
        asked inside, when nobody else can write, whom the step shuts out."""
        now = self._clock().replace(microsecond=0)
        with self._inventory.state.transaction() as database:
            stored = _from_row(database.execute(_READ).fetchone())
            assert stored is not None
            shut_out = [] if check is None else check()
            after = stored.after(step, now, made)
            for record in records:
                self._inventory.put(database, record)
            _store(database, after)
            self._inventory.audit.write(
                database,
                Event.ROTATED,
                step=step,
                phase=after.phase,
                generation=after.current,
                other=after.other,
                dropped=stored.dropped_by(step),
                without=shut_out,
            )
        self.rotation = after
        _log.info("%s: the authority is %s, generation %d signs", step.value, after.phase.value, after.current)

    def _certified(self, made: Issuer, current: Issuer, now: datetime) -> list[Record]:
        if made.anchor == current.anchor:
            return []
        serial, below = x509.random_serial_number(), len(made.above)
        cross = issue_cross(load_profile(ROOT), made.anchor, current, serial, now, below=below)
        return [make_record(cross, CROSS, current.generation, now)]

    def _check_distinct(self, made: Issuer) -> None:
        """Two generations of one name, or one key, are one to whoever verifies: the old one would never be gone."""
        fingerprint = keys.key_fingerprint(made.certificate.public_key())
        for number, record in self._inventory.roots().items():
            same_name = x509.load_der_x509_certificate(record.certificate).subject == made.certificate.subject
            if same_name or record.key_fingerprint == fingerprint:
                what = "name" if same_name else "key"
                raise AuthorityError(f"Generation {number} has the same {what}. The next one needs one of its own.")

    # --- opening -----------------------------------------------------------------------------------------------------

    def _load_or_make(self) -> None:
        home, known = self._home, self._inventory.roots()
        if not known and not home.generations():
            first = _make(FIRST_GENERATION, self._clock())
            home.add_generation(first, self._passphrase)
            self._issuers[FIRST_GENERATION] = first
        stored = self._stored()
        self.rotation = rotation = stored or self._first(_newest(home, self._inventory))
        _check_present(home, rotation.trusted)
        self._remove_dropped(known)
        if self._passphrase:
            home.encrypt_keys(self._passphrase)
        for number in rotation.trusted:
            self._check(number, known.get(number))
        if stored is None:
            self._begin(rotation, known)

    def _begin(self, rotation: Rotation, known: dict[int, Record]) -> None:
        """Write down where a home stands that has no word of it, and the CA certificate if that is not known either."""
        with self._inventory.state.transaction() as database:
            if rotation.current not in known:
                certificate = self.issuer(rotation.current).certificate
                self._inventory.put(database, make_record(certificate, ROOT, rotation.current, self._clock()))
            _store(database, rotation)

    def _first(self, generation: int) -> Rotation:
        return Rotation(Phase.STEADY, generation, self._clock().replace(microsecond=0))

    def _stored(self) -> Rotation | None:
        rows = self._inventory.state.read(_READ)
        return _from_row(rows[0]) if rows else None

    def _reload(self) -> None:
        """See what another process has done."""
        stored = self._stored()
        if stored is None:
            with self._inventory.state.transaction() as database:
                _store(database, self.rotation)
        elif stored != self.rotation:
            self.rotation = stored
            with self._lock:
                self._issuers.clear()

    def _finish_placing(self) -> None:
        """Place the generation that was prepared by a process that did not come to that."""
        rotation, staged = self._stored(), self._home.staged()
        if rotation is None or rotation.next is None or staged is None:
            return
        record = self._inventory.roots().get(rotation.next)
        missing = rotation.next not in self._home.generations()
        if missing and record is not None and record.serial == staged.serial_number:
            self._home.place_generation(rotation.next)

    def _remove_dropped(self, known: dict[int, Record]) -> None:
        """Destroy the keys of generations that were dropped by a process that did not come to that."""
        for number in self._home.generations():
            if number in known and number not in self.rotation.trusted:
                self._home.destroy_generation(number)

    def _check(self, number: int, known: Record | None) -> None:
        """The files must be those that the inventory knows, or those of before a renewal that was cut short. A broker
        killed between the first files and their row left no row."""
        issuer, now = self.issuer(number), self._clock()
        if known is not None and known.serial != issuer.certificate.serial_number:
            newest = x509.load_der_x509_certificate(known.certificate)
            if issuer.imported or newest.public_key() != issuer.certificate.public_key():
                raise AuthorityError(
                    f"{self._home.ca_certificate(number)} is not the certificate that the inventory knows. "
                    "Restore the whole home from one backup."
                )
            self._home.save_ca_certificate(number, newest)
            issuer = self._issuers[number] = attrs.evolve(issuer, certificate=newest)
        if issuer.certificate.not_valid_after_utc <= now:
            raise AuthorityError(
                f"The CA certificate in {self._home.ca / str(number)} ended on "
                f"{issuer.certificate.not_valid_after_utc:%Y-%m-%d}. Check this machine's clock; if it is right, move "
                "the home away and enrol every app anew."
            )


_READ = "SELECT phase, current, other, since FROM rotation"


def stored_rotation(state: State) -> Rotation | None:
    """Where a home stands by its database; None for one that has no word of it. Makes no table."""
    if not state.read("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'rotation'"):
        return None
    rows = state.read(_READ)
    return _from_row(rows[0]) if rows else None


def _from_row(row: Row | None) -> Rotation | None:
    if row is None:
        return None
    phase, since = Phase(row["phase"]), datetime.fromtimestamp(row["since"], UTC)
    match phase:
        case Phase.STEADY:
            return Rotation(phase, row["current"], since)
        case Phase.PREPARED:
            return Rotation(phase, row["current"], since, next=row["other"])
        case Phase.SWITCHED:
            return Rotation(phase, row["current"], since, previous=row["other"])


def _store(database: Connection, rotation: Rotation) -> None:
    database.execute(
        "INSERT OR REPLACE INTO rotation VALUES (1, ?, ?, ?, ?)",
        (rotation.phase.value, rotation.current, rotation.other, int(rotation.since.timestamp())),
    )


def _newest(home: CaHome, inventory: Inventory) -> int:
    """The newest generation of a home that has no word of a rotation. Raises AuthorityError when there is none."""
    present = home.generations()
    _check_present(home, inventory.roots())
    if not present:
        raise AuthorityError(f"There is no certificate authority in {home.root}. Make one: rsocket-broker ca init")
    return present[-1]


def _check_present(home: CaHome, wanted: Collection[int]) -> None:
    for generation in sorted(set(wanted) - set(home.generations())):
        raise AuthorityError(
            f"{home.ca_key(generation)} is missing, though the inventory knows generation {generation}. Restore the "
            f"folder {home.ca / str(generation)} from a backup, or move all of {home.root} away to begin anew."
        )


def _make(number: int, now: datetime) -> Issuer:
    profile = load_profile(ROOT)
    assert profile.key is not None
    key = keys.make_key(profile.key)
    return Issuer(number, issue_root(profile, key, number, x509.random_serial_number(), now), key)


def _check_forced(holders: Sequence[Holder], without: Collection[Principal], generation: int, step: Step) -> None:
    """Raises AuthorityError unless everyone whom the step shuts out was named."""
    left = [str(each.principal) for each in holders if each.principal not in without]
    if not left:
        return
    raise AuthorityError(
        f"{len(left)} {'client holds' if len(left) == 1 else 'clients hold'} only certificates of generation "
        f"{generation} and would be shut out: {listed(left, MAX_NAMED)}. Wait until they have come, or name "
        f"those to give up: rsocket-broker ca rotate {step.value} --without CLIENT"
    )
