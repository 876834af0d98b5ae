"""What is served on each port, and every connection that came through one, for as long as it lives.

A port may close before its connections do: they are drained here when the broker stops, whatever became of the port.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping
from functools import partial
from typing import TypeVar
from weakref import WeakKeyDictionary, WeakSet

import attrs

from rsocket_broker.admin.endpoint import AdminEndpoint, Stream, Verb
from rsocket_broker.claims import Claims
from rsocket_broker.connection import Connection, Responder, Resumer
from rsocket_broker.enrollment.endpoint import PlainEndpoint
from rsocket_broker.enrollment.enroller import Enroller
from rsocket_broker.enrollment.first_bytes import FirstBytes
from rsocket_broker.enrollment.web_endpoint import Turn, WebEnrolment, claims_of
from rsocket_broker.line import Line
from rsocket_broker.messages import MessageLine
from rsocket_broker.observability.observation import Observation
from rsocket_broker.protocol.limits import PLAIN, SECURE, Limits
from rsocket_broker.protocol.protocol import Protocol
from rsocket_broker.protocol.relay import Relaying
from rsocket_broker.protocol.resume import Pool
from rsocket_broker.quiet_log import QuietLog
from rsocket_broker.quota import Holding
from rsocket_broker.routing.endpoint import SecureEndpoint
from rsocket_broker.routing.responder import SecureResponder
from rsocket_broker.routing.unverified import UnverifiedEndpoint
from rsocket_broker.sessions.resumption import RETAINED_ALL
from rsocket_broker.settings import Settings
from rsocket_broker.transports.base import Peer, Receiver, TextReceiver
from rsocket_broker.transports.http import MessageSocket, Page, Site, Socket
from rsocket_broker.transports.http_request import Request
from rsocket_broker.transports.origins import check_app

WEB_WAITING = 1024
"""Of the WebSocket port, those whose TLS is done and whose request is on its way: what handshakes make in a second, and
so what comes together when all return at once over a slow network."""
MAX_STRANGERS = 64
"""Connections on the HTTP port that have become WebSockets and shown no token yet. Each may make us hold a first frame,
and programs on this machine send it at once; one more, and the oldest gives way."""
RSOCKET_PATH = "/rsocket"
"""Where RSocket over WebSocket is served, on either port."""
REFUSED = 401
"""The status of every refusal on the ports of Flipper's SDKs: after any other an Android app tries no more until it is
started again."""
WEB_REQUEST_S = 10.0
"""Seconds for an app's request: as long as for a SETUP."""
ADMIN = attrs.evolve(SECURE, streams=64)

L = TypeVar("L", bound=Line)

_log = logging.getLogger(__name__)


@attrs.frozen(slots=True, kw_only=True)
class Served:
    """Who answers: `enroller` on the plain port, `endpoint` on the others. `pages` of the HTTP port are by path."""

    enroller: Enroller
    endpoint: SecureEndpoint
    observation: Observation | None = None
    pages: Mapping[str, Page] = attrs.field(factory=dict)


