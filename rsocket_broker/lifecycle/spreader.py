"""What a rotation asks of those who bring it to the clients."""

import enum
from collections.abc import AsyncGenerator
from typing import Protocol

import attrs


class Which(enum.Enum):
    """Whose certificates are to be made anew."""

    WEB = "web"
    """Apps last seen on the WebSocket port, which trust the first certificate of their file and no other."""
    ALL = "all"


class Outcome(enum.Enum):
    DONE = "done"
    """It has it now; the authority was told (`Authority.arrived`) where it is a certificate."""
    LATER = "later"
    """It cannot be reached now: no session, or its device is away. It gets it when it comes."""
    FAILED = "failed"
    """It was reached, and it did not work."""


@attrs.frozen(slots=True)
class Spread:
    """What became of one client. `client` is the principal as text, `reason` says why it is not done."""

    client: str
    outcome: Outcome
    reason: str = ""


@attrs.frozen(slots=True)
class Informed:
    """Of the `known` containers, how many have the anchors of the moment (`have`)."""

    have: int
    known: int


class Spreader(Protocol):
    """Brings clients what they need in a phase of a rotation.

    Both walks are over every client that is known; they hand out what the authority says at that moment (`trust_pem`;
    `web_trust_pem` for those of the WebSocket port), skip without a word whoever has it already, and can be run again
    at any time: after a restart they are. Whoever comes later gets it when it comes, without being asked for here.
    They never raise for a client; what went wrong is in its `Spread`. Closing the iterator ends the work.
    """

    def spread_trust(self) -> AsyncGenerator[Spread, None]:
        """The CA certificates to trust: to live sessions of our SDK over their line, to containers by driver."""
        ...

    def spread_pairs(self, which: Which) -> AsyncGenerator[Spread, None]:
        """Certificates of the generation that signs now. `WEB`: CA file and certificate together, as one deployment."""
        ...

    async def informed(self) -> Informed:
        """How far the anchors of the moment have come."""
        ...
