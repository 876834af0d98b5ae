"""The composition root: makes every part of a broker, joins them, and takes them down in the right order.

Start: the home is locked, opened and its half-done deployments settled; plugins are loaded; then the ports open, the
secure one first, so that whoever enrols finds it; at last ports.json says where. What can fail early fails early, and
no port opens on a broker that cannot serve.

Stop: `Broker.stop` is the written order. Its steps share STOP_S, whatever the peers do.
"""

import asyncio
import logging
import os
import ssl
import threading
import time
from collections.abc import Mapping
from weakref import WeakSet

import attrs

from rsocket_broker import __version__, jsontext
from rsocket_broker.admin.endpoint import AdminEndpoint, Stream, Verb
from rsocket_broker.admin.run_folder import Ports, RunFolder
from rsocket_broker.admin.verbs import verbs
from rsocket_broker.authority import Authority, Record
from rsocket_broker.connection import Connection, Responder, Resumer
from rsocket_broker.enrollment.devices import DeviceRegistry
from rsocket_broker.enrollment.endpoint import PlainEndpoint
from rsocket_broker.enrollment.enroller import Enroller
from rsocket_broker.enrollment.first_bytes import FirstBytes
from rsocket_broker.enrollment.forwards import AdbMonitor
from rsocket_broker.enrollment.journal import Journal
from rsocket_broker.enrollment.mediums.adb_shell import server_address
from rsocket_broker.enrollment.mediums.registry import Mediums
from rsocket_broker.errors import ConfigurationError
from rsocket_broker.observability.observation import Observation, Subject
from rsocket_broker.protocol.limits import PLAIN, SECURE, Limits
from rsocket_broker.protocol.protocol import Protocol
from rsocket_broker.protocol.relay import Relaying
from rsocket_broker.protocol.resume import Pool
from rsocket_broker.quiet_log import QuietLog
from rsocket_broker.routing.endpoint import SecureEndpoint
from rsocket_broker.routing.registry import load_plugins
from rsocket_broker.routing.session import Session
from rsocket_broker.sessions.live import LiveSessions
from rsocket_broker.sessions.resumption import RETAINED_ALL
from rsocket_broker.settings import LOCALHOST, Settings, nearest
from rsocket_broker.state import STATE_FILE, State
from rsocket_broker.transports.base import Receiver
from rsocket_broker.transports.binding import Options
from rsocket_broker.transports.client_hello import ClientHello
from rsocket_broker.transports.http import Page, Site, Socket
from rsocket_broker.transports.listener import Listener
from rsocket_broker.transports.tcp import listen_tcp, listen_unix
from rsocket_broker.transports.tls import listen_tls
from rsocket_broker.transports.tls_contexts import ServerContexts

ADB = "adb"
"""The name of the medium driver whose deployments wait for a device, and of its settings."""

BUNDLED = (ADB, "filesystem", "simulator")
"""Our own drivers, which have nothing to set: what stands in their tables is a mistake of the one who wrote it."""

SPARE_CONNECTIONS = 256
"""Of the secure port, beyond the sessions: those that are being let in, refused, or on their way out."""
PLAIN_CONNECTIONS = 256
"""Of the plain port, where nobody has a reason to stay: more than may wait for an exchange. Each may make us hold two
messages, and a stranger who keeps them all open shuts nobody out, since the oldest gives way."""
WEB_WAITING = 1024
"""Of the WebSocket port, those whose TLS is done and whose request is on its way: what handshakes make in a second, and
so what comes together when all return at once over a slow network."""
HTTP_CONNECTIONS = 256
"""Of the loopback HTTP port: those that ask, and those that wait for the answer to their SETUP, all of this machine."""
ADMIN_CONNECTIONS = 64
"""Commands at work at once."""
LOOPBACK = "127.0.0.1"
METRICS_PATH = "/metrics"
RSOCKET_PATH = "/rsocket"
"""Where RSocket over WebSocket is served, on either port."""
ADMIN = attrs.evolve(SECURE, streams=64)

DRAIN_S, GOODBYE_S, FAREWELL_S, ADMIN_S = 2.0, 0.8, 0.8, 0.3
STOP_S = DRAIN_S + GOODBYE_S + FAREWELL_S + ADMIN_S
"""Seconds for each step of a stop, and for all: for what is under way, for closing the connections, for the plugins,
for the command line. Whoever stops us is promised 5 seconds."""

STOPPING = "the broker is stopping"

_log = logging.getLogger(__name__)


