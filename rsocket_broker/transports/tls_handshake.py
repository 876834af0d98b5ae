"""TLS handshakes: hello first, context second, OpenSSL's work on worker threads, and an alert to whoever is refused."""

import asyncio
import contextlib
import logging
import os
import queue
import ssl
import threading
from collections.abc import Callable
from typing import cast

import attrs

from rsocket_broker.errors import BrokerError
from rsocket_broker.quiet_log import QuietLog
from rsocket_broker.transports.base import Receiver, Transport
from rsocket_broker.transports.client_hello import (
    ClientHello,
    HelloReader,
    NotClientHello,
    looks_like_http,
    looks_like_rsocket,
)
from rsocket_broker.transports.listener import Counters, Listener
from rsocket_broker.transports.tls_contexts import remembers
from rsocket_broker.transports.tls_line import Lower, TlsLine, TlsTransport
from rsocket_broker.transports.tls_refusals import tls_refused

HANDSHAKE_TIMEOUT = 10.0
"""Seconds from accept to the end of the handshake: an emulator under load needs two; a silent peer needs no more."""
MAX_HANDSHAKES = 512
"""Handshakes under way at a time, silent ones included. Half of a usual limit of open files (1024). Whoever comes in
a crowd waits in the kernel's queue meanwhile, and is not refused."""
STALLED = 3.0
"""Seconds without a word from the peer, after which its handshake gives way where others wait: a phone that is busy
answers sooner, and clients wait 10 s for us."""
WORDLESS = 1.0
"""The same for a peer that has not even said hello: whoever is silent on purpose is silent from the first."""
LOOK_AGAIN = 0.1
"""Seconds between two looks for stalled handshakes while others wait."""
WORKERS = max(1, min(4, (os.cpu_count() or 2) - 1))
"""Threads for OpenSSL's part, 1 to 3 ms each time, without Python's lock. One core is left for live sessions."""
MAX_ANSWER = 256 * 1024
"""Bytes that a client may send in its part of the handshake; OpenSSL takes at most 100 KiB of certificates."""

_logger = logging.getLogger(__name__)

UNTRUSTING = frozenset({"bad_certificate", "certificate_unknown", "unknown_ca"})
"""Alerts of clients that do not take our certificate for that of the broker they know."""
ENROLLED_ELSEWHERE = (
    " It may have enrolled with another broker, or with an earlier home of this one: Flipper's SDKs enrol anew by"
    " themselves after two such refusals, others when their certificates are taken away."
)


@attrs.define(eq=False, slots=True)
class Step:
    """A part of a handshake that a worker does. A bare thing, since each handshake takes two."""

    work: Callable[[], bool]
    done: Callable[["Step"], None]
    """Called on the loop when the work is over."""
    last: bool = False
    """What the work answered: the handshake is done."""
    error: BaseException | None = None
    cancelled: bool = False
    """Set on the loop: a step not yet begun is spared."""


class HandshakePool:
    """Worker threads for handshake steps: first come, first served. A connection has one step in it at most."""

    def __init__(self, workers: int = WORKERS) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: queue.SimpleQueue[Step | None] = queue.SimpleQueue()
        self._to_start = self._workers = workers
        self._closed = False

    def run(self, step: Step) -> None:
        """Does `step.work` on a worker, then calls `step.done` on the loop."""
        if self._to_start:
            self._to_start -= 1
            threading.Thread(target=self._serve, name="tls-handshake", daemon=True).start()
        self._waiting.put(step)

    def close(self) -> None:
        """Steps not yet begun are dropped."""
        self._closed = True
        for _ in range(self._workers):
            self._waiting.put(None)

    def _serve(self) -> None:
        """A worker's life."""
        while (step := self._waiting.get()) is not None:
            if step.cancelled or self._closed:
                continue
            try:
                step.last = step.work()
            except BaseException as error:  # noqa: BLE001  told to the loop, where it is logged
                step.error = error
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(step.done, step)
            del step  # or the last handshake would live on here until the next


