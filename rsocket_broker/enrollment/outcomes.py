"""What becomes of enrolments: told to the log and to the audit, and counted; the same old story is told once."""

import asyncio
import contextlib
import logging
import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from typing import Any

import attrs

from rsocket_broker.audit import Audit, Event
from rsocket_broker.claims import Claims, shown
from rsocket_broker.enrollment.exchange import Acknowledgement, Step
from rsocket_broker.enrollment.throttle import Note, Repeats
from rsocket_broker.errors import AuthorityError, BrokerError, EnrollmentRefused, HomeError
from rsocket_broker.histogram import Histogram
from rsocket_broker.quiet_log import QuietLog

_REFUSALS = "enrolments that were refused"
_SEE_LOG = "The log of the broker says why."
_NUMBER = re.compile(r"\d+")
_LINES = 100
"""Refusals that are logged in a minute: each of a lab of devices gets its line, and a stranger who says something new
every time does not fill the disk."""

log = logging.getLogger(__name__)


@attrs.define(slots=True)
class Course:
    """What is known of one request while it is served, for the counters."""

    medium: str = "none"
    counts: bool = True


class Outcomes:
    """Of the requests of one broker. Lives on its loop."""

    def __init__(self, audit: Audit, clock: Callable[[], float]) -> None:
        """`clock` in seconds."""
        self.results: Counter[tuple[str, str]] = Counter()
        """How many requests for a certificate ended how: by the name of the driver ("none" where it did not come to
        one), and `ok`, the step at which they were refused, `failed`, or `left` when the peer did not wait."""
        self.seconds = Histogram()
        """How long those took that succeeded."""
        self._audit = audit
        self._clock = clock
        self._repeats = Repeats()
        self._log = QuietLog(log, clock, _LINES)

    @contextlib.contextmanager
    def counted(self) -> Iterator[Course]:
        """Counts how the block ends."""
        course, began = Course(), self._clock()
        result = "failed"
        try:
            yield course
            result = "ok"
        except EnrollmentRefused as refusal:
            result = refusal.step.replace(" ", "_")
            raise
        except asyncio.CancelledError:
            result = "left"
            raise
        finally:
            if course.counts:
                self.results[course.medium, result] += 1
                if result == "ok":
                    self.seconds.observe(self._clock() - began)

    @contextlib.contextmanager
    def reported(self, claims: Claims, peer: str) -> Iterator[None]:
        """Logs the refusals of the block, once; turns a failure of the authority into a refusal without its details."""
        try:
            try:
                yield
            except (AuthorityError, HomeError) as error:
                raise EnrollmentRefused(Step.SIGN, "the broker cannot sign at present.", _SEE_LOG) from error
        except EnrollmentRefused as refusal:
            # Refusals for asking too often are one story per address, whatever names the asker goes by.
            key = (peer, Step.LIMITS) if refusal.step == Step.LIMITS else None
            self.report(claims, peer, with_cause(refusal), key)
            self._record(claims, peer, refusal)
            raise

    def report(self, claims: Claims, peer: str, refusal: str, key: Hashable = None) -> None:
        """Log a refusal, unless the same was said of the same app a moment ago."""
        whose = f"{shown(claims.app, 80) or 'an app'} on {shown(claims.device, 80) or 'a device'} ({peer})"
        story = (key or (peer, claims.app, claims.device), _NUMBER.sub("#", refusal))
        note = self._repeats.note(*story, self._clock())
        if note is Note.LINE:
            self._log.write(logging.WARNING, _REFUSALS, "refused to enrol %s: %s", whose, refusal)
        elif note is Note.LOOPING:
            self._log.write(
                logging.WARNING,
                _REFUSALS,
                "%s asks again and again and is refused for the same reason each time",
                whose,
            )

    def enrolled(self, claims: Claims, peer: str) -> None:
        """An app has its certificate. One that comes again and again all the same is told of."""
        if self._repeats.note((peer, claims.app, claims.device), "enrolled", self._clock()) is Note.LOOPING:
            log.warning(
                "%s on %s enrols again and again although each time succeeds: its log says why it does not connect",
                shown(claims.app, 80),
                shown(claims.device, 80),
            )

    def acknowledged(self, message: Acknowledgement, claims: Claims) -> None:
        """What an app has found in its folder."""
        whose = f"{shown(claims.app, 80)} on {shown(claims.device, 80)}"
        if message.is_error or message.has_required_files is False:
            self._log.write(
                logging.WARNING,
                "apps without certificates",
                "%s does not find its certificates. Check that the files in its folder can be read by the app itself",
                whose,
            )
        else:
            log.debug("%s has its certificates", whose)

    def unheard(self, claims: Claims, peer: str, finish: asyncio.Task[Any]) -> None:
        """The work for a peer that has gone is over."""
        error = None if finish.cancelled() else finish.exception()
        if isinstance(error, BrokerError):
            self.report(claims, peer, with_cause(error))
        elif error:
            log.error("an enrolment for %s failed", peer, exc_info=error)

    def _record(self, claims: Claims, peer: str, refusal: EnrollmentRefused) -> None:
        """In the audit: who asked (as it says itself), and what it was told, without the numbers that always differ."""
        self._audit.note(
            Event.ENROLMENT_REFUSED,
            step=refusal.step,
            reason=_NUMBER.sub("#", refusal.reason),
            app=shown(claims.app_id or claims.app, 80),
            device=shown(claims.device, 80),
            peer=peer,
        )


def with_cause(error: BrokerError) -> str:
    """What the peer is told, and what only the log may know."""
    return f"{error.public} ({shown(str(error.__cause__), 300)})" if error.__cause__ else error.public
