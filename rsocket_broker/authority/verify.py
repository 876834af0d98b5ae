"""Is this home sound, and is that certificate ours? Looks at everything, changes nothing, and goes on after a fault."""

import contextlib
import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import ParamSpec

import attrs
from cryptography import x509

from rsocket_broker import files
from rsocket_broker.audit import reading
from rsocket_broker.authority import server
from rsocket_broker.authority.generations import stored_rotation
from rsocket_broker.authority.home import CaHome
from rsocket_broker.authority.inventory import Inventory, Record, Status
from rsocket_broker.authority.keys import is_encrypted
from rsocket_broker.authority.names import read_names
from rsocket_broker.authority.profiles import CLIENT_PROFILES
from rsocket_broker.authority.rotation import Rotation
from rsocket_broker.errors import AuthorityError, BrokerError
from rsocket_broker.spelling import listed
from rsocket_broker.state import STATE_FILE, State

_MAX_FAULTS_SHOWN = 10

Checked = ParamSpec("Checked")


@attrs.frozen(slots=True)
class Finding:
    """One thing that was looked at; `problem` is None when it is as it should be, else says what to do. With
    `mends_itself` that is nothing: the next start of a broker does it."""

    what: str
    problem: str | None = None
    mends_itself: bool = False


class _MendsItself(AuthorityError):
    """What the next start of a broker puts right."""


def verify_home(root: Path, now: datetime, passphrase: bytes | None = None) -> list[Finding]:
    """Every check that can be made on the files alone. A CA key that is encrypted is opened only with a passphrase."""
    home = CaHome(root)
    folders = (root, home.ca, home.server)
    findings = [_finding(f"folder {folder}", files.check_private_directory, folder) for folder in folders]
    if findings[0].problem is not None:
        return findings
    certificates: dict[int, x509.Certificate] = {}
    findings += _verify_generations(home, now, passphrase, certificates)
    if certificates:
        signing = _signing(root / STATE_FILE, certificates)
        findings.append(_finding("server certificate", _check_server, home, signing, now))
    return findings + list(_verify_state(home, certificates))


def verify_certificate(
    certificate: x509.Certificate,
    ca: Mapping[int, x509.Certificate],
    trusted: Collection[int],
    record: Record | None,
    now: datetime,
) -> list[Finding]:
    """What there is to say about one certificate: `ca` are the CA certificates by generation, those of before among
    them, `trusted` the generations whose certificates are accepted, `record` its row."""
    findings = [Finding("inventory", None if record else "This broker did not issue it.")]
    signer = next((number for number, each in ca.items() if server.is_issued_by(certificate, each)), None)
    findings.append(Finding("signature", None if signer else "No CA of this home signed it."))
    if signer is not None and signer not in trusted:
        findings.append(Finding("generation", f"Generation {signer} of the CA, which signed it, was replaced."))
    findings.append(_finding("dates", _check_dates, certificate, now))
    if record is not None:
        active = record.status is Status.ACTIVE
        findings.append(Finding("status", None if active else f"It is {record.status.value}."))
        if record.profile in CLIENT_PROFILES:
            findings.append(_finding("names", _check_names, certificate, record))
    return findings


def _verify_generations(
    home: CaHome, now: datetime, passphrase: bytes | None, certificates: dict[int, x509.Certificate]
) -> Iterator[Finding]:
    """Checks each generation, and fills `certificates` with those that are sound."""
    try:
        generations = home.generations()
    except BrokerError as error:
        yield Finding("CA folders", error.public)
        return
    if not generations:
        yield Finding("CA", f"There is no certificate authority in {home.root}. Make one: rsocket-broker ca init")
    for number in generations:
        try:
            certificates[number] = home.load_ca_certificate(number)
        except BrokerError as error:
            yield Finding(f"CA certificate, generation {number}", error.public)
            continue
        yield _finding(f"CA certificate, generation {number}", _check_dates, certificates[number], now)
        yield _finding(f"CA key, generation {number}", _check_key, home, number, passphrase)


def _check_dates(certificate: x509.Certificate, now: datetime) -> None:
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if not begin <= now <= end:
        raise AuthorityError(f"It is valid from {begin:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC only.")


def _check_key(home: CaHome, generation: int, passphrase: bytes | None) -> None:
    content = files.read_private(home.ca_key(generation))
    if passphrase or not is_encrypted(content):
        home.load_generation(generation, passphrase)


def _check_server(home: CaHome, ca: x509.Certificate, now: datetime) -> None:
    reason = server.problem(home.load_server_key(), home.load_server_chain(), ca, None, now)
    if reason is not None:
        raise _MendsItself(f"A new one is due, since {reason}; the next start of the broker makes it.")