class Reception:
    """What the handshakes of one listener share: the limits, the workers, the counters, the log."""

    def __init__(
        self,
        receiver_factory: Callable[[], Receiver],
        contexts: Callable[[ClientHello], ssl.SSLContext],
        *,
        handshake_timeout: float = HANDSHAKE_TIMEOUT,
        max_handshakes: int = MAX_HANDSHAKES,
        max_connections: int,
        plain_port: int | None = None,
        cut_strangers: bool = False,
    ) -> None:
        self.receiver_factory = receiver_factory
        self.contexts = contexts
        self.timeout = handshake_timeout
        self.pool = HandshakePool()
        self.counters = Counters()
        self.log = QuietLog(_logger)
        self.loop = asyncio.get_running_loop()
        self._max_handshakes = max_handshakes
        self._max_connections = max_connections
        self._plain_port = plain_port
        self._cut_strangers = cut_strangers
        self._under_way: dict[ServerHandshake, None] = {}
        """Oldest first."""
        self._listener: Listener | None = None
        self._holding = False
        """Newcomers wait in the kernel's queue."""
        self._next_look: asyncio.TimerHandle | None = None
        """Never more than one: in a crowd the listener is held and released for nearly everyone who comes."""
        self._established = 0
        self._closed = False

    def greet(self) -> "ServerHandshake":
        return ServerHandshake(self)

    def attend(self, listener: Listener) -> None:
        """The listener that is held back while there are too many handshakes."""
        self._listener = listener

    def admit(self, handshake: "ServerHandshake") -> bool:
        """Takes one more; False when there are too many sessions, or the port has been closed in between."""
        shut = self._listener is not None and not self._listener.listening
        if self._closed or shut or self._established >= self._max_connections:
            self.counters.turned_away += 1
            return False
        self._under_way[handshake] = None
        if len(self._under_way) >= self._max_handshakes and not self._holding and self._listener is not None:
            self._holding = True
            self._listener.hold()
            if self._next_look is None:
                self._make_room()
        return True

    def forget(self, handshake: "ServerHandshake") -> None:
        self._under_way.pop(handshake, None)
        if self._holding and len(self._under_way) < self._max_handshakes and self._listener is not None:
            self._holding = False
            self._listener.release()

    def _make_room(self) -> None:
        """Drops handshakes whose peers have nothing to say, the oldest first, until one more can come in."""
        self._next_look = None
        if not self._holding or self._closed:
            return
        now = self.loop.time()
        for handshake in [one for one in self._under_way if one.gives_way(now)]:
            self.counters.displaced += 1
            handshake.drop()
            if len(self._under_way) < self._max_handshakes:
                return  # `forget` has let them in
        self._next_look = self.loop.call_later(LOOK_AGAIN, self._make_room)

    def establish(self, lower: Lower, line: TlsLine, began: float) -> None:
        """`began` is when the connection was accepted, on the loop's clock."""
        transport = TlsTransport(lower, line, self.receiver_factory(), self._leave)
        self._established += 1
        self.counters.handshakes += 1
        self.counters.handshake_seconds.observe(self.loop.time() - began)
        transport.start()

    def close(self) -> None:
        """Handshakes under way end: nobody would serve their sessions."""
        self._closed = True
        self.clear()
        self.pool.close()

    def clear(self) -> None:
        """Handshakes under way end: whoever is not in yet stays out."""
        for handshake in list(self._under_way):
            handshake.drop()

    def not_tls(self, received: bytes | bytearray, address: str, reason: str) -> None:
        """One line for whoever mixed up the ports."""
        start = bytes(received[:8])
        kind = "plain_rsocket" if looks_like_rsocket(start) else "http" if looks_like_http(start) else "not_tls"
        self._count_refusal(kind)
        if looks_like_rsocket(start):
            where = f"; plain RSocket is served on port {self._plain_port}" if self._plain_port else ""
            self.log.write(
                logging.WARNING, "plain RSocket", "%s speaks plain RSocket on a port for TLS%s", address, where
            )
        elif looks_like_http(start):
            self.log.write(
                logging.WARNING, "HTTP", "%s speaks HTTP on a port for RSocket over TLS: no web server is here", address
            )
        else:
            self.log.write(logging.WARNING, "garbage", "%s sent bytes that are no TLS: %s", address, reason)

    def refused(self, error: ssl.SSLError, address: str) -> None:
        refusal = tls_refused(error)
        alert = refusal.alert or "other"
        self._count_refusal(f"peer:{alert}" if refusal.by_peer else alert)
        hint = ENROLLED_ELSEWHERE if refusal.by_peer and alert in UNTRUSTING else ""
        self.log.write(logging.WARNING, "refused handshakes", "TLS with %s: %s%s", address, refusal.public, hint)

    def cuts(self, error: BaseException | None) -> bool:
        """Whether whoever this is about is cut off without an alert; see `listen_tls`."""
        if not self._cut_strangers or not isinstance(error, ssl.SSLCertVerificationError):
            return False
        return tls_refused(error).alert == "unknown_ca"

    def _count_refusal(self, reason: str) -> None:
        self.counters.refused += 1
        self.counters.reasons[reason] += 1

    def failed(self, error: BaseException) -> None:
        """Not the peer's fault, yet any peer can bring it about again and again."""
        self.counters.failed += 1
        known = isinstance(error, BrokerError)
        self.log.write(
            logging.ERROR,
            "failed handshakes",
            "a TLS handshake failed on our side%s",
            f": {error}" if known else "",
            error=None if known else error,
        )

    def timed_out(self, address: str) -> None:
        self.counters.timed_out += 1
        _logger.debug("%s did not finish its TLS handshake in %s s", address, self.timeout)

    def _leave(self) -> None:
        self._established -= 1


