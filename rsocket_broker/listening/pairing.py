"""The operator's end of a pairing: a window whose port is open for as long as the command that shows its code runs."""

import contextlib
import time
from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING

from rsocket_broker.admin.endpoint import Params, Stream, Verb
from rsocket_broker.audit import Audit
from rsocket_broker.credentials import APP_ID
from rsocket_broker.enrollment.enroller import Enroller
from rsocket_broker.errors import ApplicationError, ConfigurationError
from rsocket_broker.listening.listeners import Listeners
from rsocket_broker.listening.switches import Switches
from rsocket_broker.settings import EVERY_ADDRESS, LOCALHOST, ListenSettings, is_loopback

if TYPE_CHECKING:
    from rsocket_broker.enrollment.pairing import Pairings


class PairingDesk:
    """One per broker, on its loop."""

    def __init__(
        self, enroller: Enroller, audit: Audit, switches: Switches, listeners: Listeners, listen: ListenSettings
    ) -> None:
        self._enroller = enroller
        self._audit = audit
        self._switches = switches
        self._listeners = listeners
        self._listen = listen
        switches.on_port_closed = lambda: self.close("the plain port was closed")

    def close(self, reason: str) -> None:
        """No code is good any more."""
        if self._enroller.pairings is not None:
            self._enroller.pairings.close_all(reason)

    def verbs(self) -> Mapping[str, Verb | Stream]:
        """For the admin line. `pairing.open` streams what happens to one code, and ends it when it is closed."""
        answer = {"code": str, "number": int}
        return {
            "pairing.open": Stream(self._open, {"seconds": (int, float)}, {"app_id": str, "host": str}),
            "pairing.confirm": Verb(lambda params: self._decide(params, yes=True), answer),
            "pairing.deny": Verb(lambda params: self._decide(params, yes=False), answer),
        }

    async def _open(self, params: Params) -> AsyncIterator[object]:
        app_id = params.get("app_id", "")
        if app_id and not APP_ID.fullmatch(app_id):
            raise ConfigurationError("that is no app id: use letters, digits, '_', '.' and '-'.")
        host = params.get("host") or default_host(self._listen)
        async with contextlib.AsyncExitStack() as stack:
            port = await stack.enter_async_context(self._switches.held_for_pairing())
            secure = self._listeners.number("secure")
            if secure is None:
                raise ApplicationError("This broker has no port for sessions, and pairs nobody.")
            window = self._pairings().open(
                life=timedelta(seconds=params["seconds"]),
                host=host,
                insecure_port=port,
                secure_port=secure,
                app_id=app_id,
            )
            stack.callback(self._pairings().close, window, "the command that showed it has ended")
            for text in warnings(self._listen, host):
                yield {"event": "warning", "text": text}
            while (event := await window.events.get()) is not None:
                yield event

    def _pairings(self) -> "Pairings":
        """Made when the first code is wanted: most brokers show none, and start sooner."""
        if self._enroller.pairings is None:
            from rsocket_broker.enrollment.pairing import Pairings

            self._enroller.pairings = Pairings(self._audit, time.monotonic)
        return self._enroller.pairings

    def _decide(self, params: Params, *, yes: bool) -> dict[str, object]:
        self._pairings().decide(params["code"], params["number"], yes=yes)
        return {}


def default_host(listen: ListenSettings) -> str:
    """Under which name apps reach the broker. Raises ConfigurationError where that cannot be told."""
    if is_loopback(listen.plain_host):
        return LOCALHOST
    if listen.names:
        return listen.names[0]
    if listen.plain_host not in EVERY_ADDRESS:
        return listen.plain_host
    raise ConfigurationError(
        "this broker listens everywhere, and it cannot be told under which name apps reach it.\n"
        "Name it here with --host, and when the broker is started with: serve --name HOST"
    )


def warnings(listen: ListenSettings, host: str) -> list[str]:
    """What whoever shows the code may not have thought of."""
    found = []
    if is_loopback(listen.plain_host):
        found.append(
            "The port for enrolment is on this machine alone: only apps here, and on devices whose ports are forwarded "
            "here, can be paired. For others start the broker with --host and --insecure-host."
        )
    if not is_loopback(host) and host not in listen.certificate_hosts:
        found.append(
            f"The broker's certificate does not name {host}: an app that is paired there cannot connect to it later. "
            f"Start the broker with --name {host}."
        )
    return found
