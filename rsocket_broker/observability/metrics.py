"""The page of metrics: what the parts of a broker count anyway, read when Prometheus asks, in its text format.

FAMILIES is the list of what there is; `docs/reference/metrics.md` is held to it. Labels have few values: ports,
results, and the ids of the plugins that were loaded, never a client's: a thousand phones would be a thousand series of
each family, and names of people's devices in somebody else's database. `clients show` tells of one client.
"""

import asyncio
import itertools
import platform
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import attrs

from rsocket_broker import __version__
from rsocket_broker.authority.rotation import Phase, Rotation
from rsocket_broker.histogram import Histogram
from rsocket_broker.observability.loop_lag import LoopLag
from rsocket_broker.observability.traffic import Levels, Sums, Traffic, in_turns
from rsocket_broker.protocol.starts import ENGINE
from rsocket_broker.quota import House, Kind
from rsocket_broker.routing.access import Access
from rsocket_broker.routing.calls import Calls
from rsocket_broker.routing.endpoint import SecureEndpoint
from rsocket_broker.routing.plugin_host import PluginHost
from rsocket_broker.routing.session import Session
from rsocket_broker.transports.listener import Counters, Listener

if TYPE_CHECKING:
    from prometheus_client.core import Metric

PREFIX: Final = "rsocket_broker_"
SOON: Final = timedelta(days=7)
"""Before its end a certificate is told as expiring for so long: a quarter of what a client's lasts."""
REST: Final = 10
"""A page is kept for so many times as long as it took to make: whoever asks without pause costs the loop a tenth."""
COUNTED_FOR: Final = 30.0
"""Seconds for which the numbers of certificates are kept: they come from the disk and change slowly."""
SYSTEMS: Final = frozenset({"Android", "iOS", "MacOS", "Windows", "Linux"})
"""What a client may call its system. Anything else it says is `other`."""

CertificateCounts = Callable[[timedelta], list[tuple[str, str, int, int, int]]]
"""`Authority.counts`."""


class Family(NamedTuple):
    """Samples of one name. `kind` is gauge, counter or histogram."""

    name: str
    kind: str
    labels: tuple[str, ...]
    help: str


class Sample(NamedTuple):
    family: str
    labels: tuple[str, ...]
    value: float | Histogram


_PORT: Final = ("port",)
_PLUGIN: Final = ("plugin",)

