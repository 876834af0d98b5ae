"""All that watches one broker, made from what its operator asked for; what nobody asked for costs nothing.

Neither is it imported then: most brokers have nobody who watches, and all are waited for when they start.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import attrs

from rsocket_broker.authority.rotation import Rotation
from rsocket_broker.connection import Connection
from rsocket_broker.histogram import Histogram
from rsocket_broker.identity import Identity
from rsocket_broker.messages import MessageLine
from rsocket_broker.observability.loop_lag import LoopLag
from rsocket_broker.routing.endpoint import SecureEndpoint
from rsocket_broker.transports.base import Receiver, TextReceiver
from rsocket_broker.transports.listener import Listener

if TYPE_CHECKING:
    from rsocket_broker.observability.frame_log import Watch
    from rsocket_broker.observability.metrics import CertificateCounts, Metrics
    from rsocket_broker.observability.traffic import Traffic

SESSION_PORTS = frozenset({"secure", "ws_secure"})
"""Where plugins are asked; elsewhere answers wait for devices and disks."""


@attrs.frozen(slots=True, kw_only=True)
class Subject:
    """What is watched. `enrollment` tells the mode and whether apps may enrol now; `enrollments` and
    `enrollment_seconds` are the Enroller's own counters."""

    endpoint: SecureEndpoint
    identify: Callable[[bytes], Identity]
    certificates: "CertificateCounts"
    rotation: Callable[[], Rotation]
    renewals: Callable[[], Mapping[tuple[str, str], int]]
    enrollment: Callable[[], tuple[str, bool]]
    enrollments: Mapping[tuple[str, str], int]
    enrollment_seconds: Histogram


class Observation:
    """One per broker. `frames` says whose frames are shown, `metrics` whether anybody may ask for the page."""

    def __init__(self, subject: Subject, *, frames: Sequence[str] = (), metrics: bool = False) -> None:
        self._watch: Watch | None = _watch(subject, frames) if frames else None
        self._listeners: dict[str, Listener] = {}
        self._traffic: defaultdict[str, Traffic] | None = None
        self._answers = Histogram()
        self._lag = LoopLag()
        self._metrics: Metrics | None = None
        if metrics:
            self._metrics = self._counted(subject)
            self._lag.start()

    def _counted(self, subject: Subject) -> "Metrics":
        from rsocket_broker.observability.metrics import Metrics, Sources
        from rsocket_broker.observability.traffic import Traffic

        self._traffic = defaultdict(Traffic)
        sources = Sources(
            endpoint=subject.endpoint,
            listeners=self._listeners,
            traffic=self._traffic,
            enrollment=subject.enrollment,
            enrollments=subject.enrollments,
            enrollment_seconds=subject.enrollment_seconds,
            answer_seconds=self._answers,
            certificates=subject.certificates,
            rotation=subject.rotation,
            renewals=subject.renewals,
            lag=self._lag,
        )
        return Metrics(sources)

    def receiver(self, port: str, connection: Connection) -> Receiver:
        """What a transport of that port is to be given for its connection."""
        if self._traffic is not None:
            self._traffic[port].follow(connection)
            if port in SESSION_PORTS:
                connection.answer_seconds = self._answers
        return connection if self._watch is None else self._watch.tap(connection)

    def text_receiver(self, port: str, line: MessageLine) -> TextReceiver:
        """The same for a line of messages, whose judgement is over."""
        if self._traffic is not None:
            self._traffic[port].follow(line)
        name = None if self._watch is None else self._watch.name_of(line)
        if name is None:
            return line
        from rsocket_broker.observability.message_log import MessageTap  # nearly nobody asks for it

        return MessageTap(line, name)

    def opened(self, port: str, listener: Listener) -> None:
        """A port is open."""
        self._listeners[port] = listener

    async def page(self) -> tuple[str, bytes]:
        """The page of metrics: its type and its bytes. Only with `metrics`."""
        assert self._metrics is not None
        return await self._metrics.page()

    def stop(self) -> None:
        """Nothing more is looked at."""
        self._lag.stop()
        if self._metrics is not None:
            self._metrics.stop()


def _watch(subject: Subject, clients: Sequence[str]) -> "Watch":
    from rsocket_broker.observability.frame_log import Watch

    return Watch(clients, subject.identify, subject.endpoint.sessions)
