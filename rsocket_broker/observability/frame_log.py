"""`serve --trace-frames`: the frames of chosen clients in the log, tapped where bytes meet the engine.

A tap stands between a transport and its connection. Who the client is shows in its certificate, so that most taps
know at once that they are not wanted, and step aside: the two then talk to each other as if nobody had looked.
"""

import logging
import re
from collections.abc import Callable, Sequence
from typing import Final

from rsocket_broker.connection import Connection
from rsocket_broker.errors import BrokerError
from rsocket_broker.identity import Identity
from rsocket_broker.messages import MessageLine
from rsocket_broker.protocol.trace import FrameTrace
from rsocket_broker.quota import Holding
from rsocket_broker.routing.session import Session
from rsocket_broker.sessions.live import LiveSessions
from rsocket_broker.transports.base import Channel, MessageTransport, Peer, Receiver, Transport

EVERYBODY: Final = "all"
"""Stands for every connection, those that only enrol included."""
HELD: Final = 64
"""Lines kept back while it is not known which session a connection will be; a SETUP and what comes with it is few."""

RECEIVED, SENT = "<-", "->"

_SESSION_ID: Final = re.compile(r"c\d+")

log = logging.getLogger(__name__)


class Watch:
    """Whose frames are shown: `app_id`, `app_id@device_id`, the id of a session, or `all`.

    `identify` is from a certificate (DER) to its identity, and raises BrokerError for one that is not ours.
    """

    def __init__(
        self, clients: Sequence[str], identify: Callable[[bytes], Identity], sessions: LiveSessions[Session]
    ) -> None:
        self._clients = frozenset(clients)
        self._ids = [client for client in clients if _SESSION_ID.fullmatch(client)]
        self._identify = identify
        self._sessions = sessions
        log.setLevel(logging.INFO)  # who asks for frames gets them, whatever else the log leaves out

    def tap(self, receiver: Receiver) -> "FrameTap":
        """To be given to a transport in the place of `receiver`."""
        return FrameTap(self, receiver)

    def name_of(self, line: MessageLine) -> str | None:
        """How a line of messages is called in the log, whose client was judged already; None where it is not shown."""
        identity = self.identity(line.peer)
        session = self.session(identity, line)
        if not self.wants(identity) and (session is None or not self.wants_session(session)):
            return None
        return line.peer.address if session is None else f"{session.id} {session.identity.principal}"

    def identity(self, peer: Peer) -> Identity | None:
        """Whose certificate it is. None for whoever has none, or one that is refused a moment later."""
        if peer.certificate is None:
            return None
        try:
            return self._identify(peer.certificate)
        except BrokerError:
            return None

    def wants(self, identity: Identity | None) -> bool:
        """Whether a client's frames are shown, as far as its certificate tells."""
        if EVERYBODY in self._clients:
            return True
        return identity is not None and not self._clients.isdisjoint(
            (identity.app_id, f"{identity.app_id}@{identity.device_id}")
        )

    def may_want(self, identity: Identity | None, peer: Peer) -> bool:
        """Whether its session may decide: by its id, and where a token stands for a certificate by its client too."""
        return bool(self._clients) if peer.channel is Channel.WS else identity is not None and bool(self._ids)

    def session(self, identity: Identity | None, receiver: object) -> Session | None:
        """The session that a connection carries, once there is one."""
        found = self._sessions if identity is None else self._sessions.of(identity.principal)
        return next((session for session in found if session.connection is receiver), None)

    def wants_session(self, session: Session) -> bool:
        return session.id in self._clients or (session.is_child and self.wants(session.identity))


