"""What `doctor --production` asks of a home: keys, certificates, the clock, backups. Changes nothing.

Each judgement is ok, a should (safe to put off), or a must: while one of these is open, the broker is not fit for it.
What the broker shows to the outside is judged in `exposure`.
"""

import enum
import os
import stat
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import attrs

from rsocket_broker.audit import Event, reading
from rsocket_broker.audit.audit import to_text
from rsocket_broker.audit.reading import Wanted
from rsocket_broker.authority import Authority, Record, Status, key_ring
from rsocket_broker.authority.home import CaHome
from rsocket_broker.authority.imported import YOUNG
from rsocket_broker.authority.profiles import BROKER, CLIENT_PROFILES, ROOT, load_profile
from rsocket_broker.authority.rotation import Phase
from rsocket_broker.state import STATE_FILE, State

LEAF_LIFE = timedelta(days=90)
LONGEST_LEAF_LIFE = timedelta(days=397)
"""What a certificate that leaks is good for if nobody notices. Public CAs are held to these figures too."""
KEY_AGE, OLDEST_KEY = timedelta(days=365), timedelta(days=3 * 365)
"""Of the CA's key. A rotation costs nobody a session, so it can be a yearly habit."""
CA_LEFT, CA_LEAST_LEFT = timedelta(days=90), timedelta(days=30)
ROTATION_OPEN, ROTATION_STUCK = timedelta(days=7), timedelta(days=30)
"""Two CAs are trusted all the while."""
BACKUP_AGE = timedelta(days=30)
IMPORT_AHEAD = timedelta(days=7)
"""Before an imported CA is too old for Android, an operator wants to know."""
NEXT = "Import the next one, with a new key, below the same root: rsocket-broker ca import"
ANDROID = "Flipper's WebSocket SDK on Android"
CLOCK_SLACK = timedelta(minutes=5)
SCANNED = 20_000
"""Files of a home whose times are looked at."""


class Level(enum.Enum):
    OK = "ok"
    SHOULD = "should"
    MUST = "must"


@attrs.frozen(slots=True)
class Judgement:
    """One thing that was judged. `detail` says how it is, and for all but OK how to mend it."""

    what: str
    level: Level
    detail: str


def ok(what: str, detail: str) -> Judgement:
    return Judgement(what, Level.OK, detail)


def should(what: str, detail: str) -> Judgement:
    return Judgement(what, Level.SHOULD, detail)


def must(what: str, detail: str) -> Judgement:
    return Judgement(what, Level.MUST, detail)


def judge_home(home: Path, now: datetime, passphrase_file: Path | None) -> Iterator[Judgement]:
    """Everything that the home itself tells. Raises BrokerError when it cannot be opened."""
    if not CaHome(home).generations() or not (home / STATE_FILE).exists():
        yield must("home", f"{home} has no authority yet. Make it: rsocket-broker ca init")
        return
    yield from judge_soundness(home)
    yield from judge_user(home)
    yield from judge_key_protection(CaHome(home), passphrase_file)
    with State.open(home / STATE_FILE) as state:
        authority = Authority.open(home, state, create=False, hosts=None)
        records = authority.certificates()
        yield from judge_lifetimes(records, now)
        yield from judge_ca(authority, records, now)
        yield from judge_import(authority, CaHome(home), now)
        yield from judge_rotation(authority, now)
        yield from judge_clock(home, records, now)
        yield from judge_backup(state, now)


def judge_soundness(home: Path) -> Iterator[Judgement]:
    """Modes, files, database and audit, as `ca verify` sees them."""
    findings = Authority.verify_home(home)
    faults = [finding for finding in findings if finding.problem is not None and not finding.mends_itself]
    for finding in faults:
        yield must(finding.what, str(finding.problem))
    if not faults:
        yield ok("files and record", f"{len(findings)} checks passed, the audit's chain among them")


def judge_user(home: Path) -> Iterator[Judgement]:
    """Whoever runs it, and whoever could put another home in the place of this one."""
    if os.geteuid() == 0:
        yield should(
            "user", "it is run by root. Give the broker a user of its own, who owns the home and nothing else."
        )
    else:
        yield ok("user", "it is not root")
    open_folder = next((path for path in home.absolute().parents if is_open_to_others(path)), None)
    if open_folder is not None:
        yield must("folders above", f"other users may change {open_folder}. Run: chmod go-w {open_folder}")


def judge_key_protection(ca: CaHome, passphrase_file: Path | None) -> Iterator[Judgement]:
    what = "CA key"
    plain = [str(number) for number, encrypted in ca.encrypted().items() if not encrypted]
    if plain:
        yield must(
            what,
            f"the key of generation {', '.join(plain)} is in the clear: who copies the home, or a backup, has the CA. "
            "Run: rsocket-broker ca passphrase set --keyring (or --passphrase-file FILE)",
        )
    elif passphrase_file is not None and passphrase_file.resolve().is_relative_to(ca.root.resolve()):
        yield must(what, f"its passphrase lies in the home, in {passphrase_file}. Move it elsewhere.")
    elif ca.note() is not None and key_ring.keeps_in_the_clear():
        yield must(
            what, "its passphrase is in a key ring that keeps it in the clear. Use another, or a file elsewhere."
        )
    elif ca.note() is not None:
        yield ok(what, "encrypted, the passphrase is in the key ring")
    else:
        yield ok(what, "encrypted, the passphrase is not in the home")


