"""The composition root: makes every part of a broker, joins them, and takes them down in the right order.

Start: the home is locked, opened and its half-done deployments settled; plugins are loaded; then the ports open, the
secure one first, so that whoever enrols finds it; at last ports.json says where. What can fail early fails early, and
no port opens on a broker that cannot serve.

Stop: `Broker.stop` is the written order. Its steps share STOP_S, whatever the peers do.
"""

import asyncio
import logging

import attrs

from rsocket_broker import __version__, jsontext
from rsocket_broker.admin.app_verbs import app_verbs
from rsocket_broker.admin.endpoint import Stream, Verb
from rsocket_broker.admin.run_folder import Ports, RunFolder
from rsocket_broker.admin.verbs import verbs as client_verbs
from rsocket_broker.audit import Audit
from rsocket_broker.authority import Authority, Record
from rsocket_broker.enrollment.containers import Containers
from rsocket_broker.enrollment.device_access import DeviceAccess
from rsocket_broker.enrollment.devices import DeviceRegistry
from rsocket_broker.enrollment.enroller import Enroller
from rsocket_broker.enrollment.forwards import AdbMonitor
from rsocket_broker.enrollment.grants import Grants
from rsocket_broker.enrollment.journal import Journal
from rsocket_broker.enrollment.mediums.adb_shell import server_address
from rsocket_broker.enrollment.mediums.registry import OPT_IN, Mediums
from rsocket_broker.enrollment.modes import PORTS, Gate, Mode
from rsocket_broker.errors import ConfigurationError
from rsocket_broker.lifecycle.contexts import CurrentContexts
from rsocket_broker.lifecycle.expiry import Expiry
from rsocket_broker.lifecycle.policy_keeper import PolicyKeeper
from rsocket_broker.lifecycle.recording_verbs import recording_verbs
from rsocket_broker.lifecycle.revocation import Revoker
from rsocket_broker.lifecycle.revocation_verbs import pages as revocation_pages
from rsocket_broker.lifecycle.revocation_verbs import verbs as revocation_verbs
from rsocket_broker.lifecycle.rotation import Rotator
from rsocket_broker.lifecycle.session_verbs import session_verbs
from rsocket_broker.lifecycle.sessions_plugin import SessionsPlugin
from rsocket_broker.lifecycle.upkeep import Upkeep
from rsocket_broker.listening.approvals import approval_verbs
from rsocket_broker.listening.lines import Lines, Served
from rsocket_broker.listening.listeners import Listeners
from rsocket_broker.listening.pairing import PairingDesk
from rsocket_broker.listening.switches import Switches
from rsocket_broker.observability.blocking import BlockingWatch
from rsocket_broker.observability.observation import Observation, Subject
from rsocket_broker.observability.recent import Recent
from rsocket_broker.plugin_api.app import App
from rsocket_broker.plugin_api.plugin import Plugin
from rsocket_broker.protocol.limits import SECURE
from rsocket_broker.quota import House
from rsocket_broker.routing.children import Children
from rsocket_broker.routing.endpoint import SecureEndpoint
from rsocket_broker.routing.policy_files import PolicyFiles
from rsocket_broker.routing.registry import LoadedPlugin, built_in, load_plugins
from rsocket_broker.routing.session import Session
from rsocket_broker.sessions.live import LiveSessions
from rsocket_broker.sessions.store import SessionStore
from rsocket_broker.settings import Settings, nearest
from rsocket_broker.state import STATE_FILE, State
from rsocket_broker.transports.http import Page

ADB = "adb"
IOS = "physical_ios"
"""Names of medium drivers, and of their settings."""
DEVICES = (ADB, IOS)
"""Those whose deployments are settled once the ports are open: a device may be away, and its command may hang."""

BUNDLED = (ADB, "filesystem", "simulator", "pairing", "physical_ios")
"""Our own drivers, which have nothing to set: what stands in their tables is a mistake of the one who wrote it."""

METRICS_PATH = "/metrics"

DRAIN_S, GOODBYE_S, FAREWELL_S, ADMIN_S = 2.0, 0.8, 0.8, 0.3
STOP_S = DRAIN_S + GOODBYE_S + FAREWELL_S + ADMIN_S
"""Seconds for each step of a stop, and for all: for what is under way, for closing the connections, for the plugins,
for the command line. Whoever stops us is promised 5 seconds."""

STOPPING = "the broker is stopping"

_log = logging.getLogger(__name__)

Verbs = dict[str, Verb | Stream]


