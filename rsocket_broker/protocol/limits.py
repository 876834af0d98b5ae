"""What one connection may cost, each bound with its reason. Sizes in bytes, times in seconds."""

from typing import Final

import attrs

KIB: Final = 1024
MIB: Final = 1024 * KIB

MAX_FRAME: Final = 0xFF_FFFF
"""The largest frame that the specification allows: its length field has 24 bits."""
MIN_FRAGMENT: Final = 64
"""A smaller fragment would be more header than content."""


@attrs.frozen(slots=True, kw_only=True)
class Limits:
    """The bounds that one Protocol keeps. The presets below say which listener uses which."""

    frame: int = MAX_FRAME
    """Largest frame taken from the peer. A longer one ends the connection as soon as its length is known."""
    fragment: int = MAX_FRAME
    """Largest frame that we send; a message that needs more is fragmented."""
    message: int = 64 * MIB
    """Largest message after reassembly, data and metadata together. A longer one fails its own stream only."""
    reassembly: int = 128 * MIB
    """All unfinished messages of the connection together: parallel fragments must not multiply `message`."""
    streams: int = 4096
    """Open streams that the peer started. Each costs a few hundred bytes and perhaps a task; one more is REJECTED."""
    incoming: int = 64 * MIB
    """Payloads of one stream that wait for their consumer. A stream that outruns this is cut."""
    outgoing: int = 128 * MIB
    """Bytes that wait for a peer that does not read. More are refused to the sender, who learns it at once."""
    setup_deadline: float = 10.0
    """From the opening to a whole SETUP, and again from there to its acceptance. A phone needs 2 or 3 round trips."""
    error_text: int = 4 * KIB
    """Text of an ERROR frame that is kept or sent; the rest of it is of no use to a reader, only to a flooder."""

    def __attrs_post_init__(self) -> None:
        if not 6 <= self.frame <= MAX_FRAME or not MIN_FRAGMENT <= self.fragment <= MAX_FRAME:
            raise ValueError(f"a frame has 6 to {MAX_FRAME} bytes, a fragment {MIN_FRAGMENT} at least")
        if min(self.message, self.reassembly, self.streams, self.incoming, self.outgoing) < 1:
            raise ValueError("a limit of nothing would serve nobody")
        if self.message < self.frame:
            raise ValueError("a message that fits one frame must fit: `message` is at least `frame`")


SECURE: Final = Limits()
"""For peers with a certificate: databases and screenshots travel here."""

PLAIN: Final = Limits(frame=MIB, message=MIB, reassembly=MIB, streams=16, incoming=MIB, outgoing=4 * MIB)
"""For strangers: one certificate exchange, whose signing request has at most 64 KiB."""