def judge_lifetimes(records: list[Record], now: datetime) -> Iterator[Judgement]:
    """How long what we hand out is good for, and what has been handed out."""
    for name in (*CLIENT_PROFILES, BROKER):
        yield judge_life(f"profile {name}", load_profile(name).validity, "Shorten validity_days in the profile.")
    live = [
        record
        for record in records
        if record.principal is not None and record.status is Status.ACTIVE and record.not_after > now
    ]
    longest = max(live, key=lambda record: record.not_after - record.not_before, default=None)
    if longest is None:
        yield ok("certificates", "none is out")
        return
    mend = f"Revoke it when its holder has another: rsocket-broker ca revoke {longest.serial_hex}"
    life = longest.not_after - longest.not_before - load_profile(longest.profile).backdate
    yield judge_life(f"certificates ({len(live)} live)", life, mend)


def judge_life(what: str, life: timedelta, mend: str) -> Judgement:
    text = f"up to {life.days} days"
    if life <= LEAF_LIFE:
        return ok(what, text)
    if life <= LONGEST_LEAF_LIFE:
        return should(what, f"{text}; {LEAF_LIFE.days} are enough where renewal is automatic. {mend}")
    return must(what, f"{text}: one that leaks is good for years. {mend}")


def judge_ca(authority: Authority, records: list[Record], now: datetime) -> Iterator[Judgement]:
    """The age of the key that signs, and the end of its certificate and of all above it."""
    own = [record for record in records if record.profile == ROOT and record.generation == authority.generation]
    since = min((record.not_before if authority.is_imported else record.issued for record in own), default=now)
    age = f"its key is in use since {since:%Y-%m-%d}"
    rotate = "Rotate: rsocket-broker ca rotate prepare"
    if now - since > OLDEST_KEY:
        yield must("age of the CA", f"{age}. {rotate}")
    elif now - since > KEY_AGE:
        yield should("age of the CA", f"{age}. {rotate}")
    else:
        yield ok("age of the CA", age)
    ends = min(certificate.not_valid_after_utc for certificate in authority.chain)
    another = "Import the next one: rsocket-broker ca import" if authority.is_imported else rotate
    if ends - now < CA_LEAST_LEFT:
        yield must("end of the CA", f"it ends on {ends:%Y-%m-%d}, and every certificate with it. {another}")
    elif ends - now < CA_LEFT:
        yield should("end of the CA", f"it ends on {ends:%Y-%m-%d}. {another}")
    else:
        yield ok("end of the CA", f"it ends on {ends:%Y-%m-%d}")


def judge_import(authority: Authority, ca: CaHome, now: datetime) -> Iterator[Judgement]:
    """A CA that is the operator's own grows too old for some clients, and nobody here can renew it."""
    above = ca.load_above(authority.generation)
    if above is None:
        return
    what = "imported CA"
    if len(above) > 1:
        yield should(what, f"{ANDROID} takes no chain of this length. Import a CA right below the root.")
        return
    certificate = authority.certificate
    until = certificate.not_valid_before_utc + YOUNG
    if now > until:
        yield should(what, f"{ANDROID} refuses it since {until:%Y-%m-%d}: too old. {NEXT}")
    elif now > until - IMPORT_AHEAD:
        yield should(what, f"{ANDROID} refuses it from {until:%Y-%m-%d} on: too old. {NEXT}")
    else:
        yield ok(what, f"young enough for {ANDROID} until {until:%Y-%m-%d}")


def judge_rotation(authority: Authority, now: datetime) -> Iterator[Judgement]:
    rotation = authority.rotation
    if rotation.phase is Phase.STEADY:
        yield ok("rotation", "none is under way")
        return
    text = f"{rotation.phase.value} since {rotation.since:%Y-%m-%d}, and two CAs are trusted. "
    text += "See: rsocket-broker ca rotate status"
    if now - rotation.since > ROTATION_STUCK:
        yield must("rotation", text)
    elif now - rotation.since > ROTATION_OPEN:
        yield should("rotation", text)
    else:
        yield ok("rotation", text)


def judge_clock(home: Path, records: list[Record], now: datetime) -> Iterator[Judgement]:
    """A clock that was set back makes ended certificates good again."""
    newest = max((record.issued for record in records), default=now)
    latest = max(newest, latest_change(home))
    if latest > now + CLOCK_SLACK:
        yield must(
            "clock",
            f"it says {now:%Y-%m-%d %H:%M} UTC, but this home was written on {latest:%Y-%m-%d %H:%M}. Set it, and "
            "keep it right by NTP: dates decide who is let in.",
        )
    else:
        yield ok("clock", f"{now:%Y-%m-%d %H:%M} UTC, after all that was written here")


def latest_change(home: Path) -> datetime:
    latest, seen = 0.0, 0
    for folder, _, names in os.walk(home):
        for name in names:
            path = Path(folder, name)
            status = path.lstat()
            latest = max(latest, status.st_mtime if stat.S_ISREG(status.st_mode) else 0.0)
            seen += 1
        if seen > SCANNED:
            break
    return datetime.fromtimestamp(latest, UTC)


def judge_backup(state: State, now: datetime) -> Iterator[Judgement]:
    reading.prepare(state)
    since = to_text(now - BACKUP_AGE)
    last = reading.newest(state, Wanted((Event.BACKED_UP.value,), since), 1)
    if last:
        yield ok("backup", f"the last one is of {last[-1].time[:10]}")
    else:
        yield should("backup", f"none in {BACKUP_AGE.days} days. Run: rsocket-broker home backup --out FILE")


def is_open_to_others(path: Path) -> bool:
    """Whether users other than its owner and root may put something else in the place of what is in a folder."""
    try:
        status = path.stat()
    except OSError:
        return False
    sticky = bool(status.st_mode & stat.S_ISVTX) and stat.S_ISDIR(status.st_mode)
    return bool(status.st_mode & 0o022) and not sticky