def _signing(path: Path, certificates: Mapping[int, x509.Certificate]) -> x509.Certificate:
    """The CA certificate that signs now: as the database says, or, where it cannot be asked, the newest."""
    newest = certificates[max(certificates)]
    try:
        files.check_private_file(path)
        with State.open(path) as state:
            rotation = stored_rotation(state)
    except BrokerError:
        return newest
    return newest if rotation is None else certificates.get(rotation.current, newest)


def _verify_state(home: CaHome, certificates: dict[int, x509.Certificate]) -> Iterator[Finding]:
    path = home.root / STATE_FILE
    try:
        files.check_private_file(path)
        with State.open(path) as state:
            problems = state.integrity_problems()
            yield Finding("database", f"{path} is damaged: {problems[0]}. Restore the home." if problems else None)
            inventory = Inventory(state)
            yield _finding("inventory: CA", _check_roots, home, inventory, certificates, stored_rotation(state))
            yield _finding(
                "inventory: certificates", _check_records, inventory.records(), _all_roots(inventory, certificates)
            )
            yield _finding("audit", _check_audit, state)
    except BrokerError as error:
        yield Finding("database", error.public)


def _check_audit(state: State) -> None:
    faults = reading.verify(state).faults
    if faults:
        said = "; ".join(map(str, faults))
        raise AuthorityError(f"{said[0].upper()}{said[1:]}. Somebody changed it: see `rsocket-broker audit verify`.")


def _check_roots(
    home: CaHome, inventory: Inventory, certificates: Mapping[int, x509.Certificate], rotation: Rotation | None
) -> None:
    known, staged = inventory.roots(), home.staged()
    trusted = known.keys() if rotation is None else rotation.trusted
    for number in sorted(trusted):
        if number not in certificates and number in known and _is_staged(known[number], staged):
            raise _MendsItself(f"Generation {number} is on its way into place; the next start finishes that.")
        if number not in certificates:
            raise AuthorityError(f"Generation {number} has no sound files. Restore its folder from a backup.")
        if number not in known or certificates[number].serial_number != known[number].serial:
            raise AuthorityError(f"Generation {number} has other files. Restore the whole home from one backup.")
    for number in sorted(certificates.keys() - trusted):
        if number in known:
            raise _MendsItself(f"Generation {number} was dropped; the next start of the broker destroys its files.")
        raise AuthorityError(f"Generation {number} is not known to the inventory. Restore the home, or move it away.")


def _is_staged(record: Record, staged: x509.Certificate | None) -> bool:
    return staged is not None and staged.serial_number == record.serial


def _all_roots(inventory: Inventory, certificates: Mapping[int, x509.Certificate]) -> dict[int, x509.Certificate]:
    """The CA certificates by generation, with those that were dropped, whose files are gone."""
    found = dict(certificates)
    for number, record in inventory.roots().items():
        with contextlib.suppress(ValueError):
            found.setdefault(number, x509.load_der_x509_certificate(record.certificate))
    return found


def _check_records(records: list[Record], certificates: Mapping[int, x509.Certificate]) -> None:
    """Each row must hold the certificate that it speaks of, signed by the generation that it names."""
    faulty = [record.serial_hex for record in records if not _is_sound(record, certificates)]
    if faulty:
        shown = listed(faulty, _MAX_FAULTS_SHOWN)
        raise AuthorityError(f"These rows do not fit their certificates: {shown}. Restore the home.")


def _is_sound(record: Record, certificates: Mapping[int, x509.Certificate]) -> bool:
    if hashlib.sha256(record.certificate).hexdigest() != record.fingerprint:
        return False
    try:
        certificate = x509.load_der_x509_certificate(record.certificate)
        if record.profile in CLIENT_PROFILES:
            _check_names(certificate, record)
    except (ValueError, AuthorityError):
        return False
    ca = certificates.get(record.generation)
    if certificate.serial_number != record.serial:
        return False
    return ca is None or certificate == ca or server.is_issued_by(certificate, ca)


def _check_names(certificate: x509.Certificate, record: Record) -> None:
    if read_names(certificate) != (record.principal, record.generation):
        raise AuthorityError("The certificate and the inventory name different clients. Restore the home.")


def _finding(what: str, check: Callable[Checked, None], *args: Checked.args, **kwargs: Checked.kwargs) -> Finding:
    try:
        check(*args, **kwargs)
    except BrokerError as error:
        return Finding(what, error.public, mends_itself=isinstance(error, _MendsItself))
    return Finding(what)