class Lines:
    """Makes what a newcomer to a port meets. One per broker."""

    def __init__(self, settings: Settings, served: Served) -> None:
        self._served = served
        self._secure_limits = attrs.evolve(
            SECURE,
            resume_seconds=settings.resume_seconds,
            resume_bytes=settings.resume_bytes,
            lease_requests=settings.lease_requests,
        )
        self._browser_origins = settings.listen.browser_origins
        self._retained = Pool(RETAINED_ALL)
        self._quiet = QuietLog(_log)
        self._lines: WeakSet[Line] = WeakSet()
        self._plain_lines: WeakSet[Connection] = WeakSet()
        self._web_enrolments: WeakKeyDictionary[MessageLine, WebEnrolment] = WeakKeyDictionary()
        self._admin_lines: WeakSet[Connection] = WeakSet()
        self._strangers: dict[Connection, SecureResponder] = {}
        """On the HTTP port, oldest first: who may have shown no token yet."""

    # --- newcomers ---------------------------------------------------------------------------------------------------

    def secure(self) -> Receiver:
        """A session of a client with a certificate."""
        return self._observed("secure", self._secure_line())

    def web(self) -> Site:
        """Sessions over WebSocket, for clients with a certificate: RSocket at its path, at any other Flipper's JSON."""
        socket = Socket(lambda: self._observed("ws_secure", self._secure_line()), SECURE.frame)
        return Site(
            {},
            {RSOCKET_PATH: socket},
            messages=MessageSocket(self._app, SECURE.message),
            check=partial(check_app, scheme="https"),
            refusal=REFUSED,
            timeout=WEB_REQUEST_S,
            max_waiting=WEB_WAITING,
        )

    def _app(self, peer: Peer, request: Request) -> TextReceiver:
        """A session of an app with an SDK of the WebSocket era. Raises SetupRefused."""
        line = MessageLine(self._served.endpoint.responder(), holding=self._stranger())
        line.open(peer, Claims.from_query(request.query))
        return self._taken_in("ws_secure", line)

    def plain_web(self) -> Site:
        """Enrolments over WebSocket."""
        return Site(
            {},
            {},
            messages=MessageSocket(self._enrolment, PLAIN.message),
            check=partial(check_app, scheme="http"),
            refusal=REFUSED,
            timeout=WEB_REQUEST_S,
        )

    def _enrolment(self, peer: Peer, request: Request) -> TextReceiver:
        """Raises SetupRefused."""
        enroller = self._served.enroller
        responder = WebEnrolment(enroller)
        line = MessageLine(responder, PLAIN, self._stranger())
        line.open(peer, claims_of(request.query, peer.address, enroller))
        self._web_enrolments[line] = responder
        return self._taken_in("ws_insecure", line)

    def _taken_in(self, port: str, line: MessageLine) -> TextReceiver:
        self._lines.add(line)
        observation = self._served.observation
        return line if observation is None else observation.text_receiver(port, line)

    def http(self) -> Site:
        """HTTP for this machine, and sessions for those with a token: until it was judged they are strangers, with the
        limits of those.

        It serves nobody until its `port` is set.
        """
        socket = Socket(lambda: self._observed("http", self._child_line()), PLAIN.frame)
        return Site(self._served.pages, {RSOCKET_PATH: socket}, loopback=True)

    def browser(self) -> Site:
        """Sessions of browser and Node apps, which prove nothing."""
        from rsocket_broker.listening.browser import browser_site  # the port is closed in most brokers

        visitors = UnverifiedEndpoint(self._served.endpoint)
        return browser_site(visitors.responder, self._browser_origins, self._visitor, self._stranger)

    def _visitor(self, line: MessageLine) -> TextReceiver:
        return self._taken_in("browser", line)

    def plain(self, secure_port: int | None) -> FirstBytes:
        """An enrolment. `secure_port` is what whoever has come to the wrong port is told."""
        connection = self._line(PLAIN, PlainEndpoint(self._served.enroller))
        self._plain_lines.add(connection)
        return FirstBytes(self._observed("insecure", connection), self._quiet, secure_port)

    def admin(self, table: Mapping[str, Verb | Stream], token: str | None) -> Connection:
        """A command of this machine's operator."""
        connection = Connection(Protocol.server(ADMIN, time.monotonic()), AdminEndpoint(table, token))
        self._admin_lines.add(connection)
        return connection

    def _secure_line(self) -> Connection:
        """For a client who may come back to its session."""
        responder = self._served.endpoint.responder()
        return self._line(self._secure_limits, responder, responder.resume)

    def _child_line(self) -> Connection:
        """For a client with a token, which it has not shown yet."""
        responder = self._served.endpoint.responder()
        connection = self._line(PLAIN, responder)
        known = [one for one, its in self._strangers.items() if one.closing is not None or its.session is not None]
        for one in known:
            del self._strangers[one]
        if len(self._strangers) >= MAX_STRANGERS:
            next(iter(self._strangers)).abort()
        self._strangers[connection] = responder
        return connection

    def _line(self, limits: Limits, responder: Responder, resumer: Resumer | None = None) -> Connection:
        kind = Relaying if self._served.endpoint.access.policy.relays else Protocol  # for as long as the line lasts
        protocol = kind.server(limits, time.monotonic(), self._retained)
        protocol.count_in(self._stranger())
        connection = Connection(protocol, responder, resumer=resumer)
        self._lines.add(connection)
        return connection

    def _stranger(self) -> Holding:
        """What is held for a line before it is known whose it is, and for those where that is never known."""
        return Holding(self._served.endpoint.house.strangers)

    def _observed(self, port: str, connection: Connection) -> Receiver:
        """What the transport of a connection is given for it."""
        observation = self._served.observation
        return connection if observation is None else observation.receiver(port, connection)

    def connections(self) -> list[Line]:
        """Those of all ports that are there, the admin line apart."""
        return list(self._lines)

    # --- farewells ---------------------------------------------------------------------------------------------------

    async def dismiss_strangers(self, text: str, grace_s: float, *, web: bool = False) -> None:
        """Ends the connections of the plain port, or of the one for `web`, that ask for nothing at the moment; what is
        written arrives. Over WebSocket who has its answer goes by itself, and may still have something to say."""
        idle: list[Line] = [line for line in self._plain_lines if not web and not line.streams_open]
        idle += [line for line, one in self._web_enrolments.items() if web and one.turn is Turn.WAITING]
        await _each(idle, lambda line: line.close(text, grace=grace_s))

    async def drain(self, timeout_s: float) -> None:
        """Waits for what is under way on every port, at most so long; nothing new is begun."""
        await _each(self._lines, lambda line: line.drain_requests(timeout_s))

    async def close(self, text: str, grace_s: float) -> None:
        """Says goodbye on every port, the admin line apart."""
        await _each(self._lines, lambda line: line.close(text, grace=grace_s))

    async def end_admin(self, text: str, grace_s: float) -> None:
        """Lets commands have their answers, and then says goodbye to them."""
        await _each(self._admin_lines, lambda line: line.drain_requests(grace_s))
        await _each(self._admin_lines, lambda line: line.close(text, grace=grace_s))


async def _each(lines: Iterable[L], work: Callable[[L], Coroutine[object, object, None]]) -> None:
    await asyncio.gather(*(work(line) for line in lines))
