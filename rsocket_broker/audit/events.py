"""What is recorded, and in which of two books.

What the operator and the authority did stands in `changes`, which is kept whole: it grows as the inventory of
certificates does. What peers make happen by asking stands in `traffic`, of which the newest are kept: so nobody can
fill the disk by being refused, nor push the record of a revocation out of sight.
"""

import enum


class Book(enum.Enum):
    CHANGES = "changes"
    TRAFFIC = "traffic"


class Event(enum.Enum):
    """The kinds of records; a value is what `audit list --event` takes."""

    ISSUED = "issue"
    DEPLOYED = "deploy"
    RENEWED = "renew"
    ROTATED = "rotate"
    REVOKED = "revoke"
    BLOCKED = "block"
    UNBLOCKED = "unblock"
    ANCHOR = "anchor"
    KEY = "key"
    POLICY = "policy"
    LISTENER = "listener"
    WINDOW = "window"
    GRANT = "grant"
    BACKED_UP = "backup"
    RESTORED = "restore"
    TRIMMED = "trim"
    """The oldest records of `traffic` were taken away, as it had become too long."""
    ENROLMENT_REFUSED = "enrolment-refused"
    CALL_REFUSED = "call-refused"
    CALL_ALLOWED = "call-allowed"
    SESSION = "session"
    RECORDED = "record"
    """The operator begins to write down what is said in a session."""
    DROPPED = "drop"
    """More was noted than is recorded; `count` says how much has no record of its own."""

    @property
    def book(self) -> Book:
        return Book.TRAFFIC if self in _TRAFFIC else Book.CHANGES


_TRAFFIC = frozenset(
    {
        Event.ENROLMENT_REFUSED,
        Event.CALL_REFUSED,
        Event.CALL_ALLOWED,
        Event.SESSION,
        Event.DROPPED,
    }
)
