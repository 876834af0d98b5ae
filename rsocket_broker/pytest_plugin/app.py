"""The app that a test drives, through a broker that runs beside the test."""

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import attrs

from rsocket_broker.errors import ApplicationError
from rsocket_broker.identity import Identity
from rsocket_broker.plugin_api import App, Plugin
from rsocket_broker.pytest_plugin.broker_thread import BrokerThread
from rsocket_broker.routing.session import Session

T = TypeVar("T")

CALL_S = 10.0
"""Seconds that an app may take to answer when a test does not say: a screen may be loading meanwhile."""


@attrs.frozen(slots=True)
class Wanted:
    """Which app a test run is about: `app_id`, or `app_id@device_id`; "" is whichever is the only one connected."""

    name: str = ""

    def fits(self, session: Session) -> bool:
        app_id, _, device_id = self.name.partition("@")
        if session.is_child or session.suspended:
            return False
        return not app_id or (session.identity.app_id == app_id and device_id in ("", session.identity.device_id))

    def __str__(self) -> str:
        return self.name or "an app"


class AppUnderTest:
    """One app, whichever session it has just now: it may be killed and started anew in the middle of a test."""

    def __init__(self, thread: BrokerThread, wanted: Wanted, timeout: float) -> None:
        """`timeout` is how many seconds it may take to connect, unless a call says otherwise."""
        self._thread = thread
        self._wanted = wanted
        self._timeout = timeout

    @property
    def id(self) -> str:
        """The id of its session now, as `clients list` shows it."""
        return self._session().id

    @property
    def identity(self) -> Identity:
        """Who it is, by its certificate."""
        return self._session().identity

    @property
    def plugins(self) -> list[str]:
        """The ids of the plugins that it has, by its own account."""
        return list(self._session().announced)

    @property
    def connected(self) -> bool:
        return any(self._wanted.fits(session) for session in self._thread.sessions())

    def wait_connected(self, timeout: float | None = None) -> "AppUnderTest":
        """Returns once it is connected. Raises TimeoutError that says who is there instead."""
        self._session(timeout)
        return self

    def wait_restarted(self, since: str, timeout: float | None = None) -> "AppUnderTest":
        """Returns once it has another session than the one with the id `since`."""
        self._await(lambda session: self._wanted.fits(session) and session.id != since, "has not come back", timeout)
        return self

    def wait_plugin(self, plugin: str, timeout: float | None = None) -> "AppUnderTest":
        """Returns once the app says that it has `plugin`; some register theirs when a screen is first shown."""
        self._await(
            lambda session: self._wanted.fits(session) and plugin in session.announced,
            f"has no plugin {plugin}",
            timeout,
        )
        return self

    def call(self, plugin: str, method: str, params: object = None, timeout: float = CALL_S) -> Any:
        """Calls a method of the app's own side of `plugin`; its answer as JSON.

        Raises ApplicationError with the app's words when it answers with an error, Canceled when it is too late.
        """
        session = self._session()
        return self._thread.run(session.to_app.call(plugin, method, params, timeout), 2 * timeout)

    def send(self, plugin: str, method: str, params: object = None) -> None:
        """Calls a method one way: no answer, no error."""
        self._thread.run(self._session().to_app.send(plugin, method, params), CALL_S)

    def ask(self, plugin: str, work: Callable[[Plugin, App], Coroutine[Any, Any, T]], timeout: float = CALL_S) -> T:
        """What `work` gives, which is run on the broker's loop with a plugin of the broker and this app as it sees it.

        Raises what it raises, and TimeoutError after `timeout` seconds.
        """
        session = self._session()

        async def on_the_loop() -> T:
            app = await self._thread.broker.app(session.id, plugin)
            return await work(self._thread.broker.plugin(plugin), app)

        return self._thread.run(on_the_loop(), timeout)

    def _session(self, timeout: float | None = None) -> Session:
        return self._await(self._wanted.fits, "has not connected", timeout)

    def _await(self, fits: Callable[[Session], bool], fault: str, timeout: float | None) -> Session:
        limit = self._timeout if timeout is None else timeout
        try:
            found = self._thread.wait_session(fits, limit)
        except TimeoutError:
            raise TimeoutError(f"{self._wanted} {fault} within {limit:g} s. {self._others()}") from None
        self._check_only(found)
        return found

    def _check_only(self, found: Session) -> None:
        """Without a name there must be no choice."""
        names = {str(session.identity.principal) for session in self._thread.sessions() if self._wanted.fits(session)}
        if len(names) > 1:
            there = ", ".join(sorted(names))
            raise ApplicationError(f"Several apps are connected: {there}. Name one: --rsocket-app APP_ID[@DEVICE_ID].")

    def _others(self) -> str:
        ports = self._thread.broker.ports
        there = sorted(str(session.identity.principal) for session in self._thread.sessions())
        where = f"The broker enrols on port {ports.insecure_port} and serves on port {ports.secure_port}"
        return f"{where}; connected: {', '.join(there) or 'nobody'}."
