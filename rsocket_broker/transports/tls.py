"""Mutual TLS over TCP: listening and connecting."""

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable

from rsocket_broker.transports.base import Channel, Receiver
from rsocket_broker.transports.binding import BACKLOG, Options, bind_tcp
from rsocket_broker.transports.client_hello import ClientHello
from rsocket_broker.transports.listener import ACCEPT_BATCH, MAX_CONNECTIONS, Listener
from rsocket_broker.transports.tcp import connect_tcp
from rsocket_broker.transports.tls_handshake import HANDSHAKE_TIMEOUT, MAX_HANDSHAKES, ClientHandshake, Reception
from rsocket_broker.transports.tls_line import TlsTransport


async def listen_tls(
    host: str,
    port: int,
    receiver_factory: Callable[[], Receiver],
    contexts: Callable[[ClientHello], ssl.SSLContext],
    *,
    handshake_timeout: float = HANDSHAKE_TIMEOUT,
    max_handshakes: int = MAX_HANDSHAKES,
    max_connections: int = MAX_CONNECTIONS,
    backlog: int = BACKLOG,
    plain_port: int | None = None,
    cut_strangers: bool = False,
    options: Options | None = None,
) -> Listener:
    """Accepts TLS connections on one port number at every address of `host`; see `bind_tcp` for hosts and errors.

    `contexts` is asked for the context of each connection when its hello has come, on a worker thread.
    `receiver_factory` is called once for each handshake that succeeded, on the loop. Over `max_connections`
    established ones newcomers are closed at once; over `max_handshakes` unfinished ones newcomers wait in the kernel's
    queue, and whoever keeps them waiting by silence gives way.
    `plain_port` is what the log tells someone who speaks plain RSocket here. With `cut_strangers` a client whose
    certificate is of an authority that is unknown here sees its handshake end without an alert: Flipper's SDK for iOS,
    which verifies no server, enrols anew after such an end and after nothing else.
    """

    def bind(number: int) -> Awaitable[list[socket.socket]]:
        return bind_tcp(host, number, backlog, options)

    sockets = await bind(port)
    reception = Reception(
        receiver_factory,
        contexts,
        handshake_timeout=handshake_timeout,
        max_handshakes=max_handshakes,
        max_connections=max_connections,
        plain_port=plain_port,
        cut_strangers=cut_strangers,
    )
    cap = max_connections + max_handshakes + ACCEPT_BATCH  # a crowd is noticed after the batch that brings it
    listener = Listener(sockets, Channel.TLS, reception.greet, cap=cap, counters=reception.counters, rebind=bind)
    listener.on_shut(reception.clear)
    listener.on_close(reception.close)
    reception.attend(listener)
    listener.start()
    return listener


async def connect_tls(
    host: str,
    port: int,
    context: ssl.SSLContext,
    receiver: Receiver,
    *,
    server_name: str | None = None,
    timeout: float = HANDSHAKE_TIMEOUT,
) -> TlsTransport:
    """A TLS connection to a server whose certificate holds `server_name` (default: `host`), a name or an IP address.

    `receiver` has had `transport_ready` when it returns. Raises TlsRefused when either side refuses the other, and
    OSError when the network fails (TimeoutError is one). Under TLS 1.3 a server judges the client's certificate
    only after this has returned: its refusal comes as TlsRefused to `receiver.transport_lost`.
    """
    handshake = ClientHandshake(context, server_name or host, receiver)
    async with asyncio.timeout(timeout):
        lower = await connect_tcp(host, port, handshake, timeout=timeout)
        try:
            return await handshake.done
        except asyncio.CancelledError:
            lower.abort()
            raise
