"""When to try again and when to start over with a new certificate. Decisions only: no clock, no socket, no files."""

import enum

import attrs

from rsocket_broker.errors import ConfigurationError

FIRST_DELAY = 0.5
"""Seconds. Ceiling of the first wait: a broker that restarts is back within a second or two."""

LONGEST_DELAY = 10.0
"""Seconds. Ceiling of every wait. An app that was started before its broker is connected within this time of the
broker's start, and a thousand apps that wait for one broker ask it 200 times a second on average, not more."""

REFUSALS_BEFORE_NEW_CERTIFICATE = 2
"""Handshakes refused in a row before everything is thrown away and asked for anew. One may be bad luck (the broker
was restarting between its certificate and ours); Flipper's SDK starts over at the same number."""

STEADY_AFTER = 5.0
"""Seconds that a session must have lasted for the waits to begin small again. Two clients that replace each other
connect well each time: without this rule they would do so at full speed for ever."""


class Step(enum.Enum):
    """What a client does next."""

    ENROLL = "enroll"
    CONNECT = "connect"


class Failure(enum.Enum):
    """Why the last try came to nothing."""

    NETWORK = "network"
    """Nobody there, reset, silence. Says nothing about certificates."""
    TLS = "tls"
    """One side refused the other's certificate, or the handshake could not be agreed on."""
    REFUSED = "refused"
    """The broker said no, in words: an enrolment or a SETUP that it will not take."""


def _positive(backoff: "Backoff", attribute: "attrs.Attribute[float]", value: float) -> None:
    if not 0 < value < float("inf"):
        raise ConfigurationError(f"the {attribute.name} delay must be a number of seconds above 0, not {value}")


@attrs.frozen(slots=True)
class Backoff:
    """Exponential waits with full jitter: after N failures in a row, anything from 0 to min(longest, first × 2^N).

    Full jitter (the whole interval, not its upper half) spreads clients best that all lost the same broker at once.
    Raises ConfigurationError for a delay that is not a positive number.
    """

    first: float = attrs.field(default=FIRST_DELAY, validator=_positive)
    longest: float = attrs.field(default=LONGEST_DELAY, validator=_positive)

    def ceiling(self, failures: int) -> float:
        """The longest wait, in seconds, after `failures` tries in a row (0: a session that held was lost)."""
        doublings = min(failures, 64)  # far past any ceiling, and 2.0**1024 would overflow
        return min(self.longest, self.first * 2.0**doublings)

    def delay(self, failures: int, draw: float) -> float:
        """The wait itself, in seconds; `draw` is a random number from 0 to 1."""
        return self.ceiling(failures) * draw


@attrs.define(slots=True)
class Reconnector:
    """The memory of one client: what failed since the last session that held, and what follows from it."""

    backoff: Backoff = attrs.field(factory=Backoff)
    failures: int = 0
    """Tries in a row without a session that held. Not reset by an enrolment: a broker that signs and then refuses
    its own certificates must not be asked for one at full speed."""
    tls_refusals: int = 0

    def next_step(self, enrolled: bool) -> Step:
        """ENROLL when there is nothing to connect with (`enrolled` is false), or when it was refused too often."""
        if not enrolled or self.tls_refusals >= REFUSALS_BEFORE_NEW_CERTIFICATE:
            return Step.ENROLL
        return Step.CONNECT

    def enrolled(self) -> None:
        """The old certificate is gone, and with it what was held against it."""
        self.tls_refusals = 0

    def enrollment_unreachable(self) -> None:
        """Nobody is there to enrol with, so the old certificate is still here: it gets one more try in between.

        A broker may close its plain port for good; a fault of its secure port must not lock its clients out then.
        """
        self.tls_refusals = min(self.tls_refusals, REFUSALS_BEFORE_NEW_CERTIFICATE - 1)

    def failed(self, failure: Failure) -> None:
        self.failures += 1
        if failure is Failure.TLS:
            self.tls_refusals += 1

    def accepted(self) -> None:
        """The broker has taken the session: the certificate is good."""
        self.tls_refusals = 0

    def session_ended(self, lasted: float) -> None:
        """`lasted` is in seconds, from acceptance to the end."""
        self.failures = 0 if lasted >= STEADY_AFTER else self.failures + 1

    def delay(self, draw: float) -> float:
        """Seconds to wait before the next try; `draw` is a random number from 0 to 1."""
        return self.backoff.delay(self.failures, draw)