class ServerHandshake:
    """One accepted connection until its handshake is done: reads the hello, then lets OpenSSL answer on a worker.

    While a worker has the line nobody else touches it: what is read meanwhile, which is seldom anything, is laid by,
    and reading then pauses.
    """

    def __init__(self, reception: Reception) -> None:
        self._reception = reception
        self._hello = HelloReader()
        self._answer_left = MAX_ANSWER
        self._lower: Lower
        self._line: TlsLine | None = None
        self._step: Step | None = None
        """What a worker does now."""
        self._early = b""
        self._ended = False
        """What the peer has sent meanwhile, and whether it sends no more."""
        self._deadline: asyncio.TimerHandle | None = None
        self._began = 0.0
        self._waits_since: float | None = None
        """When the peer's turn began; None while it is ours."""
        self._over = False

    def gives_way(self, now: float) -> bool:
        """Whether the peer has let us wait too long while others wait for its place."""
        patience = WORDLESS if self._line is None else STALLED
        return self._waits_since is not None and now - self._waits_since >= patience

    def transport_ready(self, transport: Transport) -> None:
        self._lower = cast("Lower", transport)
        self._began = self._waits_since = self._reception.loop.time()
        if not self._reception.admit(self):
            self._over = True
            transport.abort()
            return
        self._deadline = self._reception.loop.call_at(self._began + self._reception.timeout, self._expire)

    def data_received(self, data: bytes | memoryview) -> None:
        if self._step is not None:
            self._early += bytes(data)
            self._lower.pause_reading()
            return
        if self._line is not None:
            self._answer(bytes(data))
            return
        try:
            hello = self._hello.feed(data)
        except NotClientHello as error:
            self._reception.not_tls(self._hello.received, self._lower.peer.address, str(error))
            self._end()
            self._lower.close()
            return
        if hello is not None:
            self._begin(hello)

    def eof_received(self) -> None:
        """Someone who only tried the port, or gave up: nobody's fault, nothing to say. Or one who has said all."""
        if self._step is None:
            self.drop()
        else:
            self._ended = True

    def writing_paused(self) -> None:
        """A handshake waits for the peer's answers anyway."""

    def writing_resumed(self) -> None:
        """See writing_paused."""

    def transport_lost(self, error: Exception | None) -> None:
        self._end()

    def drop(self) -> None:
        self._end()
        self._lower.abort()

    def _expire(self) -> None:
        self._reception.timed_out(self._lower.peer.address)
        self.drop()

    def _end(self) -> None:
        """Whatever happens to the connection now, it is no handshake any more."""
        self._over = True
        self._reception.forget(self)
        if self._deadline is not None:
            self._deadline.cancel()
        if self._step is not None:
            self._step.cancelled = True

    def _begin(self, hello: ClientHello) -> None:
        received = bytes(self._hello.received)

        def step() -> bool:
            # The context is asked for here, on the worker, at the last moment: what was revoked by now is refused.
            self._line = TlsLine(self._reception.contexts(hello), server_side=True)
            return self._line.handshake(received)

        self._run(step)

    def _answer(self, received: bytes) -> None:
        line = self._line
        assert line is not None
        self._answer_left -= len(received)
        if self._answer_left < 0:
            self._reception.not_tls(b"", self._lower.peer.address, "a handshake without end")
            self.drop()
            return
        if line.object.session_reused and _is_nearly_done(line.object):
            self._take(Step(lambda: line.handshake(received), self._stepped))
        else:
            self._run(lambda: line.handshake(received))

    def _take(self, step: Step) -> None:
        """Does a step here and now."""
        try:
            step.last = step.work()
        except Exception as error:  # noqa: BLE001  as a worker does
            step.error = error
        self._stepped(step)

    def _run(self, work: Callable[[], bool]) -> None:
        self._waits_since = None
        self._step = Step(work, self._stepped)
        self._reception.pool.run(self._step)

    def _stepped(self, step: Step) -> None:
        self._step = None
        if self._over:
            return
        if self._line is not None and not self._reception.cuts(step.error):
            self._line.flush(self._lower)
        if step.error is not None:
            self._refuse(step.error)
        elif step.last and self._line is not None:
            self._establish(self._line)
        else:
            self._go_on()

    def _go_on(self) -> None:
        """It is the peer's turn, and it may have taken that already."""
        self._waits_since = self._reception.loop.time()
        early, self._early = self._early, b""
        if early:
            self._lower.resume_reading()
            self._answer(early)
        elif self._ended:
            self.drop()

    def _establish(self, line: TlsLine) -> None:
        self._end()
        if self._early:
            line.incoming.write(self._early)
            self._lower.resume_reading()
        try:
            self._reception.establish(self._lower, line, self._began)
        except BaseException:  # a receiver that fails must not leave a line that nobody reads
            self._lower.abort()
            raise
        if self._ended:
            self._lower.receiver.eof_received()

    def _refuse(self, error: BaseException) -> None:
        self._end()
        if isinstance(error, ssl.SSLError):
            self._reception.refused(error, self._lower.peer.address)
            self._lower.close()  # flushes the alert first, where there is one
        else:
            self._reception.failed(error)
            self._lower.abort()


