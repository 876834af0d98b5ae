"""Every listener of a broker by its name, with a switch of its own, and ports.json that says which are open.

    insecure    enrolment                          --insecure-host, --insecure-port
    secure      sessions                           --host, --secure-port
    ws_insecure enrolment over WebSocket           --insecure-host, --ws-insecure-port
    ws_secure   sessions over WebSocket            --host, --ws-secure-port
    http        pages and sessions, loopback only  --http-port
    browser     sessions of browser and Node apps, which prove nothing, loopback only: --browser-port
    admin       the command line; it has no switch, since nobody could use it any more

A listener that is closed refuses at TCP level. Those who came through it before stay.
"""

import asyncio
import os
import ssl
import time
from collections.abc import Collection, Mapping
from typing import Protocol

import attrs

from rsocket_broker.admin.endpoint import Stream, Verb
from rsocket_broker.admin.run_folder import Ports, RunFolder
from rsocket_broker.connection import Connection
from rsocket_broker.enrollment.modes import PORTS
from rsocket_broker.errors import ApplicationError
from rsocket_broker.listening.lines import Lines
from rsocket_broker.observability.observation import Observation
from rsocket_broker.settings import LOCALHOST, Settings, nearest
from rsocket_broker.transports.binding import Options
from rsocket_broker.transports.client_hello import ClientHello
from rsocket_broker.transports.listener import Listener
from rsocket_broker.transports.tcp import listen_tcp, listen_unix
from rsocket_broker.transports.tls import listen_tls

NAMES = ("insecure", "secure", "ws_insecure", "ws_secure", "http", "browser")
"""Those that have a switch."""
ENROLMENT = PORTS
"""Those through which apps come to their certificates, as RSocket and over WebSocket."""
ADMIN = "admin"

SPARE_CONNECTIONS = 256
"""Of the secure port, beyond the sessions: those that are being let in, refused, or on their way out."""
PLAIN_CONNECTIONS = 256
"""Of the plain port, where nobody has a reason to stay: more than may wait for an exchange. Each may make us hold two
messages, and a stranger who keeps them all open shuts nobody out, since the oldest gives way."""
HTTP_CONNECTIONS = 256
"""Of the loopback HTTP port, beyond the sessions: those that ask for a page, and those that show their token."""
BROWSER_CONNECTIONS = 64
"""Of the browser port, beyond the sessions: those whose request has not come, and those on their way out. One more is
turned away, since whoever is there may be at work."""
ADMIN_CONNECTIONS = 64
"""Commands at work at once."""
LOOPBACK = "127.0.0.1"
CLOSED = "enrolment is closed"
DISMISSAL_S = 0.8
"""Seconds for whoever was on the plain port for nothing to take that in."""


class Contexts(Protocol):
    """The TLS context for a handshake by the port it came to; asked on handshake threads."""

    def pick(self, hello: ClientHello) -> ssl.SSLContext: ...

    def pick_web(self, hello: ClientHello) -> ssl.SSLContext: ...