FAMILIES: Final = (
    Family("build_info", "gauge", ("version", "python", "loop", "frames"), "Always 1; what runs here."),
    Family("sessions", "gauge", ("kind", "transport", "os"), "Live sessions, suspended ones included."),
    Family("sessions_suspended", "gauge", (), "Sessions whose client has lost its line and may come back."),
    Family("connections", "gauge", _PORT, "Connections that RSocket is spoken on."),
    Family("streams_open", "gauge", _PORT, "Open streams of both sides."),
    Family("waiting_bytes", "gauge", _PORT, "Bytes that are ready for peers which have not taken them."),
    Family("held_bytes", "gauge", ("what",), "Bytes that clients make the broker hold, where they are many."),
    Family("lines_crowded", "gauge", (), "Lines that are not read from, since their client holds all it may."),
    Family("crowded_total", "counter", (), "How often a line was made to wait for that reason."),
    Family("received_bytes_total", "counter", _PORT, "Bytes of RSocket frames that came."),
    Family("sent_bytes_total", "counter", _PORT, "Bytes of RSocket frames that were written."),
    Family("received_frames_total", "counter", _PORT, "Frames that came."),
    Family("sent_frames_total", "counter", _PORT, "Frames that were written."),
    Family("requests_total", "counter", _PORT, "Requests of peers that were taken in, of every interaction."),
    Family(
        "stalled_seconds_total",
        "counter",
        _PORT,
        "Time in which peers that read too slowly, or were away, kept us from writing.",
    ),
    Family("held_seconds_total", "counter", _PORT, "Time in which peers were not read from, for slower ones."),
    Family("resumptions_total", "counter", _PORT, "Connections that went on over a new line."),
    Family("listener_open", "gauge", _PORT, "1 where connections are taken, 0 where the port is closed."),
    Family("accepted_total", "counter", _PORT, "Connections that the system handed over."),
    Family("turned_away_total", "counter", _PORT, "Connections closed at once, since there were too many."),
    Family("displaced_total", "counter", _PORT, "Connections dropped to make room for newcomers."),
    Family("tls_handshakes_total", "counter", ("port", "result"), "Handshakes by what became of them."),
    Family("tls_handshake_seconds", "histogram", _PORT, "From accept to the end of handshakes that succeeded."),
    Family("setups_total", "counter", ("result",), "Connections to the session ports by what became of their SETUP."),
    Family("setup_seconds", "histogram", (), "From the end of the handshake to a SETUP that was accepted."),
    Family("enrollment_open", "gauge", ("mode",), "1 while apps may enrol, 0 while they may not."),
    Family("enrollments_total", "counter", ("medium", "result"), "Requests for a certificate by what became of them."),
    Family("enrollment_seconds", "histogram", (), "Duration of enrolments that succeeded."),
    Family("certificates", "gauge", ("profile", "status"), "Certificates that were ever issued."),
    Family("certificates_valid", "gauge", ("profile",), "Active certificates that are between their dates."),
    Family("certificates_expiring", "gauge", ("profile",), "Those of them that end within 7 days."),
    Family("ca_generation", "gauge", (), "The generation of the CA that signs."),
    Family("rotation_phase", "gauge", ("phase",), "1 for the phase of the CA's rotation, 0 for the others."),
    Family("renewals_total", "counter", ("way", "result"), "Tries to renew a client's certificate by what they gave."),
    Family("calls_total", "counter", ("plugin", "result"), "Requests to handlers of plugins by how they ended."),
    Family("call_seconds", "histogram", _PLUGIN, "Duration of requests whose handlers took their time and succeeded."),
    Family("answer_seconds", "histogram", (), "From a read to the answers that were given at once, run by run."),
    Family("calls_refused_total", "counter", (), "Calls, either way or between clients, that the policy has refused."),
    Family("policy_rules", "gauge", ("layer",), "Rules of the policy that is in force."),
    Family("policy_outdated", "gauge", (), "1 while the policy's files have changed and cannot be used, else 0."),
    Family("policy_hook_total", "counter", ("result",), "Questions to the policy's hook by what it said, or failed."),
    Family("handlers_running", "gauge", _PLUGIN, "Handlers that run now and hold a place of their plugin."),
    Family("calls_waiting", "gauge", _PLUGIN, "Requests that wait for a place."),
    Family("events_waiting", "gauge", _PLUGIN, "Events that wait for their turn."),
    Family("events_waiting_bytes", "gauge", _PLUGIN, "Bytes of these events."),
    Family("events_dropped_total", "counter", _PLUGIN, "Events that found their queue full."),
    Family("plugin_up", "gauge", _PLUGIN, "1 while the plugin serves, 0 while it is down after failures."),
    Family("plugin_restarts_total", "counter", _PLUGIN, "How often the plugin was started anew after failures."),
    Family("plugin_blocked_total", "counter", _PLUGIN, "How often a handler of the plugin held up the event loop."),
    Family("app_calls_total", "counter", ("plugin", "result"), "Calls to apps by how they ended."),
    Family("app_call_seconds", "histogram", _PLUGIN, "Duration of calls to apps that succeeded."),
    Family("relayed_total", "counter", _PORT, "Requests that were passed on from one client to another."),
    Family(
        "relays_failed_total",
        "counter",
        _PORT,
        "Requests to other clients, where they are allowed, that were refused, dropped or cut.",
    ),
    Family("relays_open", "gauge", (), "Requests that are being passed on now."),
    Family("event_loop_lag_seconds", "histogram", (), "By how much the event loop came too late, twice a second."),
)


@attrs.frozen(slots=True, kw_only=True)
class Sources:
    """Where the numbers come from. All of it is read at the moment of asking."""

    endpoint: SecureEndpoint
    listeners: Mapping[str, Listener]
    traffic: Mapping[str, Traffic]
    enrollment: Callable[[], tuple[str, bool]]
    """How apps enrol, by the name of the mode, and whether they may at the moment."""
    enrollments: Mapping[tuple[str, str], int]
    enrollment_seconds: Histogram
    answer_seconds: Histogram
    certificates: CertificateCounts
    rotation: Callable[[], Rotation]
    renewals: Callable[[], Mapping[tuple[str, str], int]]
    """How often by the way that it went (`session`, `container`) and what came of it."""
    lag: LoopLag


