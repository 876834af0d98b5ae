"""What an operator may open and close while the broker runs: listeners, and the provisioning window.

The ports for enrolment belong to both: where it is by window, they are open only as long as a window is, and close by
themselves with the window, whoever or whatever has closed that. A window ends when the last of them is closed.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import timedelta

from rsocket_broker.admin.endpoint import Params, Stream, Verb
from rsocket_broker.audit import Audit, Event
from rsocket_broker.durations import LONGEST
from rsocket_broker.enrollment.modes import Gate, Mode
from rsocket_broker.errors import ApplicationError, ConfigurationError
from rsocket_broker.listening.listeners import ENROLMENT, Listeners

PLAIN = ENROLMENT[0]
SESSIONS = ("secure", "ws_secure")
BROWSER = "browser"

BY_WINDOW = "The ports for enrolment are open only while a window is. Run: rsocket-broker enrollment open --for 10m"


class Switches:
    """One per broker, on its loop."""

    def __init__(self, listeners: Listeners, gate: Gate, audit: Audit) -> None:
        self._listeners = listeners
        self._gate = gate
        self._audit = audit
        self._one_at_a_time = asyncio.Lock()
        self._closing: set[asyncio.Task[None]] = set()
        self.on_port_closed: Callable[[], object] = lambda: None
        """Called when an operator has closed the plain port by hand."""
        gate.on_change = self._follow_window

    def verbs(self) -> Mapping[str, Verb | Stream]:
        """For the admin line. All answer with JSON objects, `listeners.list` with a list."""
        one = {"name": str}
        return {
            "listeners.list": Verb(lambda params: self._listeners.describe()),
            "listeners.open": Verb(self._open, one),
            "listeners.close": Verb(self._close, one),
            "enrollment.open": Verb(self._open_window, {"seconds": (int, float)}, {"uses": int}),
            "enrollment.close": Verb(lambda params: self._close_window()),
            "enrollment.status": Verb(lambda params: self.status()),
        }

    def status(self) -> dict[str, object]:
        """How apps come to their certificates at the moment, as JSON."""
        ports = {f"{name}_port": self._listeners.number(name) for name in ENROLMENT if self._listeners.listening(name)}
        return {**self._gate.describe(), **dict.fromkeys([f"{name}_port" for name in ENROLMENT]), **ports}

    # --- listeners ---------------------------------------------------------------------------------------------------

    async def _open(self, params: Params) -> dict[str, object]:
        """Raises ApplicationError, or ConfigurationError, with what to do."""
        name = params["name"]
        async with self._one_at_a_time:
            if name in ENROLMENT and self._gate.mode is Mode.WINDOW and not self._gate.window_is_open:
                raise ApplicationError(BY_WINDOW)
            changed = await self._listeners.open(name)
            self._gate.barred.discard(name)
            return await self._told(name, changed, "opened")

    async def _close(self, params: Params) -> dict[str, object]:
        name = params["name"]
        async with self._one_at_a_time:
            changed = await self._listeners.close(name)
            if name in ENROLMENT:
                self._gate.barred.add(name)
                if not any(map(self._listeners.listening, ENROLMENT)):
                    self._gate.close_window("its ports were closed")
            if name == PLAIN:
                self.on_port_closed()
            return {**await self._told(name, changed, "closed"), "warning": self._warning(name)}

    async def _told(self, name: str, changed: bool, action: str) -> dict[str, object]:
        if changed:
            self._audit.note(Event.LISTENER, action=action, name=name)
            await asyncio.to_thread(self._audit.flush)
        port = self._listeners.number(name)
        return {"name": name, "open": action == "opened", "port": port, "changed": changed}

    def _warning(self, name: str) -> str | None:
        """What whoever closed a listener may not have thought of."""
        (described,) = [each for each in self._listeners.describe() if each["name"] == name]
        count = described["connections"]
        if name in SESSIONS and not any(map(self._listeners.listening, SESSIONS)):
            return "No client can connect any more: both ports for sessions are closed."
        if name in (*SESSIONS, BROWSER) and count:
            living = "1 connection lives" if count == 1 else f"{count} connections live"
            return f"{living} on, but whoever loses one cannot come back here."
        closed = "Nothing reads the metrics any more, and no session below another can connect without a certificate."
        return closed if name == "http" else None

    # --- the window --------------------------------------------------------------------------------------------------

    async def _open_window(self, params: Params) -> dict[str, object]:
        """Raises ApplicationError, or ConfigurationError, with what to do; nothing is open then that was not before."""
        self._gate.check_mode()
        if not 0 < params["seconds"] <= LONGEST.total_seconds():
            raise ConfigurationError(f"a window is open for up to {LONGEST.days}d.")
        async with self._one_at_a_time:
            opened: list[str] = []
            try:
                for name in filter(self._has_port, ENROLMENT):
                    opened += [name] if await self._listeners.open(name) else []
                self._gate.open_window(timedelta(seconds=params["seconds"]), params.get("uses"))
            except BaseException:
                for name in opened:
                    await self._listeners.close(name)
                raise
            self._gate.barred.clear()
        await asyncio.to_thread(self._audit.flush)
        return self.status()

    async def _close_window(self) -> dict[str, object]:
        self._gate.check_mode()
        closed = self._gate.close_window("by hand")
        await self._shut_without_window()
        await asyncio.to_thread(self._audit.flush)
        return {**self.status(), "changed": closed}

    @contextlib.asynccontextmanager
    async def held_for_pairing(self) -> AsyncIterator[int]:
        """The plain port, open for the block, though nobody enrols by that in a broker that enrols by window.

        Raises ApplicationError where there is none, or an operator has closed it by hand.
        """
        async with self._one_at_a_time:
            if PLAIN in self._gate.barred:
                if self._gate.mode is not Mode.WINDOW or self._gate.window_is_open:  # others would come in by it
                    raise ApplicationError(
                        "The plain port was closed by hand. Run: rsocket-broker listeners open insecure"
                    )
                self._gate.barred.discard(PLAIN)
            await self._listeners.open(PLAIN)
            self._gate.held += 1
        try:
            number = self._listeners.number(PLAIN)
            assert number is not None
            yield number
        finally:
            self._gate.held -= 1
            if self._gate.mode is Mode.WINDOW:
                self._follow_window()

    def _follow_window(self) -> None:
        if not self._gate.window_is_open:
            closing = asyncio.ensure_future(self._shut_without_window())
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    async def _shut_without_window(self) -> None:
        """Another window may have been opened in between: then the port stays."""
        async with self._one_at_a_time:
            if not self._gate.window_is_open:
                for name in filter(self._has_port, ENROLMENT):
                    if name != PLAIN or not self._gate.held:
                        await self._listeners.close(name)

    def _has_port(self, name: str) -> bool:
        return self._listeners.number(name) is not None
