"""What one connection may cost, each bound with its reason. Sizes in bytes, times in seconds."""

from typing import Final

import attrs

from rsocket_broker.protocol.codes import MAX_31

KIB: Final = 1024
MIB: Final = 1024 * KIB

MAX_FRAME: Final = 0xFF_FFFF
"""The largest frame that the specification allows: its length field has 24 bits."""
RESUME_SECONDS: Final = 120.0
"""A phone that changes networks, or a laptop that is carried to another room, is back within a minute or two."""
RESUME_BYTES: Final = 8 * MIB
"""What a session retains for a peer that is away: a few of the largest messages that apps usually send."""
LEASE_REQUESTS: Final = 1_000_000
LEASE_PERIOD: Final = 10.0
"""So many requests in so many seconds: more than one connection is served in that time, so it hinders nobody."""
LIGHT: Final = 4 * KIB
"""A request up to this size weighs no more than the task that serves it, and is counted with that."""
MIN_FRAGMENT: Final = 64
"""A smaller fragment would be more header than content."""


@attrs.frozen(slots=True, kw_only=True)
class Limits:
    """The bounds that one Protocol keeps. The presets below say which listener uses which."""

    frame: int = MAX_FRAME
    """Largest frame taken from the peer. A longer one ends the connection as soon as its length is known."""
    first: int = MIB
    """Largest first frame, which is a SETUP or a RESUME. It is held whole before anybody is known, and what apps send
    there is a few hundred bytes."""
    fragment: int = MAX_FRAME - 3
    """Largest frame that we send; a message that needs more is fragmented. rsocket-java counts the three bytes of the
    length as part of the frame, and waits in silence when one of the full size has come."""
    message: int = 64 * MIB
    """Largest message after reassembly, data and metadata together. A longer one fails its own stream only."""
    reassembly: int = 128 * MIB
    """All unfinished messages of the connection together: parallel fragments must not multiply `message`."""
    streams: int = 4096
    """Open streams that the peer started. Each costs a few hundred bytes and perhaps a task; one more is REJECTED."""
    serving: int = 128 * MIB
    """Requests that are being served, together: a handler may hold its own for as long as it runs. One more that is
    larger than `LIGHT` is REJECTED."""
    incoming: int = 64 * MIB
    """Payloads of one stream that wait for their consumer. A stream that outruns this is cut."""
    incoming_all: int = 128 * MIB
    """Such payloads of all channels of the peer together: parallel streams must not multiply `incoming`. What waits is
    counted each time that an eighth of this has come, and the fullest streams are cut."""
    outgoing: int = 128 * MIB
    """Bytes that wait for a peer that does not read. More are refused to the sender, who learns it at once."""
    setup_deadline: float = 10.0
    """From the opening to a whole SETUP, and again from there to its acceptance. A phone needs 2 or 3 round trips."""
    error_text: int = 4 * KIB
    """Text of an ERROR frame that is kept or sent; the rest of it is of no use to a reader, only to a flooder."""
    resume_seconds: float = 0.0
    """How long the connection outlives its line. 0: not at all, and a SETUP or RESUME that asks for it is refused."""
    resume_bytes: int = RESUME_BYTES
    """Frames sent that the peer has not confirmed. Over it, the oldest are given up while the line stands (it may then
    be impossible to resume), and the connection ends while it is away."""
    lease_requests: int = LEASE_REQUESTS
    """Requests that a peer with leases may send in each period."""
    lease_period: float = LEASE_PERIOD

    def __attrs_post_init__(self) -> None:
        if not 6 <= self.frame <= MAX_FRAME or not MIN_FRAGMENT <= self.fragment <= MAX_FRAME:
            raise ValueError(f"a frame has 6 to {MAX_FRAME} bytes, a fragment {MIN_FRAGMENT} at least")
        counts = (self.reassembly, self.streams, self.serving, self.incoming, self.incoming_all, self.outgoing)
        if min(self.message, *counts) < 1:
            raise ValueError("a limit of nothing would serve nobody")
        if self.resume_seconds < 0 or self.resume_bytes < 1 or self.lease_period <= 0:
            raise ValueError("resumption has a time of 0 or more and room for a byte, a lease has a period")
        if not 1 <= self.lease_requests <= MAX_31:
            raise ValueError(f"a lease allows 1 to {MAX_31} requests: no frame can say more")
        if self.first < 64:
            raise ValueError("a first frame of less than 64 bytes has no room for a SETUP")
        if self.message < self.frame:
            raise ValueError("a message that fits one frame must fit: `message` is at least `frame`")


SECURE: Final = Limits()
"""For peers with a certificate: databases and screenshots travel here."""

PLAIN: Final = Limits(
    frame=MIB,
    message=MIB,
    reassembly=MIB,
    streams=16,
    serving=2 * MIB,
    incoming=MIB,
    incoming_all=MIB,
    outgoing=4 * MIB,
)
"""For strangers: one certificate exchange, whose signing request has at most 64 KiB."""
