"""The first look at who connects to the plain port: TLS and HTTP clients have come to the wrong place.

Both would end as a malformed frame anyway; the look is there so that the log can say what to do.
"""

import logging

from rsocket_broker.quiet_log import QuietLog
from rsocket_broker.transports.base import Receiver, Transport
from rsocket_broker.transports.client_hello import looks_like_http, looks_like_tls

ENOUGH = 8
"""Bytes that tell all three protocols apart."""


class FirstBytes:
    """A Receiver in front of another one: hands everything on, once the first bytes are not those of a stranger.

    `secure_port` is what the log tells someone who speaks TLS here; None where it is not open.
    """

    def __init__(self, receiver: Receiver, log: QuietLog, secure_port: int | None) -> None:
        self._receiver = receiver
        self._log = log
        self._secure_port = secure_port
        self._held: bytearray | None = bytearray()
        self._turned_away = False
        self._transport: Transport

    def transport_ready(self, transport: Transport) -> None:
        self._transport = transport
        self._receiver.transport_ready(transport)

    def data_received(self, data: bytes | memoryview) -> None:
        if self._held is None:
            self._receiver.data_received(data)
            return
        if self._turned_away:
            return
        self._held += data
        if len(self._held) >= ENOUGH:
            self._decide()

    def eof_received(self) -> None:
        if self._held:
            self._decide()
        if not self._turned_away:
            self._receiver.eof_received()

    def writing_paused(self) -> None:
        self._receiver.writing_paused()

    def writing_resumed(self) -> None:
        self._receiver.writing_resumed()

    def transport_lost(self, error: Exception | None) -> None:
        self._receiver.transport_lost(error)

    def _decide(self) -> None:
        assert self._held is not None
        first = bytes(self._held)
        if looks_like_tls(first):
            there = "" if self._secure_port is None else f" TLS is spoken on port {self._secure_port}."
            self._turn_away("TLS", f"%s spoke TLS to the plain port, which only enrols, without TLS.{there}")
        elif looks_like_http(first):
            self._turn_away("HTTP", "%s spoke HTTP to the plain port, which speaks RSocket and only enrols.")
        else:
            self._held = None
            self._receiver.data_received(first)

    def _turn_away(self, kind: str, text: str) -> None:
        self._turned_away = True
        self._held = bytearray()
        self._log.write(logging.WARNING, kind, text, self._transport.peer.address)
        self._transport.close()
