"""Who may enrol at all, before anything is proven: the gate in front of every certificate exchange.

    open     whoever reaches the plain port
    window   whoever comes while the operator holds the window open; the port is closed otherwise
    token    whoever proves to have the token of a grant

In each of them, whoever was confirmed on both sides of a pairing, whose code is a window of its own. A window lives in
memory alone: after a restart it is closed. A grant lives in the database, see `grants`.
"""

import asyncio
import enum
import logging
import time
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from sqlite3 import Connection
from typing import Any, Self

from rsocket_broker.audit import Audit, Event
from rsocket_broker.durations import show_duration
from rsocket_broker.enrollment.exchange import SignRequest, Step
from rsocket_broker.enrollment.grants import Grant, Grants, ended
from rsocket_broker.enrollment.mediums.base import Container
from rsocket_broker.enrollment.throttle import Rate, RateLimiter, too_often
from rsocket_broker.enrollment.window import Window
from rsocket_broker.errors import ApplicationError, EnrollmentRefused
from rsocket_broker.moments import timestamp, utc_now

GUESSES = Rate(20, 0.2)
"""Wrong tokens from one address: more than a lab of phones with an old token sends at once; after that, one in 5 s.
Meanwhile that address is not asked for its token, right or wrong."""

_log = logging.getLogger(__name__)


class Mode(enum.StrEnum):
    """How apps come to their certificates; the value is what `serve --enrollment` takes."""

    OPEN = "open"
    WINDOW = "window"
    TOKEN = "token"  # noqa: S105  a word, not a secret


class Passage:
    """Leave for one exchange to go on. It holds a place in the window for as long as somebody holds it.

    Whoever enters with it holds it until the end of the block, and so does work that it is held for.
    """

    def __init__(self, gate: "Gate", window: Window | None = None, grant: Grant | None = None) -> None:
        self._gate = gate
        self._window = window
        self._grant = grant
        self._holders = 0
        self._issued = False

    def __enter__(self) -> Self:
        self._holders += 1
        return self

    def __exit__(self, *_: object) -> None:
        self._release()

    def hold_for(self, work: "asyncio.Task[Any]") -> None:
        """Until that work is over, whatever becomes of those who wait for it."""
        self._holders += 1
        work.add_done_callback(lambda _: self._release())

    def _release(self) -> None:
        self._holders -= 1
        if not self._holders and not self._issued:
            self._leave()

    def check(self, container: Container) -> None:
        """Raises EnrollmentRefused (step "token") when the grant is for another app, or device, than was proven."""
        if self._grant is not None:
            check_grant(self._grant, container.principal.app_id)
            check_device(self._grant, (container.principal.device_id, *container.device_names))

    def use(self, database: Connection, container: Container) -> None:
        """Uses the grant up in the transaction of the certificate's row, if there is one.

        Raises EnrollmentRefused (step "token"), having changed nothing, where it has ended meanwhile.
        """
        if self._grant is not None:
            self._gate.use(database, self._grant, container.principal.device_id)

    def issued(self) -> None:
        """The certificate is on the disk: the place in the window is used up."""
        self._issued = True
        self._leave()

    def _leave(self) -> None:
        if self._window is not None:
            self._gate.left(self._window, issued=self._issued)


PORTS = ("insecure", "ws_insecure")
"""The listeners at which apps may ask: as RSocket, and over WebSocket."""