def _is_nearly_done(line: ssl.SSLObject) -> bool:
    """Whether a session that is resumed needs no more than a checksum, and perhaps a ticket that is a mere name: some
    50 µs, less than to have another thread do it."""
    return line.version() == "TLSv1.2" or remembers(line.context)


class ClientHandshake:
    """A connecting client until it is accepted or refused. Its few handshakes run on the loop."""

    def __init__(self, context: ssl.SSLContext, server_name: str, receiver: Receiver) -> None:
        self._line = TlsLine(context, server_side=False, server_name=server_name)
        self._receiver = receiver
        self._lower: Lower
        self.done: asyncio.Future[TlsTransport] = asyncio.get_running_loop().create_future()

    def transport_ready(self, transport: Transport) -> None:
        self._lower = cast("Lower", transport)
        self.data_received(b"")

    def data_received(self, data: bytes | memoryview) -> None:
        try:
            finished = self._line.handshake(bytes(data))
        except ssl.SSLError as error:
            self._line.flush(self._lower)
            self._fail(tls_refused(error))
            return
        self._line.flush(self._lower)
        if finished:
            transport = TlsTransport(self._lower, self._line, self._receiver)
            self.done.set_result(transport)
            transport.start()

    def eof_received(self) -> None:
        self._fail(ConnectionResetError("the server closed the connection during the TLS handshake"))

    def writing_paused(self) -> None:
        """A handshake waits for the peer's answers anyway."""

    def writing_resumed(self) -> None:
        """See writing_paused."""

    def transport_lost(self, error: Exception | None) -> None:
        self._fail(error or ConnectionResetError("the connection ended during the TLS handshake"))

    def _fail(self, error: Exception) -> None:
        if not self.done.done():
            self.done.set_exception(error)
            self._lower.close()