class Broker:
    """One broker on one home. `start` once, `stop` once; after that make another."""

    def __init__(self, settings: Settings) -> None:
        """Raises ConfigurationError for settings that make no sense together."""
        self.settings = settings
        self.ports: Ports
        """Where it listens; set by `start`."""
        self.contexts: CurrentContexts | None = None
        """What TLS handshakes are made with; None before `start`."""
        self._adb_address = server_address(settings.adb)
        self._secure = attrs.evolve(
            SECURE,
            resume_seconds=settings.resume_seconds,
            resume_bytes=settings.resume_bytes,
            lease_requests=settings.lease_requests,
        )
        self._retained = Pool(RETAINED_ALL)
        self._folder = RunFolder(settings.home)
        self._state: State | None = None
        self._authority: Authority | None = None
        self._enroller: Enroller | None = None
        self._endpoint: SecureEndpoint | None = None
        self._monitor: AdbMonitor | None = None
        self._monitoring: asyncio.Task[None] | None = None
        self._listeners: list[Listener] = []
        self._admin: Listener | None = None
        self._observation: Observation | None = None
        self._lines: WeakSet[Connection] = WeakSet()
        self._admin_lines: WeakSet[Connection] = WeakSet()

    # --- start -------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Returns when every listener accepts. Raises BrokerError with the reason and the next step; call `stop`."""
        settings = self.settings
        self._folder.acquire()
        self._state = state = State.open(settings.home / STATE_FILE)
        self._authority = authority = Authority.open(
            settings.home, state, hosts=settings.listen.certificate_hosts, passphrase=settings.passphrase
        )
        mediums = load_mediums(settings, DeviceRegistry(state))
        self._enroller = enroller = Enroller(authority, mediums, Journal(state), limits=settings.enrollment)
        plugins = load_plugins(settings.home / "plugins", settings.plugins, settings.plugin_tables)
        sessions = LiveSessions[Session](settings.sessions, settings.duplicate)
        self._endpoint = endpoint = SecureEndpoint(
            authority.identify, plugins, sessions, relay=settings.allow_relay, same_holder=authority.same_holder
        )
        self._observation = self._observe(authority, enroller, endpoint)
        await asyncio.to_thread(state.grow_log)
        await enroller.settle([name for name in mediums.offered if name != ADB])  # devices are waited for later
        self.contexts = contexts = CurrentContexts(authority)
        secure = await self._listen_secure(endpoint, contexts)
        web = await self._listen_web(endpoint, contexts)
        http = await self._listen_http(endpoint)
        plain = await self._listen_plain(enroller, secure.port)
        admin = await self._listen_admin(verbs(sessions, plugins, self.status))
        self._follow_devices(enroller, plain.port, secure.port)
        self.ports = Ports(
            pid=os.getpid(),
            started=time.time(),
            host=settings.listen.host,
            insecure_port=plain.port,
            secure_port=secure.port,
            http_port=None if http is None else http.port,
            ws_secure_port=None if web is None else web.port,
            admin=admin,
        )
        self._folder.publish(self.ports)

    def _observe(self, authority: Authority, enroller: Enroller, endpoint: SecureEndpoint) -> Observation:
        if self.settings.trace_frames:
            _log.info("the frames of %s go into this log", ", ".join(self.settings.trace_frames))
        return Observation(
            Subject(
                endpoint=endpoint,
                identify=authority.identify,
                certificates=authority.counts,
                enrollments=enroller.results,
                enrollment_seconds=enroller.seconds,
            ),
            frames=self.settings.trace_frames,
            metrics=self.settings.listen.http_port is not None,
        )

    async def _listen_secure(self, endpoint: SecureEndpoint, contexts: "CurrentContexts") -> Listener:
        listen = self.settings.listen
        return self._opened(
            "secure",
            await listen_tls(
                listen.host,
                listen.secure_port,
                lambda: self._receiver("secure", self._secure_line(endpoint)),
                contexts.pick,
                max_connections=self.settings.sessions.total + SPARE_CONNECTIONS,
                plain_port=listen.insecure_port or None,
                options=Options("--host", "--secure-port"),
            ),
        )

    async def _listen_web(self, endpoint: SecureEndpoint, contexts: "CurrentContexts") -> Listener | None:
        """Sessions over WebSocket, for clients with a certificate."""
        listen = self.settings.listen
        if listen.ws_secure_port is None:
            return None
        socket = Socket(lambda: self._receiver("ws_secure", self._secure_line(endpoint)), SECURE.frame)
        site = Site({}, {RSOCKET_PATH: socket}, max_waiting=WEB_WAITING)
        return self._opened(
            "ws_secure",
            await listen_tls(
                listen.host,
                listen.ws_secure_port,
                site.greet,
                contexts.pick_web,
                max_connections=self.settings.sessions.total + SPARE_CONNECTIONS,
                plain_port=listen.insecure_port or None,
                options=Options("--host", "--ws-secure-port"),
            ),
        )

    async def _listen_http(self, endpoint: SecureEndpoint) -> Listener | None:
        """HTTP for this machine. Whoever comes here shows no certificate, so the limits are those for strangers."""
        port = self.settings.listen.http_port
        if port is None:
            return None
        socket = Socket(lambda: self._receiver("http", self._line(PLAIN, endpoint.responder())), PLAIN.frame)
        site = Site(self._pages(), {RSOCKET_PATH: socket}, loopback=True)
        listener = await listen_tcp(
            LOCALHOST,
            port,
            site.greet,
            max_connections=HTTP_CONNECTIONS,
            options=Options("--http-port", "--http-port"),
        )
        site.port = listener.port
        return self._opened("http", listener)

    def _pages(self) -> dict[str, Page]:
        """What the HTTP port shows, by path."""
        assert self._observation is not None
        return {METRICS_PATH: self._observation.page}

    async def _listen_plain(self, enroller: Enroller, secure_port: int) -> Listener:
        listen, log = self.settings.listen, QuietLog(_log)

        def receiver() -> FirstBytes:
            return FirstBytes(self._receiver("insecure", self._line(PLAIN, PlainEndpoint(enroller))), log, secure_port)

        options = Options("--insecure-host", "--insecure-port")
        return self._opened(
            "insecure",
            await listen_tcp(
                listen.plain_host,
                listen.insecure_port,
                receiver,
                max_connections=PLAIN_CONNECTIONS,
                displace=True,
                options=options,
            ),
        )

    async def _listen_admin(self, table: Mapping[str, Verb | Stream]) -> str:
        """The admin line, and where it is as ports.json says it."""
        path = self._folder.socket_path()
        token = None if path is not None else self._folder.make_token()

        def receiver() -> Connection:
            connection = Connection(Protocol.server(ADMIN, time.monotonic()), AdminEndpoint(table, token))
            self._admin_lines.add(connection)
            return connection

        if path is not None:
            self._admin = await listen_unix(path, receiver, max_connections=ADMIN_CONNECTIONS)
            return str(path)
        self._admin = await listen_tcp(LOOPBACK, 0, receiver, max_connections=ADMIN_CONNECTIONS)
        return f"{LOOPBACK}:{self._admin.port}"

    def _secure_line(self, endpoint: SecureEndpoint) -> Connection:
        """A line for a client with a certificate, who may come back to its session."""
        responder = endpoint.responder()
        return self._line(self._secure, responder, responder.resume)

    def _line(self, limits: Limits, responder: Responder, resumer: Resumer | None = None) -> Connection:
        kind = Relaying if self.settings.allow_relay else Protocol
        protocol = kind.server(limits, time.monotonic(), self._retained)
        connection = Connection(protocol, responder, resumer=resumer)
        self._lines.add(connection)
        return connection

    def _receiver(self, port: str, connection: Connection) -> Receiver:
        """What the transport of a connection is given for it."""
        return connection if self._observation is None else self._observation.receiver(port, connection)

    def _opened(self, port: str, listener: Listener) -> Listener:
        self._listeners.append(listener)
        if self._observation is not None:
            self._observation.opened(port, listener)
        return listener

    def _follow_devices(self, enroller: Enroller, plain_port: int, secure_port: int) -> None:
        if self._adb_address is None:
            return

        async def settle(serial: str) -> None:
            await enroller.settle([ADB])

        enrolment, session = self.settings.device_ports
        self._monitor = AdbMonitor(self._adb_address, {enrolment: plain_port, session: secure_port}, settle)
        self._monitoring = asyncio.create_task(self._monitor.run(), name="adb monitor")
        self._monitoring.add_done_callback(_log_failure)

    # --- while it runs -----------------------------------------------------------------------------------------------

    @property
    def sessions(self) -> LiveSessions[Session]:
        """Who is connected. Only once `start` has returned."""
        assert self._endpoint is not None
        return self._endpoint.sessions

    def certificates(self) -> list[Record]:
        """Every certificate that was issued here. Only once `start` has returned."""
        assert self._authority is not None
        return self._authority.certificates()

    def status(self) -> dict[str, object]:
        """What the broker says of itself, as JSON."""
        devices = [] if self._monitor is None else self._monitor.status()
        return {
            "version": __version__,
            "home": str(self.settings.home),
            "ports": jsontext.parse(self.ports.to_json()),
            "sessions": 0 if self._endpoint is None else len(self._endpoint.sessions),
            "adb": {
                "problem": None if self._monitor is None else self._monitor.problem or None,
                "devices": [
                    {"serial": each.serial, "state": each.state, "problem": each.problem or None} for each in devices
                ],
            },
        }

    # --- stop --------------------------------------------------------------------------------------------------------

    async def stop(self) -> None:
        """Ends everything, from whatever point `start` has reached, within STOP_S and a little. Never raises."""
        if self._observation is not None:
            self._observation.stop()
        self._folder.retract()  # 1. nobody is sent here any more,
        for listener in filter(None, (*self._listeners, self._admin)):  # and nobody gets in
            listener.close()
        await self._finish_work()  # 2. what is under way ends, or is out of time
        await self._say_goodbye()  # 3. the connections are closed,
        await self._let_plugins_go()  # and each plugin is told of its sessions' end
        await self._end_admin()  # 4. the command line has its answers
        if self._monitoring is not None:  # 5. nothing runs but us
            self._monitoring.cancel()
            await asyncio.wait([self._monitoring])
        if self._state is not None:  # 6. the home is closed,
            self._state.close()
        self._folder.release()  # and free for another

    async def _finish_work(self) -> None:
        work = [line.drain_requests(DRAIN_S) for line in self._lines]
        if self._enroller is not None:
            work.append(self._enroller.drain(DRAIN_S))
        await asyncio.gather(*work)

    async def _say_goodbye(self) -> None:
        await asyncio.gather(*(line.close(STOPPING, grace=GOODBYE_S) for line in self._lines))
        for listener in self._listeners:
            listener.abort()  # handshakes that were on their way, and peers that have not read the goodbye

    async def _let_plugins_go(self) -> None:
        if self._endpoint is not None:
            await self._endpoint.stop(FAREWELL_S)

    async def _end_admin(self) -> None:
        await asyncio.gather(*(line.drain_requests(ADMIN_S) for line in self._admin_lines))
        await asyncio.gather(*(line.close(STOPPING, grace=ADMIN_S) for line in self._admin_lines))
        if self._admin is not None:
            self._admin.abort()

    def abandon(self) -> None:
        """For a process that ends at once: takes away what others would find. May be called from any thread."""
        self._folder.release()


