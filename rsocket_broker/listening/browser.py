"""What browser and Node apps meet on their port: the check of their origin, their session, the framing of older ones.

They prove nothing, so all that they may cost is small: see `VISITOR`, and `MAX_UNVERIFIED` of `sessions.live`.
"""

import asyncio
from collections.abc import Callable, Collection

import attrs

from rsocket_broker.browser.framing import Framing, Passed
from rsocket_broker.browser.origin import MAX_HOST, is_allowed
from rsocket_broker.browser.query import browser_claims
from rsocket_broker.claims import shown
from rsocket_broker.messages import MessageLine, MessageResponder
from rsocket_broker.protocol.limits import MIB, PLAIN, Limits
from rsocket_broker.quota import Holding
from rsocket_broker.transports.base import Peer, TextReceiver, TextTransport
from rsocket_broker.transports.http import MessageSocket, Site
from rsocket_broker.transports.http_request import Refusal, Request

VISITOR: Limits = attrs.evolve(PLAIN, message=5 * MIB, outgoing=8 * MIB, streams=64)
"""For whoever proves nothing. Flipper's own server complains of messages above 5 MiB, so apps send none on purpose;
32 of them, held for 32 sessions, are 160 MiB. A page has some dozen answers to give at once, not thousands."""
MAX_WAITING = 32
"""Connections whose request has not come: a browser sends it at once."""
REFUSED = 401
"""The status of every refusal, as Flipper's own server has it: js-flipper tries again after any."""

FOREIGN = (
    "Pages of this origin may not use this port. The host of Origin must be localhost, or one that --browser-origin "
    "names; a Node app sets that header itself."
)

Newcomer = Callable[[MessageLine], TextReceiver]
"""Is told of each line that was let in, and says who hears it."""


def browser_site(
    responder: Callable[[], MessageResponder],
    origins: Collection[str],
    newcomer: Newcomer,
    holding: Callable[[], Holding],
) -> Site:
    """The port. `responder` makes who serves one line, `holding` where is counted what it makes us hold; `origins` are
    the hosts besides localhost."""

    def check(request: Request) -> None:
        origin = request.one("origin")
        if not is_allowed(origin, origins):
            raise Refusal(REFUSED, f"{FOREIGN} It was {'not there' if origin is None else shown(origin, MAX_HOST)}.")

    def welcome(peer: Peer, request: Request) -> TextReceiver:
        claims = browser_claims(request.query)
        line = MessageLine(responder(), VISITOR, holding())
        line.open(peer, claims)
        return FramedLine(newcomer(line))

    socket = MessageSocket(welcome, VISITOR.message)
    return Site({}, {}, messages=socket, check=check, refusal=REFUSED, max_waiting=MAX_WAITING)


class FramedLine:
    """The TextReceiver of a WebSocket, and the TextTransport of the line above it: between them is the framing."""

    def __init__(self, above: TextReceiver) -> None:
        self._above = above
        self._framing = Framing()
        self._loop = asyncio.get_running_loop()
        self._below: TextTransport

    # What the WebSocket calls.

    def transport_ready(self, transport: TextTransport) -> None:
        self._below = transport
        self._above.transport_ready(self)

    def heard(self, size: int) -> None:
        self._above.heard(size)

    def message_received(self, text: bytes) -> None:
        passed = self._framing.received(text)
        self._put(passed)
        for each in passed.inward:
            self._above.message_received(each)

    def eof_received(self) -> None:
        self._above.eof_received()

    def writing_paused(self) -> None:
        self._above.writing_paused()

    def writing_resumed(self) -> None:
        self._above.writing_resumed()

    def transport_lost(self, error: Exception | None) -> None:
        self._above.transport_lost(error)

    # What the line calls.

    @property
    def peer(self) -> Peer:
        return self._below.peer

    @property
    def queued(self) -> int:
        return self._below.queued

    def send(self, text: bytes) -> None:
        passed = self._framing.sent(text)
        self._put(passed)
        for each in passed.inward:  # not at once: whoever asks must first wait for the answer
            self._loop.call_soon(self._above.message_received, each)

    def count_in(self, holding: Holding) -> None:
        self._below.count_in(holding)

    def ping(self) -> None:
        self._below.ping()

    def pause_reading(self) -> None:
        self._below.pause_reading()

    def resume_reading(self) -> None:
        self._below.resume_reading()

    def close(self, code: int, reason: str) -> None:
        self._below.close(code, reason)

    def abort(self) -> None:
        self._below.abort()

    def _put(self, passed: Passed) -> None:
        for text in passed.outward:
            self._below.send(text)