class FrameTap:
    """The Receiver of a transport that passes everything on, and shows it first."""

    def __init__(self, watch: Watch, receiver: Receiver) -> None:
        self._watch = watch
        self._receiver = receiver
        self._trace = FrameTrace()
        self._held: list[tuple[str, str]] | None = None
        """Lines kept back until the session is known; None when they are shown at once."""
        self._identity: Identity | None = None
        self._name = ""
        self._named = False
        self._lower: TappedTransport

    def transport_ready(self, transport: Transport) -> None:
        watch, peer = self._watch, transport.peer
        self._identity = identity = watch.identity(peer)
        if not watch.wants(identity):
            if not watch.may_want(identity, peer):
                transport.hand_over(self._receiver)
                self._receiver.transport_ready(transport)
                return
            self._held = []
        self._name = peer.address if identity is None else f"{peer.address} {identity.principal}"
        self._lower = TappedTransport(transport, self)
        words = filter(None, (peer.channel.value, peer.tls_version, peer.alpn and f"alpn={peer.alpn}"))
        self._show(RECEIVED, f"connected by {' '.join(words)}")
        self._receiver.transport_ready(self._lower)

    def data_received(self, data: bytes | memoryview) -> None:
        for line in self._trace.received(data):
            self._show(RECEIVED, line)
        self._receiver.data_received(data)
        if not self._named:
            self._learn_session()

    def eof_received(self) -> None:
        self._show(RECEIVED, "end of the stream")
        self._receiver.eof_received()

    def writing_paused(self) -> None:
        self._show(SENT, "paused: the peer does not take what it is sent")
        self._receiver.writing_paused()

    def writing_resumed(self) -> None:
        self._show(SENT, "resumed")
        self._receiver.writing_resumed()

    def transport_lost(self, error: Exception | None) -> None:
        self._show(RECEIVED, f"the line has gone{'' if error is None else f' ({type(error).__name__})'}")
        self._receiver.transport_lost(error)

    # ---- for TappedTransport ---------------------------------------------------------------------------------

    def sent(self, chunks: list[bytes]) -> None:
        for chunk in chunks:
            for line in self._trace.sent(chunk):
                self._show(SENT, line)

    def hand_over(self, receiver: Receiver) -> None:
        """Another connection goes on with this line: one that was resumed, whose SETUP came over an earlier one."""
        self._receiver = receiver
        self._named = False
        if isinstance(receiver, Connection):
            self._trace.resumed(receiver.metadata_mime)

    # ---- who it is -------------------------------------------------------------------------------------------

    def _learn_session(self) -> None:
        session = self._watch.session(self._identity, self._receiver)
        if session is None:
            return
        self._named = True
        self._name = f"{session.id} {session.identity.principal}"
        if self._held is None:
            return
        if self._watch.wants_session(session):
            held, self._held = self._held, None
            for direction, line in held:
                self._show(direction, line)
        else:
            self._lower.release(self._receiver)

    def _show(self, direction: str, line: str) -> None:
        if self._held is None:
            log.info("%s %s %s", self._name, direction, line)
        elif len(self._held) < HELD:
            self._held.append((direction, line))


class TappedTransport:
    """What the connection takes for its transport. `write` is shown; everything else is passed on as it is."""

    def __init__(self, transport: Transport, tap: FrameTap) -> None:
        self.peer = transport.peer
        self.write: Callable[[list[bytes]], None] = self._write
        self.pause_reading = transport.pause_reading
        self.resume_reading = transport.resume_reading
        self.close = transport.close
        self.abort = transport.abort
        self.hand_over: Callable[[Receiver], None] = tap.hand_over
        self._transport = transport
        self._tap = tap

    @property
    def queued(self) -> int:
        return self._transport.queued

    def expect(self, size: int) -> None:
        if isinstance(self._transport, MessageTransport):
            self._transport.expect(size)

    def count_in(self, holding: Holding) -> None:
        if isinstance(self._transport, MessageTransport):
            self._transport.count_in(holding)

    def release(self, receiver: Receiver) -> None:
        """The tap is not wanted after all: from now on nothing goes through it."""
        self.write = self._transport.write
        self.hand_over = self._transport.hand_over
        self._transport.hand_over(receiver)

    def _write(self, chunks: list[bytes]) -> None:
        self._tap.sent(chunks)
        self._transport.write(chunks)
