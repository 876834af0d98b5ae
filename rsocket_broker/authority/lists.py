"""The revocation lists of a home: which certificates are on them, and how old one may be that is handed out again."""

import threading
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta

from cryptography import x509

from rsocket_broker.authority.crl import KEPT, issue_crl, issue_inner_crl, to_pem
from rsocket_broker.authority.issue import Issuer
from rsocket_broker.authority.revocation import Revocations

FRESH = timedelta(hours=1)
"""How long a list for others is handed out as it is, while nothing changes: signing one takes a millisecond, and with
ten thousand entries a hundred."""


class Lists:
    """Makes lists for the generations that it is given. May be called from any thread."""

    def __init__(self, revocations: Revocations, clock: Callable[[], datetime]) -> None:
        self._revocations = revocations
        self._clock = clock
        self._lock = threading.Lock()
        self._number = 0
        self._version = 0
        """Grows with every change: a list is not kept whose entries were read before the last one."""
        self._made: dict[int, tuple[datetime, x509.CertificateRevocationList]] = {}

    def changed(self) -> None:
        """Something was revoked, or a generation has come or gone."""
        with self._lock:
            self._version += 1
            self._made.clear()

    def inner(self, issuers: Iterable[Issuer]) -> bytes:
        """One list of each generation for our own TLS contexts, as PEM: what has ended is refused there anyhow."""
        now = self._clock()
        return to_pem(
            [
                issue_inner_crl(each, self._revocations.entries(each.generation, now), self._next_number(now))
                for each in issuers
            ]
        )

    def outer(self, issuers: Iterable[Issuer]) -> list[x509.CertificateRevocationList]:
        """One list of each generation for others, in the order given."""
        return [self._outer(each, self._clock()) for each in issuers]

    def _outer(self, issuer: Issuer, now: datetime) -> x509.CertificateRevocationList:
        with self._lock:
            found, version = self._made.get(issuer.generation), self._version
        if found is not None and timedelta() <= now - found[0] < FRESH:
            return found[1]
        entries = self._revocations.entries(issuer.generation, now - KEPT)
        made = issue_crl(issuer, entries, now, self._next_number(now))
        with self._lock:
            if version == self._version:
                self._made[issuer.generation] = now, made
        return made

    def _next_number(self, now: datetime) -> int:
        """A list's number grows, over restarts too: milliseconds since 1970, and never one twice."""
        with self._lock:
            self._number = max(self._number + 1, int(now.timestamp() * 1000))
            return self._number
