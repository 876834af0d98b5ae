"""What a Protocol reports: named tuples, which are the cheapest immutable values that Python has.

In every event `data` is bytes (possibly empty) and `metadata` is None when the frame had none, b"" when it had
an empty one. Stream ids are those of the wire.
"""

from typing import NamedTuple

from rsocket_broker.protocol.codes import Interaction


class SetupReceived(NamedTuple):
    """A well-formed SETUP frame. Nothing behind it is parsed until it is accepted or refused. Times are in ms.

    `lease`: leases are to hold. `resume_token` (a secret) is None when the connection is not to be resumed.
    """

    keepalive_ms: int
    lifetime_ms: int
    metadata_mime: str
    data_mime: str
    data: bytes
    metadata: bytes | None
    lease: bool = False
    resume_token: bytes | None = None


class ResumeReceived(NamedTuple):
    """Server only: a well-formed RESUME as the first frame. Nothing behind it is parsed.

    The client has received everything before position `received`, and can send again all from `available` on.
    """

    token: bytes
    received: int
    available: int


class LineLost(NamedTuple):
    """The peer is silent, and the connection suspended: its line is to be dropped."""

    text: str


class LineResumed(NamedTuple):
    """Client only: the server goes on over the new line."""


class LeaseReceived(NamedTuple):
    """The peer lets us send `number` requests within `ttl_ms`."""

    ttl_ms: int
    number: int


class SetupAccepted(NamedTuple):
    """Client only: the first frame that a server sends only once it has accepted our SETUP."""


class RequestReceived(NamedTuple):
    """A whole request, reassembled.

    `initial_n` is the credit for answers (0 where the interaction has none); `complete` says that the requester of
    a channel has already sent its last payload.
    """

    stream_id: int
    interaction: Interaction
    data: bytes
    metadata: bytes | None
    initial_n: int
    complete: bool


class PayloadReceived(NamedTuple):
    """A whole payload of a stream. `next`: data and metadata count; `complete`: it is the sender's last."""

    stream_id: int
    data: bytes
    metadata: bytes | None
    next: bool
    complete: bool


class AnswersReceived(NamedTuple):
    """Plain answers to requests of ours that came one behind the other: (stream id, data). Nothing more will come on
    these streams. Made in place of a PayloadReceived for each, where the owner asks for it (`answers_in_runs`)."""

    answers: list[tuple[int, bytes]]


class RequestNReceived(NamedTuple):
    """The peer takes `n` payloads more (already added to the stream's credit)."""

    stream_id: int
    n: int


class CancelReceived(NamedTuple):
    """The peer wants no more of what we send on this stream."""

    stream_id: int


class ErrorReceived(NamedTuple):
    """The stream has failed: the peer said so, or it broke a limit that we hold it to."""

    stream_id: int
    code: int
    text: str


class MetadataPushReceived(NamedTuple):
    metadata: bytes


class ConnectionEnded(NamedTuple):
    """The last event of every connection. `code` is the wire code sent or received, None where there was none."""

    code: int | None
    text: str
    by_peer: bool


Event = (
    SetupReceived
    | SetupAccepted
    | ResumeReceived
    | LineLost
    | LineResumed
    | LeaseReceived
    | RequestReceived
    | PayloadReceived
    | AnswersReceived
    | RequestNReceived
    | CancelReceived
    | ErrorReceived
    | MetadataPushReceived
    | ConnectionEnded
)