class Metrics:
    """Makes the page. Slow to build (it imports prometheus_client), so do that before anybody waits."""

    def __init__(self, sources: Sources, clock: Callable[[], float] = time.perf_counter) -> None:
        from prometheus_client import CollectorRegistry, ProcessCollector, exposition

        self._sources = sources
        self._clock = clock
        self._exposition = exposition
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        ProcessCollector(registry=self._registry)
        self._samples: list[Sample] = []
        self._making: asyncio.Task[None] | None = None
        self._page = b""
        self._good_until = float("-inf")
        self._certificates: list[Sample] = []
        self._counted_until = float("-inf")

    async def page(self) -> tuple[str, bytes]:
        """Content type and bytes, for Prometheus. Those who ask at the same time wait for the same page."""
        if self._clock() >= self._good_until:
            if self._making is None:
                self._making = asyncio.ensure_future(self._make())
                self._making.add_done_callback(self._made)
            await asyncio.shield(self._making)
        return self._exposition.CONTENT_TYPE_LATEST, self._page

    def stop(self) -> None:
        """No page is made any more."""
        if self._making is not None:
            self._making.cancel()

    async def _make(self) -> None:
        began = self._clock()
        self._samples = [sample async for sample in self.samples()]
        self._page = self._exposition.generate_latest(self._registry)
        done = self._clock()
        self._good_until = done + REST * (done - began)

    def _made(self, task: "asyncio.Task[None]") -> None:
        self._making = None

    def collect(self) -> "Iterable[Metric]":
        """For the registry: every family, those without a sample included."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

        makers: dict[str, Any] = {
            "gauge": GaugeMetricFamily,
            "counter": CounterMetricFamily,
            "histogram": HistogramMetricFamily,
        }
        found = {
            family.name: makers[family.kind](PREFIX + family.name, family.help, labels=family.labels)
            for family in FAMILIES
        }
        for name, labels, value in self._samples:
            if isinstance(value, Histogram):
                found[name].add_metric(labels, _buckets(value), value.total)
            else:
                found[name].add_metric(labels, value)
        return found.values()

    async def samples(self) -> AsyncIterator[Sample]:
        """Everything there is to tell."""
        sources = self._sources
        census = Census(sources.endpoint.router.hosts)
        async for session in in_turns(sources.endpoint.sessions):
            census.add(session)
        relay_ends = 0
        for port, traffic in list(sources.traffic.items()):
            sums, levels = await traffic.read()
            relay_ends += levels.relay_ends
            for sample in _traffic(port, sums, levels):
                yield sample
        yield Sample("relays_open", (), relay_ends // 2)
        for sample in itertools.chain(census.samples(), self._at_once()):
            yield sample

    def _at_once(self) -> Iterator[Sample]:
        """What does not grow with the number of clients."""
        sources = self._sources
        loop = type(asyncio.get_running_loop()).__module__.partition(".")[0]
        yield Sample("build_info", (__version__, platform.python_version(), loop, ENGINE), 1)
        for port, listener in sources.listeners.items():
            yield Sample("listener_open", (port,), listener.listening)
            yield from _listener(port, listener.counters)
        yield from _held(sources.endpoint.house)
        yield from _setups(sources.endpoint.setups)
        yield Sample("setup_seconds", (), sources.endpoint.setup_seconds)
        mode, is_open = sources.enrollment()
        yield Sample("enrollment_open", (mode,), is_open)
        yield from (Sample("enrollments_total", key, count) for key, count in sources.enrollments.items())
        yield Sample("enrollment_seconds", (), sources.enrollment_seconds)
        yield from self._certificate_samples()
        yield from _rotation(sources.rotation())
        yield from (Sample("renewals_total", key, count) for key, count in sources.renewals().items())
        for host in sources.endpoint.router.hosts.values():
            yield from _plugin(host)
        yield from _policy(sources.endpoint.access)
        yield Sample("answer_seconds", (), sources.answer_seconds)
        yield Sample("event_loop_lag_seconds", (), sources.lag.seconds)

    def _certificate_samples(self) -> list[Sample]:
        now = self._clock()
        if now >= self._counted_until:
            self._certificates = list(_certificates(self._sources.certificates(SOON)))
            self._counted_until = now + COUNTED_FOR
        return self._certificates


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    return [("+Inf" if bound == float("inf") else repr(bound), count) for bound, count in histogram.cumulative()]


class Census:
    """Who is there, and what waits for plugins."""

    def __init__(self, plugins: Iterable[str]) -> None:
        self._sessions: Counter[tuple[str, str, str]] = Counter()
        self._suspended = 0
        self._events = {plugin: [0, 0] for plugin in plugins}

    def add(self, session: Session) -> None:
        system, connection = session.claims.os, session.connection
        told = system if system in SYSTEMS else "other" if system else "none"
        self._sessions[session.kind.value, connection.peer.channel.value, told] += 1
        self._suspended += connection.suspended
        for plugin, count, size in session.plugins.events_waiting():
            self._events[plugin][0] += count
            self._events[plugin][1] += size

    def samples(self) -> Iterator[Sample]:
        for labels, count in self._sessions.items():
            yield Sample("sessions", labels, count)
        yield Sample("sessions_suspended", (), self._suspended)
        for plugin, (count, size) in self._events.items():
            yield Sample("events_waiting", (plugin,), count)
            yield Sample("events_waiting_bytes", (plugin,), size)


def _policy(access: Access) -> Iterator[Sample]:
    yield Sample("calls_refused_total", (), access.refused)
    yield Sample("policy_outdated", (), bool(access.problem))
    for layer in access.policy.layers:
        yield Sample("policy_rules", (layer.level.value,), len(layer.rules))
    if access.hook is not None:
        yield from (Sample("policy_hook_total", (result,), count) for result, count in access.hook.results.items())


def _held(house: House) -> Iterator[Sample]:
    for kind in Kind:
        yield Sample("held_bytes", (kind.value,), house.by_kind[kind])
    yield Sample("lines_crowded", (), house.crowded)
    yield Sample("crowded_total", (), house.crowded_total)


def _setups(counts: Mapping[str, int]) -> Iterator[Sample]:
    for result, count in counts.items():
        yield Sample("setups_total", (result,), count)


def _traffic(port: str, sums: Sums, levels: Levels) -> Iterator[Sample]:
    values = {
        "connections": levels.connections,
        "streams_open": levels.streams,
        "waiting_bytes": levels.waiting,
        "received_bytes_total": sums.bytes_in,
        "sent_bytes_total": sums.bytes_out,
        "received_frames_total": sums.frames_in,
        "sent_frames_total": sums.frames_out,
        "requests_total": sums.requests,
        "stalled_seconds_total": sums.stalled,
        "held_seconds_total": sums.held,
        "resumptions_total": sums.resumed,
        "relayed_total": sums.relayed,
        "relays_failed_total": sums.relays_failed,
    }
    for name, value in values.items():
        yield Sample(name, (port,), value)


def _listener(port: str, counters: Counters) -> Iterator[Sample]:
    yield Sample("accepted_total", (port,), counters.accepted)
    yield Sample("turned_away_total", (port,), counters.turned_away)
    yield Sample("displaced_total", (port,), counters.displaced)
    if not counters.handshakes and not counters.refused and not counters.timed_out:
        return
    results = {"ok": counters.handshakes, "failed": counters.failed, "timed_out": counters.timed_out}
    for result, count in (results | counters.reasons).items():
        yield Sample("tls_handshakes_total", (port, result), count)
    yield Sample("tls_handshake_seconds", (port,), counters.handshake_seconds)


def _certificates(counts: Iterable[tuple[str, str, int, int, int]]) -> Iterator[Sample]:
    for profile, status, count, valid, expiring in counts:
        yield Sample("certificates", (profile, status), count)
        if status == "active":
            yield Sample("certificates_valid", (profile,), valid)
            yield Sample("certificates_expiring", (profile,), expiring)


def _rotation(rotation: Rotation) -> Iterator[Sample]:
    yield Sample("ca_generation", (), rotation.current)
    for phase in Phase:
        yield Sample("rotation_phase", (phase.value,), phase is rotation.phase)


def _plugin(host: PluginHost) -> Iterator[Sample]:
    yield from _calls(host.id, host.calls, "calls_total", "call_seconds")
    yield from _calls(host.id, host.app_calls, "app_calls_total", "app_call_seconds")
    yield Sample("handlers_running", (host.id,), host.gate.held)
    yield Sample("calls_waiting", (host.id,), host.gate.waiting)
    yield Sample("events_dropped_total", (host.id,), host.events_dropped)
    yield Sample("plugin_up", (host.id,), host.available)
    yield Sample("plugin_restarts_total", (host.id,), host.supervisor.restarts)
    yield Sample("plugin_blocked_total", (host.id,), host.blocked)


def _calls(plugin: str, calls: Calls, total: str, seconds: str) -> Iterator[Sample]:
    for result, count in calls.results().items():
        yield Sample(total, (plugin, result), count)
    yield Sample(seconds, (plugin,), calls.seconds)
