"""What an app can be told about its line while it is being made, lost and made again."""

import enum
from collections.abc import Callable

import attrs


class Stage(enum.Enum):
    """Where a client is. The usual order: ENROLLING, ENROLLED, CONNECTING, CONNECTED, LOST, WAITING, CONNECTING, …

    A line that is lost leads to INTERRUPTED, tries to connect, and RESUMED, when the session goes on where it was. LOST
    says that the session is over, and the next one will be a new one. RENEWED comes at any time within a session: the
    app has a new certificate, whose serial number `detail` gives.
    """

    ENROLLING = "enrolling"
    ENROLLED = "enrolled"
    CONNECTING = "connecting"
    CONNECTED = "connected"
    INTERRUPTED = "interrupted"
    RESUMED = "resumed"
    RENEWED = "renewed"
    LOST = "lost"
    FAILED = "failed"
    WAITING = "waiting"


@attrs.frozen(slots=True)
class Progress:
    """One step. `detail` is for people: the device id, the reason of a failure, the seconds of a wait."""

    stage: Stage
    detail: str = ""


Observer = Callable[[Progress], object]
"""Called on the event loop, in order; must return at once. What it raises is logged and changes nothing."""
