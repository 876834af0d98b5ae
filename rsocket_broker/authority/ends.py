"""What the operator must do before a CA ends, or clients find it too old. Pure."""

from collections.abc import Sequence
from datetime import datetime, timedelta

import attrs
from cryptography import x509

from rsocket_broker.authority.imported import YOUNG

NEAR_END = timedelta(days=30)
"""Before the end of a CA, or of one above it. The certificates of clients end with it, so they are short by then."""
NEAR_AGE = timedelta(days=7)
"""Before an operator's own CA is too old for Flipper's WebSocket SDK on Android."""
_NEXT = "Import one with a new key below the same root (rsocket-broker ca import), and rotate to it."


@attrs.frozen(slots=True)
class Foreseen:
    """One thing to do. `urgent`: every client is concerned, not only those of one kind."""

    urgent: bool
    text: str


def foreseen(chain: Sequence[x509.Certificate], imported: bool, now: datetime) -> list[Foreseen]:
    """What is to be done soon, for the CA that signs: `chain` is its certificate and those above it, root last."""
    found = []
    first = min(chain, key=lambda certificate: certificate.not_valid_after_utc)
    end = first.not_valid_after_utc
    if end - now < NEAR_END:
        name = first.subject.rfc4514_string()
        ends = "ended" if end <= now else "ends"
        do = _NEXT if imported else "Rotate: rsocket-broker ca rotate prepare"
        found.append(
            Foreseen(True, f"the CA {name} {ends} on {end:%Y-%m-%d}, and no client is let in after that. {do}")
        )
    until = chain[0].not_valid_before_utc + YOUNG
    if imported and len(chain) <= 2 and now > until - NEAR_AGE:
        when = f"since {until:%Y-%m-%d}" if now > until else f"from {until:%Y-%m-%d} on"
        found.append(
            Foreseen(False, f"Flipper's WebSocket SDK on Android refuses this CA {when}, as it is too old. {_NEXT}")
        )
    return found