class Listeners:
    """The listeners of one broker. `start` once, `stop` and `abort` at the end."""

    def __init__(
        self,
        settings: Settings,
        folder: RunFolder,
        lines: Lines,
        contexts: Contexts,
        observation: Observation | None = None,
    ) -> None:
        self.ports: Ports
        """What is open, as ports.json says it; set by `start`."""
        self._settings = settings
        self._folder = folder
        self._lines = lines
        self._contexts = contexts
        self._observation = observation
        self._by_name: dict[str, Listener] = {}
        self._admin: Listener | None = None
        self._stopped = False
        self._switching = asyncio.Lock()
        self._dismissals: set[asyncio.Task[None]] = set()

    # --- by name -----------------------------------------------------------------------------------------------------

    def listening(self, name: str) -> bool:
        """Whether the listener `name` accepts."""
        listener = self._by_name.get(name)
        return listener is not None and listener.listening

    def number(self, name: str) -> int | None:
        """The port number of the listener `name`, open or closed; None where the settings want none."""
        listener = self._by_name.get(name)
        return None if listener is None else listener.port

    def describe(self) -> list[dict[str, object]]:
        """Every listener that has a switch, as JSON."""
        return [
            {
                "name": name,
                "open": self.listening(name),
                "port": self.number(name),
                "connections": self._by_name[name].open if name in self._by_name else 0,
            }
            for name in NAMES
        ]

    async def open(self, name: str) -> bool:
        """Accepts there again, on the number that it had; False when it is open already.

        Raises ApplicationError for a listener that is not there, ConfigurationError when its number has been taken.
        """
        async with self._switching:
            listener = self._find(name)
            if listener.listening:
                return False
            await listener.reopen()
            self._tell()
            return True

    async def close(self, name: str) -> bool:
        """Refuses newcomers there from now on, at TCP level; False when it is closed already. Sessions live on, and
        enrolments that are under way.

        Raises ApplicationError for a listener that is not there.
        """
        async with self._switching:
            listener = self._find(name)
            if not listener.listening:
                return False
            self._shut(name, listener)
            self._tell()
            return True

    def _find(self, name: str) -> Listener:
        if name == ADMIN:
            raise ApplicationError("The admin line cannot be closed: no command would reach this broker any more.")
        if name not in NAMES:
            raise ApplicationError(f'There is no listener "{name}". {nearest(name, NAMES)}')
        listener = self._by_name.get(name)
        if listener is None:
            option = f"--{name.replace('_', '-')}-port"
            raise ApplicationError(f"The listener {name} has no port. Give it one with serve {option}.")
        return listener

    def _shut(self, name: str, listener: Listener) -> None:
        listener.shut()
        if name in ENROLMENT:
            leaving = self._lines.dismiss_strangers(CLOSED, DISMISSAL_S, web=name != ENROLMENT[0])
            dismissal = asyncio.ensure_future(leaving)
            self._dismissals.add(dismissal)
            dismissal.add_done_callback(self._dismissals.discard)

    # --- start -------------------------------------------------------------------------------------------------------

    async def start(self, table: Mapping[str, Verb | Stream], closed: Collection[str] = ()) -> None:
        """Opens what the settings want, the secure port first, so that whoever enrols finds it, and says so.

        `table` is for the admin line. Those named in `closed` get their number, and wait for `open`.
        Raises ConfigurationError for one that cannot be had.
        """
        listen = self._settings.listen
        self._keep("secure", await self._listen_secure(listen.secure_port))
        if listen.ws_secure_port is not None:
            self._keep("ws_secure", await self._listen_web(listen.ws_secure_port))
        if listen.http_port is not None:
            self._keep("http", await self._listen_http(listen.http_port))
        if listen.browser_port is not None:
            self._keep("browser", await self._listen_browser(listen.browser_port))
        self._keep("insecure", await self._listen_plain(listen.insecure_port))
        if listen.ws_insecure_port is not None:
            self._keep("ws_insecure", await self._listen_plain_web(listen.ws_insecure_port))
        for name in closed:
            if name in self._by_name:
                self._by_name[name].shut()
        admin = await self._listen_admin(table)
        self.ports = Ports(pid=os.getpid(), started=time.time(), host=listen.host, admin=admin)
        self._tell()

    def _keep(self, name: str, listener: Listener) -> None:
        self._by_name[name] = listener
        if self._observation is not None:
            self._observation.opened(name, listener)

    def _tell(self) -> None:
        """Writes ports.json, unless it has been taken away for good."""
        if not self._stopped:
            self.ports = attrs.evolve(
                self.ports,
                insecure_port=self._open_number("insecure"),
                secure_port=self._open_number("secure"),
                ws_insecure_port=self._open_number("ws_insecure"),
                ws_secure_port=self._open_number("ws_secure"),
                http_port=self._open_number("http"),
                browser_port=self._open_number("browser"),
            )
            self._folder.publish(self.ports)

    def _open_number(self, name: str) -> int | None:
        return self.number(name) if self.listening(name) else None

    async def _listen_secure(self, port: int) -> Listener:
        listen = self._settings.listen
        return await listen_tls(
            listen.host,
            port,
            self._lines.secure,
            self._contexts.pick,
            max_connections=self._settings.sessions.total + SPARE_CONNECTIONS,
            plain_port=listen.insecure_port or None,
            options=Options("--host", "--secure-port"),
        )

    async def _listen_web(self, port: int) -> Listener:
        listen = self._settings.listen
        return await listen_tls(
            listen.host,
            port,
            self._lines.web().greet,
            self._contexts.pick_web,
            max_connections=self._settings.sessions.total + SPARE_CONNECTIONS,
            plain_port=listen.insecure_port or None,
            cut_strangers=True,
            options=Options("--host", "--ws-secure-port"),
        )

    async def _listen_http(self, port: int) -> Listener:
        site = self._lines.http()
        options = Options("--http-port", "--http-port")
        most = self._settings.sessions.total + HTTP_CONNECTIONS
        listener = await listen_tcp(LOCALHOST, port, site.greet, max_connections=most, options=options)
        site.port = listener.port
        return listener

    async def _listen_browser(self, port: int) -> Listener:
        site = self._lines.browser()
        options = Options("--browser-port", "--browser-port")
        most = self._settings.sessions.unverified + BROWSER_CONNECTIONS
        return await listen_tcp(LOCALHOST, port, site.greet, max_connections=most, options=options)

    async def _listen_plain(self, port: int) -> Listener:
        return await listen_tcp(
            self._settings.listen.plain_host,
            port,
            lambda: self._lines.plain(self._open_number("secure")),
            max_connections=PLAIN_CONNECTIONS,
            displace=True,
            options=Options("--insecure-host", "--insecure-port"),
        )

    async def _listen_plain_web(self, port: int) -> Listener:
        return await listen_tcp(
            self._settings.listen.plain_host,
            port,
            self._lines.plain_web().greet,
            max_connections=PLAIN_CONNECTIONS,
            displace=True,
            options=Options("--insecure-host", "--ws-insecure-port"),
        )

    async def _listen_admin(self, table: Mapping[str, Verb | Stream]) -> str:
        """The admin line, and where it is as ports.json says it."""
        path = self._folder.socket_path()
        token = None if path is not None else self._folder.make_token()

        def receiver() -> Connection:
            return self._lines.admin(table, token)

        if path is not None:
            self._admin = await listen_unix(path, receiver, max_connections=ADMIN_CONNECTIONS)
            return str(path)
        self._admin = await listen_tcp(LOOPBACK, 0, receiver, max_connections=ADMIN_CONNECTIONS)
        return f"{LOOPBACK}:{self._admin.port}"

    # --- stop --------------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Nobody is sent here any more, and nobody gets in. What came through lives on."""
        self._stopped = True
        self._folder.retract()
        for listener in (*self._by_name.values(), *filter(None, [self._admin])):
            listener.close()

    def abort(self) -> None:
        """Drops whoever is still there: handshakes on their way, and peers that have not read the goodbye."""
        for listener in self._by_name.values():
            listener.abort()

    def abort_admin(self) -> None:
        """The same for the admin line, whose commands wait for the end of everything else."""
        if self._admin is not None:
            self._admin.abort()
