"""`serve --trace-frames` for lines of messages: each message in the log, with plugin, method and size.

Never what it says: apps send passwords. A tap stands between a line and its transport, for a chosen client alone.
"""

import logging
from typing import Final

from rsocket_broker.claims import shown
from rsocket_broker.jsontext import JsonError, parse
from rsocket_broker.messages import MessageLine
from rsocket_broker.observability.frame_log import RECEIVED, SENT, log
from rsocket_broker.quota import Holding
from rsocket_broker.transports.base import Peer, TextTransport

LOOKED_INTO: Final = 64 * 1024
"""Bytes of a message up to which it is parsed for the log; of a longer one the size alone is told."""
NAME: Final = 100
"""Characters shown of a name."""


class MessageTap:
    """The TextReceiver of a transport, and the TextTransport of a line: passes everything on, and shows it first."""

    def __init__(self, line: MessageLine, name: str) -> None:
        self._line = line
        self._name = name
        self._below: TextTransport

    # ---- what the transport calls ----------------------------------------------------------------------------

    def transport_ready(self, transport: TextTransport) -> None:
        self._below = transport
        peer = transport.peer
        words = filter(None, (peer.channel.value, peer.tls_version, peer.alpn and f"alpn={peer.alpn}"))
        self._show(RECEIVED, f"connected by {' '.join(words)}")
        self._line.transport_ready(self)

    def heard(self, size: int) -> None:
        self._line.heard(size)

    def message_received(self, text: bytes) -> None:
        self._show(RECEIVED, describe(text))
        self._line.message_received(text)

    def eof_received(self) -> None:
        self._show(RECEIVED, "goodbye")
        self._line.eof_received()

    def writing_paused(self) -> None:
        self._show(SENT, "paused: the peer does not take what it is sent")
        self._line.writing_paused()

    def writing_resumed(self) -> None:
        self._show(SENT, "resumed")
        self._line.writing_resumed()

    def transport_lost(self, error: Exception | None) -> None:
        self._show(RECEIVED, f"the line has gone{'' if error is None else f' ({type(error).__name__})'}")
        self._line.transport_lost(error)

    # ---- what the line calls ---------------------------------------------------------------------------------

    @property
    def peer(self) -> Peer:
        return self._below.peer

    @property
    def queued(self) -> int:
        return self._below.queued

    def send(self, text: bytes) -> None:
        self._show(SENT, describe(text))
        self._below.send(text)

    def count_in(self, holding: Holding) -> None:
        self._below.count_in(holding)

    def ping(self) -> None:
        self._show(SENT, "ping")
        self._below.ping()

    def pause_reading(self) -> None:
        self._below.pause_reading()

    def resume_reading(self) -> None:
        self._below.resume_reading()

    def close(self, code: int, reason: str) -> None:
        self._show(SENT, f"goodbye {code}")
        self._below.close(code, reason)

    def abort(self) -> None:
        self._below.abort()

    def _show(self, direction: str, text: str) -> None:
        log.log(logging.INFO, "%s %s %s", self._name, direction, text)


def describe(text: bytes) -> str:
    """What kind of message it is, for whom, and how long."""
    size = f"{len(text)} bytes"
    if len(text) > LOOKED_INTO:
        return f"message {size}"
    try:
        message = parse(text)
    except JsonError:
        return f"no JSON {size}"
    if not isinstance(message, dict):
        return f"no object {size}"
    kind = message.get("method")
    if not isinstance(kind, str):
        kind = next((name for name in ("success", "error") if name in message), "message")
    number = message.get("id")
    words = [shown(kind, NAME)]
    if isinstance(number, int) and not isinstance(number, bool):
        words.append(f"id={number}")
    params = message.get("params")
    for name in ("api", "plugin", "method") if isinstance(params, dict) and "method" in message else ():
        value = params.get(name) if isinstance(params, dict) else None
        if isinstance(value, str):
            words.append(f"{name}={shown(value, NAME)}")
    return " ".join([*words, size])