class Gate:
    """One per broker, on its loop. `on_change` is called when the window has opened or closed, by hand or by itself."""

    def __init__(
        self,
        mode: Mode = Mode.OPEN,
        grants: Grants | None = None,
        audit: Audit | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        """`clock` measures the window (seconds), `now` is the time of day (aware) that grants end by."""
        self.mode = mode
        self.barred: set[str] = set()
        """Those of PORTS that were closed by hand: whoever is still connected to one gets nothing more."""
        self.held = 0
        """Codes for pairing that are shown at the moment. They need the plain port; nobody else gets in by them."""
        self.on_change: Callable[[], object] = lambda: None
        self._grants = grants
        self._audit = audit
        self._clock = clock
        self._now = now
        self._window: Window | None = None
        self._ends: datetime | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._wrong = RateLimiter(GUESSES)

    # --- exchanges ---------------------------------------------------------------------------------------------------

    async def enter(
        self, request: SignRequest, app_id: str, peer: str, port: str = PORTS[0], *, by_grant: bool = False
    ) -> Passage:
        """Leave to go on, to be entered at once; `by_grant`: only for whoever has a token, in every mode.

        Raises EnrollmentRefused with step "window", "token" or "limits".
        """
        self._check_port(port)
        if request.confirmed is not None:
            return Passage(self)
        grant = None
        if by_grant or self.mode is Mode.TOKEN:
            grant = await self._grant_of(request, app_id, peer)
        return Passage(self, window=self._take_place() if self.mode is Mode.WINDOW else None, grant=grant)

    def check_waiting(self, port: str) -> None:
        """Raises EnrollmentRefused where it is no use for an app to wait for an operator's word."""
        self._check_port(port)
        if self.mode is Mode.WINDOW and not self.window_is_open:
            raise _no_window()

    def _check_port(self, port: str) -> None:
        if port in self.barred:
            raise _closed("the operator has closed it.", f"Ask the operator: rsocket-broker listeners open {port}")

    def _take_place(self) -> Window:
        window, now = self._window, self._clock()
        if window is None or not window.is_open(now):
            raise _no_window()
        if not window.begin(now):
            raise EnrollmentRefused(
                Step.LIMITS,
                "as many apps as the window has room for are enrolling at this moment.",
                "Try again in some seconds.",
            )
        return window

    async def _grant_of(self, request: SignRequest, app_id: str, peer: str) -> Grant:
        if not request.grant:
            raise EnrollmentRefused(
                Step.TOKEN,
                "this broker enrols by token, and the request has none.",
                "Ask the operator for one (rsocket-broker enrollment grant), and give it to the app's SDK. For an app "
                "whose SDK sends none, as Flipper's, the broker must be started with --enrollment window.",
            )
        if wait := self._wrong.wait(peer, self._clock()):
            raise too_often("this address shows wrong tokens, and", wait)
        assert self._grants is not None
        grant = await asyncio.to_thread(self._grants.find, request.grant, request.csr)
        try:
            if grant is None:
                raise EnrollmentRefused(
                    Step.TOKEN,
                    "the token is none of this broker's.",
                    "Check that the whole of it was copied, and that the proof is for this very signing request.",
                )
            check_grant(grant, app_id)
        except EnrollmentRefused:
            self._wrong.take(peer, self._clock())
            raise
        if (state := grant.state(self._now())) != "open":
            raise ended(state)
        return grant

    async def answer(self, request: SignRequest, device_id: str, trust_pem: bytes) -> dict[str, object]:
        """What is added to the answer for whoever has shown a token: `vouched`, see `grant_tokens.prove_answer`."""
        if not request.grant or self._grants is None:
            return {}
        vouched = await asyncio.to_thread(self._grants.answer, request.grant, request.csr, device_id, trust_pem)
        return {} if vouched is None else {"vouched": vouched}

    def use(self, database: Connection, grant: Grant, device_id: str) -> None:
        """See `Passage.use`. On whatever thread writes."""
        assert self._grants is not None
        self._grants.use(database, grant, device_id, self._now())

    def left(self, window: Window, *, issued: bool) -> None:
        """An exchange that had a place in `window` is over."""
        window.end(issued=issued)
        if window is self._window and window.used_up:
            self.close_window("its last certificate was issued")

    def enrolling(self) -> tuple[str, bool]:
        """The mode, and whether an app that is welcome in it may enrol now."""
        return self.mode.value, not self.barred.issuperset(PORTS) and (
            self.mode is not Mode.WINDOW or self.window_is_open
        )

    # --- the window --------------------------------------------------------------------------------------------------

    @property
    def window_is_open(self) -> bool:
        return self._window is not None and self._window.is_open(self._clock())

    def open_window(self, life: timedelta, uses: int | None) -> None:
        """Opens a window in the place of the one that may be open.

        Raises ApplicationError unless the mode is "window", ConfigurationError for a window that lets nobody in.
        """
        self.check_mode()
        window = Window.opened(self._clock(), life.total_seconds(), uses)
        if self.window_is_open:
            self.close_window("another one took its place")
        self._window, self._ends = window, self._now() + life
        self._timer = asyncio.get_running_loop().call_later(
            life.total_seconds(), self.close_window, "its time was over"
        )
        self._tell("opened", ends=self._ends, uses=uses)
        _log.info("enrolment is open for %s%s", show_duration(life), f", for {uses} certificates" if uses else "")
        self.on_change()

    def close_window(self, reason: str) -> bool:
        """Nobody begins to enrol any more; those under way go on. False when none was open."""
        window, self._window = self._window, None
        if self._timer is not None:
            self._timer.cancel()
        if window is None:
            return False
        window.close()
        self._tell("closed", reason=reason, issued=window.issued)
        _log.info("enrolment is closed: %s; certificates issued: %d", reason, window.issued)
        self.on_change()
        return True

    def check_mode(self) -> None:
        """Raises ApplicationError unless there are windows here."""
        if self.mode is not Mode.WINDOW:
            raise ApplicationError(
                f"This broker has no window: it was started with --enrollment {self.mode}. "
                "To stop enrolment: rsocket-broker listeners close insecure, and the same for ws_insecure."
            )

    def describe(self) -> dict[str, object]:
        """The mode, and the window if one is open, as JSON."""
        window = self._window if self.window_is_open else None
        return {
            "mode": self.mode.value,
            "window": None
            if window is None
            else {
                "ends": None if self._ends is None else timestamp(self._ends),
                "seconds_left": round(window.until - self._clock(), 1),
                "uses": window.uses,
                "issued": window.issued,
                "under_way": window.under_way,
            },
        }

    def _tell(self, action: str, **facts: object) -> None:
        if self._audit is not None:
            self._audit.note(Event.WINDOW, action=action, **facts)


def check_grant(grant: Grant, app_id: str) -> None:
    if grant.app_id != app_id:
        raise EnrollmentRefused(Step.TOKEN, "the token is for another app.", "Ask the operator for one of this app.")


def check_device(grant: Grant, names: Iterable[str]) -> None:
    """`names` are those that the device was proven to have."""
    if grant.device and grant.device not in names:
        raise EnrollmentRefused(
            Step.TOKEN, "the token is for another device.", "Each device has its own; ask the operator for this one's."
        )


def _no_window() -> EnrollmentRefused:
    return _closed("no window is open.", "Ask the operator to open one: rsocket-broker enrollment open --for 10m")


def _closed(reason: str, remedy: str) -> EnrollmentRefused:
    return EnrollmentRefused(Step.WINDOW, f"enrolment is closed: {reason}", remedy)