def load_mediums(settings: Settings, devices: DeviceRegistry) -> Mediums:
    """The medium drivers with their settings. Raises ConfigurationError for settings of a driver that is not there."""
    tables = dict(settings.medium_tables)
    for name in filter(tables.get, BUNDLED):
        hint = " The server is set by adb in [serve], or --adb." if name == ADB else ""
        raise ConfigurationError(f"[mediums.{name}] has no settings; take them out.{hint}")
    tables[ADB] = {"server": settings.adb}
    mediums = Mediums.load(devices, tables)
    known = {*mediums.offered, *mediums.broken, ADB}
    for name in tables.keys() - known:
        raise ConfigurationError(f"[mediums.{name}]: there is no such driver. {nearest(name, known)}")
    return mediums


class CurrentContexts:
    """The TLS contexts for the certificate of the moment: the authority makes a new one before the old one ends.

    `pick` and `pick_web` are called from handshake threads.
    """

    def __init__(self, authority: Authority) -> None:
        self._authority = authority
        self._lock = threading.Lock()
        self._credentials = authority.server_credentials()
        self._contexts = ServerContexts(self._credentials)

    def pick(self, hello: ClientHello) -> ssl.SSLContext:
        return self._current().pick(hello)

    def pick_web(self, hello: ClientHello) -> ssl.SSLContext:
        return self._current().pick_web(hello)

    def _current(self) -> ServerContexts:
        credentials = self._authority.server_credentials()
        with self._lock:
            if credentials is not self._credentials:
                self._credentials, self._contexts = credentials, ServerContexts(credentials)
            return self._contexts

    def renew(self) -> None:
        """Ends all that TLS sessions could be resumed with; see `ServerContexts.renew`."""
        self._current().renew()


def _log_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.error("%s failed: Android devices are not followed any more", task.get_name(), exc_info=error)