@attrs.frozen(slots=True)
class _Home:
    """What is in a home that others work with."""

    policy: PolicyFiles
    state: State
    audit: Audit
    authority: Authority


class Broker:
    """One broker on one home. `start` once, `stop` once; after that make another."""

    def __init__(self, settings: Settings) -> None:
        """Raises ConfigurationError for settings that make no sense together."""
        self.settings = settings
        self.listeners: Listeners
        """What can be connected to, by name; set by `start`."""
        self.contexts: CurrentContexts | None = None
        """What TLS handshakes are made with; None before `start`."""
        self._adb_address = server_address(settings.adb)
        self._folder = RunFolder(settings.home)
        self._state: State | None = None
        self._audit: Audit | None = None
        self._authority: Authority | None = None
        self._gate: Gate | None = None
        self._enroller: Enroller | None = None
        self._desk: PairingDesk | None = None
        self._upkeep: Upkeep | None = None
        self._policy: PolicyKeeper | None = None
        self._endpoint: SecureEndpoint | None = None
        self._revoker: Revoker | None = None
        self._expiry: Expiry | None = None
        self._rotator: Rotator | None = None
        self._monitor: AdbMonitor | None = None
        self._monitoring: asyncio.Task[None] | None = None
        self._observation: Observation | None = None
        self._blocking: BlockingWatch | None = None
        self._recent = Recent()
        self._lines: Lines | None = None

    # --- start -------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Returns when every listener accepts. Raises BrokerError with the reason and the next step; call `stop`."""
        self._folder.acquire()
        self._recent.start()
        home = self._open_home()
        mediums = load_mediums(self.settings, DeviceRegistry(home.state))
        self._gate = gate = Gate(self.settings.mode, Grants(self.settings.home, home.state, home.audit), home.audit)
        self._enroller = enroller = self._make_enroller(home, mediums, gate)
        self._upkeep = upkeep = Upkeep(home.authority, enroller.delivery)
        plugins = load_plugins(self.settings.home / "plugins", self.settings.plugins, self.settings.plugin_tables)
        self._endpoint = endpoint = self._make_endpoint(home, plugins, upkeep)
        endpoint.router.devices = DeviceAccess(mediums.offered)
        upkeep.serve(endpoint)
        self._observation = self._observe(home.authority, enroller, endpoint, upkeep)
        await asyncio.to_thread(home.state.grow_log)
        await enroller.settle([name for name in mediums.offered if name not in DEVICES])
        verbs = self._join(home, enroller, endpoint, upkeep)
        verbs |= client_verbs(endpoint.sessions, plugins, self.status, upkeep.describe, endpoint.plugin_state)
        await endpoint.start_plugins()
        await self.listeners.start(verbs, closed=PORTS if gate.mode is Mode.WINDOW else ())
        self._watch_loop(endpoint)
        upkeep.start()
        self._begin_to_keep(endpoint)
        self._follow_devices(enroller, upkeep)

    def _open_home(self) -> _Home:
        """The policy is read before keys are made: whoever has mistyped a rule need not wait for them."""
        settings = self.settings
        files = PolicyFiles(settings.home, settings.vendor_policy, settings.allow_relay)
        files.read()
        self._state = state = State.open(settings.home / STATE_FILE)
        self._audit = audit = Audit(state)
        self._authority = authority = Authority.open(
            settings.home, state, hosts=settings.listen.certificate_hosts, passphrase=settings.passphrase, audit=audit
        )
        return _Home(files, state, audit, authority)

    def _make_enroller(self, home: _Home, mediums: Mediums, gate: Gate) -> Enroller:
        return Enroller(
            home.authority,
            mediums,
            Journal(home.state),
            Containers(home.state),
            limits=self.settings.enrollment,
            gate=gate,
            require_nonce=self.settings.require_nonce,
        )

    def _make_endpoint(self, home: _Home, plugins: list[LoadedPlugin], upkeep: Upkeep) -> SecureEndpoint:
        """Who is connected, the plugins that serve them (our own are added), and the policy between the two."""
        settings, authority = self.settings, home.authority
        plugins.append(built_in(upkeep.plugin))
        sessions = LiveSessions[Session](settings.sessions, settings.duplicate)
        children = Children(SessionStore.open(home.state, home.audit))
        plugins.append(built_in(SessionsPlugin(children, sessions.get)))
        named = [plugin.id for plugin in plugins if plugin.named]
        self._policy = policy = PolicyKeeper(home.policy, named, home.audit)
        return SecureEndpoint(
            authority.identify,
            plugins,
            sessions,
            access=policy.access,
            same_holder=authority.same_holder,
            children=children,
            known_limits=attrs.evolve(SECURE, lease_requests=settings.lease_requests),
            house=House(settings.identity_bytes, settings.total_bytes),
        )

    def _join(self, home: _Home, enroller: Enroller, endpoint: SecureEndpoint, upkeep: Upkeep) -> Verbs:
        """The ports, and what is done about sessions that are live. Gives the command line's verbs for all of it."""
        assert self._observation is not None and self._policy is not None and self._gate is not None
        authority, audit, sessions, children = home.authority, home.audit, endpoint.sessions, endpoint.children
        self.contexts = contexts = CurrentContexts(authority)
        served = Served(
            enroller=enroller, endpoint=endpoint, observation=self._observation, pages=self._pages(authority)
        )
        self._lines = lines = Lines(self.settings, served)
        self.listeners = listeners = Listeners(self.settings, self._folder, lines, contexts, self._observation)
        switches = Switches(listeners, self._gate, audit)
        self._desk = desk = PairingDesk(enroller, audit, switches, listeners, self.settings.listen)
        self._revoker = revoker = Revoker(authority, endpoint, enroller, contexts, lines.connections)
        self._expiry = Expiry(lambda session, why: children.end(session.node.id, why), sessions.__iter__)
        endpoint.watchers.append(self._expiry.watch)
        self._rotator = rotator = Rotator(authority, upkeep.spreader, endpoint, contexts)
        return {
            **switches.verbs(),
            **self._policy.verbs(),
            **revocation_verbs(revoker, authority),
            **rotator.verbs(),
            **session_verbs(children, sessions),
            **app_verbs(sessions),
            **recording_verbs(endpoint, audit),
            **desk.verbs(),
            **approval_verbs(enroller, audit),
        }

    def _begin_to_keep(self, endpoint: SecureEndpoint) -> None:
        """The authority and the policy change from now on, by themselves too."""
        assert self._rotator is not None and self._policy is not None
        self._rotator.start()
        self._policy.start(endpoint)

    def _observe(
        self, authority: Authority, enroller: Enroller, endpoint: SecureEndpoint, upkeep: Upkeep
    ) -> Observation:
        if self.settings.trace_frames:
            _log.info("the frames of %s go into this log", ", ".join(self.settings.trace_frames))
        return Observation(
            Subject(
                endpoint=endpoint,
                identify=authority.identify,
                certificates=authority.counts,
                rotation=lambda: authority.rotation,
                renewals=upkeep.renewals,
                enrollment=enroller.gate.enrolling,
                enrollments=enroller.outcomes.results,
                enrollment_seconds=enroller.outcomes.seconds,
            ),
            frames=self.settings.trace_frames,
            metrics=self.settings.listen.http_port is not None,
        )

    def _watch_loop(self, endpoint: SecureEndpoint) -> None:
        """Whoever holds up the event loop is named."""
        hosts = endpoint.router.hosts

        def blamed(plugin: str) -> None:
            if plugin in hosts:
                hosts[plugin].blocked += 1

        self._blocking = BlockingWatch({host.id: host.origin for host in hosts.values()}, blamed)
        self._blocking.start()

    def _pages(self, authority: Authority) -> dict[str, Page]:
        """What the HTTP port shows, by path."""
        assert self._observation is not None
        return {METRICS_PATH: self._observation.page, **revocation_pages(authority)}

    def _follow_devices(self, enroller: Enroller, upkeep: Upkeep) -> None:
        enroller.delivery.keep(enroller.settle([IOS]))
        if self._adb_address is None:
            return

        async def settle(serial: str) -> None:
            await enroller.settle([ADB])
            await upkeep.reachable([ADB])

        self._monitor = AdbMonitor(self._adb_address, self._forwards(), settle)
        self._monitoring = asyncio.create_task(self._monitor.run(), name="adb monitor")
        self._monitoring.add_done_callback(_log_failure)

    def _forwards(self) -> dict[int, int]:
        """The ports that devices have, and where they lead: those of the listeners that there are."""
        dialled = zip(("insecure", "secure"), self.settings.device_ports, strict=True)
        over_web = zip(("ws_insecure", "ws_secure"), self.settings.device_web_ports, strict=True)
        ports = {port: self.listeners.number(name) for name, port in (*over_web, *dialled)}
        return {port: number for port, number in ports.items() if number is not None}

    # --- while it runs -----------------------------------------------------------------------------------------------

    @property
    def ports(self) -> Ports:
        """Where it listens. Only once `start` has returned."""
        return self.listeners.ports

    @property
    def sessions(self) -> LiveSessions[Session]:
        """Who is connected. Only once `start` has returned."""
        assert self._endpoint is not None
        return self._endpoint.sessions

    def plugin(self, plugin_id: str) -> Plugin:
        """The plugin of that id: its public methods are its Python API. Only once `start` has returned.

        Raises ConfigurationError when there is none.
        """
        assert self._endpoint is not None
        host = self._endpoint.router.hosts.get(plugin_id)
        if host is None:
            raise ConfigurationError(
                f'this broker has no plugin "{plugin_id}". {nearest(plugin_id, self._endpoint.router.hosts)}'
            )
        return host.plugin

    async def app(self, client: str, plugin_id: str) -> App:
        """A connected client as a plugin sees it, to be handed to the plugin's methods, once they have met.

            network = broker.plugin("Network")
            await network.har(await broker.app("com.example.app", "Network"))

        `client` is a session's id, or `app_id[@device_id]` that fits one session. Raises ApplicationError when it fits
        none or several, or that app has no such plugin, Rejected where the policy keeps the two apart.
        """
        return (await self.sessions.find(client).plugins.seat_of(plugin_id)).app

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
            "listeners": self.listeners.describe(),
            "enrollment": None if self._gate is None else self._gate.describe(),
            "policy": None if self._policy is None else self._policy.describe(),
            "sessions": 0 if self._endpoint is None else len(self._endpoint.sessions),
            "plugins": [] if self._endpoint is None else self._endpoint.troubled_plugins(),
            "warnings": [each.describe() for each in self._recent.warnings()],
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
        if self._blocking is not None:
            self._blocking.stop()
        if self._gate is not None:
            self._gate.close_window("the broker stopped")
        if self._desk is not None:
            self._desk.close("the broker stopped")
        if self._lines is not None:
            self.listeners.stop()  # 1. nobody is sent here any more, and nobody gets in
        self._watch_no_more()
        await self._finish_work()  # 2. what is under way ends, or is out of time
        await self._say_goodbye()  # 3. the connections are closed,
        await self._let_plugins_go()  # and each plugin is told of its sessions' end
        await self._end_admin()  # 4. the command line has its answers
        if self._monitoring is not None:  # 5. nothing runs but us
            self._monitoring.cancel()
            await asyncio.wait([self._monitoring])
        if self._audit is not None:  # 6. what was noted is on the disk, the home is closed,
            self._audit.close()
        if self._authority is not None:
            self._authority.close()
        if self._state is not None:
            self._state.close()
        self._folder.release()  # and free for another
        self._recent.stop()

    def _watch_no_more(self) -> None:
        """Nothing ends, and nothing is read anew, by itself any more."""
        if self._expiry is not None:
            self._expiry.stop()
        if self._policy is not None:
            self._policy.stop()

    async def _finish_work(self) -> None:
        """Nothing new is begun meanwhile, by nobody."""
        if self._endpoint is not None:
            self._endpoint.router.ending = True
        work = [] if self._lines is None else [self._lines.drain(DRAIN_S)]
        if self._enroller is not None:
            work.append(self._enroller.drain(DRAIN_S))
        if self._rotator is not None:
            work.append(self._rotator.stop())
        if self._upkeep is not None:
            work.append(self._upkeep.stop())
        await asyncio.gather(*work)

    async def _say_goodbye(self) -> None:
        if self._lines is not None:
            await self._lines.close(STOPPING, GOODBYE_S)
            self.listeners.abort()

    async def _let_plugins_go(self) -> None:
        if self._endpoint is not None:
            await self._endpoint.stop(FAREWELL_S)

    async def _end_admin(self) -> None:
        if self._lines is not None:
            await self._lines.end_admin(STOPPING, ADMIN_S)
            self.listeners.abort_admin()
        if self._revoker is not None:
            self._revoker.stop()

    def reload_policy(self) -> None:
        """Reads the policy's files anew. To be called on the loop; nothing happens before `start` has got so far."""
        if self._policy is not None:
            self._policy.reload_soon()

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
    known = {*mediums.offered, *mediums.broken, ADB, *OPT_IN}
    for name in tables.keys() - known:
        raise ConfigurationError(f"[mediums.{name}]: there is no such driver. {nearest(name, known)}")
    return mediums


def _log_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.error("%s failed: Android devices are not followed any more", task.get_name(), exc_info=error)
