"""What an operator may open and close while the broker runs: listeners, and the provisioning window.

The plain port belongs to both: where enrolment is by window, it is open exactly as long as a window is, and it closes
by itself with the window, whoever or whatever has closed that.
"""

import asyncio
from collections.abc import Mapping
from datetime import timedelta

from rsocket_broker.admin.endpoint import Params, Stream, Verb
from rsocket_broker.audit import Audit, Event
from rsocket_broker.durations import LONGEST
from rsocket_broker.enrollment.modes import Gate, Mode
from rsocket_broker.errors import ApplicationError, ConfigurationError
from rsocket_broker.listening.listeners import Listeners

PLAIN = "insecure"
SESSIONS = ("secure", "ws_secure")

BY_WINDOW = "The plain port is open only while a window is. Run: rsocket-broker enrollment open --for 10m"


class Switches:
    """One per broker, on its loop."""

    def __init__(self, listeners: Listeners, gate: Gate, audit: Audit) -> None:
        self._listeners = listeners
        self._gate = gate
        self._audit = audit
        self._one_at_a_time = asyncio.Lock()
        self._closing: set[asyncio.Task[None]] = set()
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
        port = self._listeners.number(PLAIN) if self._listeners.listening(PLAIN) else None
        return {**self._gate.describe(), "insecure_port": port}

    # --- listeners ---------------------------------------------------------------------------------------------------

    async def _open(self, params: Params) -> dict[str, object]:
        """Raises ApplicationError, or ConfigurationError, with what to do."""
        name = params["name"]
        async with self._one_at_a_time:
            if name == PLAIN and self._gate.mode is Mode.WINDOW and not self._gate.window_is_open:
                raise ApplicationError(BY_WINDOW)
            changed = await self._listeners.open(name)
            if name == PLAIN:
                self._gate.barred = False
            return await self._told(name, changed, "opened")

    async def _close(self, params: Params) -> dict[str, object]:
        name = params["name"]
        async with self._one_at_a_time:
            changed = await self._listeners.close(name)
            if name == PLAIN:
                self._gate.barred = self._gate.mode is not Mode.WINDOW
                self._gate.close_window("its port was closed")
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
        if name in SESSIONS and count:
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
            opened = await self._listeners.open(PLAIN)
            try:
                self._gate.open_window(timedelta(seconds=params["seconds"]), params.get("uses"))
            except BaseException:
                if opened:
                    await self._listeners.close(PLAIN)
                raise
        await asyncio.to_thread(self._audit.flush)
        return self.status()

    async def _close_window(self) -> dict[str, object]:
        self._gate.check_mode()
        closed = self._gate.close_window("by hand")
        await self._shut_without_window()
        await asyncio.to_thread(self._audit.flush)
        return {**self.status(), "changed": closed}

    def _follow_window(self) -> None:
        if not self._gate.window_is_open:
            closing = asyncio.ensure_future(self._shut_without_window())
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    async def _shut_without_window(self) -> None:
        """Another window may have been opened in between: then the port stays."""
        async with self._one_at_a_time:
            if not self._gate.window_is_open:
                await self._listeners.close(PLAIN)
