"""The passphrase of the CA's keys: given, changed, taken away, for every generation at one moment.

Nothing here prints or returns one. The home must not be in use by a broker, which has the old one in memory, and the
caller holds the lock on it.
"""

import attrs

from rsocket_broker import files
from rsocket_broker.authority import key_ring, rekeying
from rsocket_broker.authority.home import CaHome
from rsocket_broker.authority.key_ring import Entry
from rsocket_broker.errors import AuthorityError, BrokerError

MIN_LENGTH = 12
"""Bytes. A key that was copied can be tried at leisure, so a short word protects nothing."""


@attrs.frozen(slots=True)
class Protection:
    """How keys are kept: whether each generation's is encrypted, and the entry of the key ring, if there is one."""

    encrypted: dict[int, bool]
    entry: Entry | None

    @property
    def complete(self) -> bool:
        return all(self.encrypted.values())


def protection(home: CaHome) -> Protection:
    """Raises HomeError for a missing or unsafe file, AuthorityError for a damaged note."""
    return Protection(home.encrypted(), home.note())


def check_new(passphrase: bytes) -> bytes:
    """The passphrase, if it will do for a new one. Raises AuthorityError otherwise."""
    if len(passphrase) < MIN_LENGTH:
        raise AuthorityError(
            f"The new passphrase has {len(passphrase)} characters; use {MIN_LENGTH} or more, for instance "
            "those that `openssl rand -base64 24` prints."
        )
    return passphrase


def protect(home: CaHome, old: bytes | None, new: bytes | None, *, ring: bool) -> Protection:
    """Encrypt all keys with `new`, which is made up when it is None and the key ring is to hold it. `old` opens those
    that are encrypted now; None is the key ring's.

    Raises AuthorityError, HomeError; the old passphrase then is the one that counts.
    """
    assert new is not None or ring
    before, entry = home.note(), None
    chosen = key_ring.generated() if new is None else check_new(new)
    if ring:
        entry = Entry.new(home.root.name)
        key_ring.store(entry, chosen)
    try:
        home.rekey(old, chosen, entry)
    except BrokerError:
        if entry is not None:
            key_ring.forget(entry)
        raise
    if before is not None:
        key_ring.forget(before)
    return protection(home)


def expose(home: CaHome, old: bytes | None) -> Protection:
    """Write all keys in the clear. Raises as `protect` does."""
    before = home.note()
    home.rekey(old, None, None)
    if before is not None:
        key_ring.forget(before)
    return protection(home)


def begin_with_key_ring(home: CaHome, passphrase: bytes | None) -> None:
    """For a home that has no key yet: from now on each is made encrypted. Raises AuthorityError, HomeError."""
    files.ensure_private_directory(home.ca)
    entry = Entry.new(home.root.name)
    key_ring.store(entry, key_ring.generated() if passphrase is None else check_new(passphrase))
    files.write_private(home.ca / rekeying.NOTE_FILE, entry.to_json())
