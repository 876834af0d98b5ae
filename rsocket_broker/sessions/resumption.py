"""Which connections may be resumed, by whom, and with which token.

A token belongs to the principal whose certificate opened the session; to everybody else it does not exist, so nobody
can find out, or use up, the tokens of others. Among the certificates of that principal it is good for those of the
same key, and for recorded renewals. One table per broker; it has an entry for a session that lives, so it is bounded
as they are. Not thread-safe: it lives on the event loop.
"""

import hashlib
import hmac
import secrets
from collections.abc import Callable
from typing import Final, Generic, TypeVar

import attrs

from rsocket_broker.errors import SetupRefused
from rsocket_broker.identity import Identity
from rsocket_broker.payload import ErrorCode

MIN_TOKEN: Final = 8
"""Bytes: what is shorter repeats itself by accident."""
MAX_TOKEN: Final = 512
"""Bytes: ten times what any client sends (16 for a UUID, 36 for one as text)."""
RETAINED_ALL: Final = 256 * 1024 * 1024
"""Bytes that all sessions together retain for clients that may come back: whatever number of them is away."""

SameHolder = Callable[[Identity, Identity], bool]
"""(old, new) -> whether the certificate `new` is of the same key as `old`, or a recorded renewal of it."""


def same_key(old: Identity, new: Identity) -> bool:
    """Without a record of renewals, only the key itself says that two certificates have one holder."""
    return old.principal == new.principal and hmac.compare_digest(old.key_fingerprint, new.key_fingerprint)


UNKNOWN: Final = "there is no session to resume with this token: it has ended, or is another client's"

C = TypeVar("C")


@attrs.frozen(slots=True, eq=False)
class _Entry(Generic[C]):
    digest: bytes
    identity: Identity
    connection: C


class Resumptions(Generic[C]):
    """The table of tokens. It keeps their digests under a key of its own, never the tokens."""

    def __init__(self, same_holder: SameHolder) -> None:
        self._same_holder = same_holder
        self._key = secrets.token_bytes(32)
        self._entries: dict[bytes, _Entry[C]] = {}
        self._digests: dict[C, bytes] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def check(self, token: bytes, identity: Identity) -> None:
        """Raises SetupRefused when a session cannot be opened with this token: its length, or it is in use."""
        if not MIN_TOKEN <= len(token) <= MAX_TOKEN:
            raise SetupRefused(f"A resume token has {MIN_TOKEN} to {MAX_TOKEN} bytes.")
        if self._digest(token, identity) in self._entries:
            raise SetupRefused("The resume token is in use: each session needs one of its own.")

    def add(self, token: bytes, identity: Identity, connection: C) -> None:
        """From now on `connection`, which `identity` has opened, may be resumed with `token`. Call `check` before."""
        digest = self._digest(token, identity)
        self._entries[digest] = _Entry(digest, identity, connection)
        self._digests[connection] = digest

    def find(self, token: bytes, identity: Identity) -> C:
        """The connection that the holder of this certificate may resume with `token`.

        Raises SetupRefused, with REJECTED_RESUME, which does not say what was wrong.
        """
        digest = self._digest(token, identity)
        entry = self._entries.get(digest)
        if entry is None or not hmac.compare_digest(entry.digest, digest):
            raise SetupRefused(UNKNOWN, ErrorCode.REJECTED_RESUME)
        if not self._same_holder(entry.identity, identity):
            raise SetupRefused(UNKNOWN, ErrorCode.REJECTED_RESUME)
        return entry.connection

    def renew(self, connection: C, identity: Identity) -> None:
        """`connection` was resumed with this certificate, which counts from now on, unless it has ended since."""
        digest = self._digests.get(connection)
        if digest is not None:
            self._entries[digest] = attrs.evolve(self._entries[digest], identity=identity)

    def remove(self, connection: C) -> None:
        """The connection has ended; nothing happens when it could not be resumed anyhow."""
        digest = self._digests.pop(connection, None)
        if digest is not None:
            del self._entries[digest]

    def forget(self, predicate: Callable[[Identity], bool]) -> list[C]:
        """Nobody may resume the connections whose certificate fits `predicate` any more. Returns those connections."""
        found = [entry.connection for entry in self._entries.values() if predicate(entry.identity)]
        for connection in found:
            self.remove(connection)
        return found

    def _digest(self, token: bytes, identity: Identity) -> bytes:
        principal = identity.principal
        name = "\0".join((principal.app_id, principal.device_id, principal.proof.value)).encode()
        whole = len(name).to_bytes(4, "big") + name + token
        return hashlib.blake2b(whole, key=self._key, digest_size=32).digest()
