"""A small HTTP server on a transport: one request per connection, answered with a page or carried on as a WebSocket.

It is no web server: GET and HEAD of a few known paths, and nothing that a page from elsewhere could use. A page that
a browser has loaded from some other site is kept out twice: its requests name that site in `Origin`, and a site that
has its own name resolved to loopback (DNS rebinding) still gives that name in `Host`.
"""

import asyncio
import email.utils
import http
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping

import attrs

from rsocket_broker.errors import BrokerError
from rsocket_broker.quiet_log import QuietLog
from rsocket_broker.transports.base import Peer, Receiver, TextReceiver, Transport
from rsocket_broker.transports.http_request import ASK_FOR_UPGRADE, HeadReader, Refusal, Request

REQUEST_TIMEOUT = 5.0
"""Seconds from the opening to a whole request: it fits one packet, and programs on this machine send it at once."""
MAX_WAITING = 64
"""Connections of a site whose request has not come. One more, and the oldest of them gives way."""

DEFAULT_PORT = 80
"""Clients leave this number out of `Host`."""

HEADERS = (
    ("Connection", "close"),
    ("Cache-Control", "no-store"),
    ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Referrer-Policy", "no-referrer"),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
)
"""With every answer: nothing here is for a browser to run, to frame, to keep, or to give to another site."""

Content = tuple[str, bytes]
"""Of a page: its type and its bytes."""
Page = Callable[[], Content | Awaitable[Content]]
"""Gives the content of a page when it is asked for, on the loop: at once, or in turns that leave room for others."""

_ALLOWED = {"GET", "HEAD"}
_OWN = {"none", "same-origin"}
"""What a browser says in `Sec-Fetch-Site` of requests that no page of another site has made. An image or a script that
such a page names comes without `Origin`."""

_logger = logging.getLogger(__name__)


@attrs.frozen(slots=True)
class Socket:
    """A path for WebSockets. `receiver` makes who gets the RSocket bytes; `limit` is the longest message, in bytes."""

    receiver: Callable[[], Receiver]
    limit: int


@attrs.frozen(slots=True)
class MessageSocket:
    """WebSockets with messages of text, at whatever path. `welcome` judges who comes, by the request, and makes who
    gets the messages; it raises BrokerError to refuse. `limit` is the longest message, in bytes."""

    welcome: Callable[[Peer, Request], TextReceiver]
    limit: int


class Site:
    """What one port serves, by path, and the connections on it that have not asked yet."""

    def __init__(
        self,
        pages: Mapping[str, Page],
        sockets: Mapping[str, Socket],
        *,
        messages: MessageSocket | None = None,
        loopback: bool = False,
        check: Callable[[Request], None] | None = None,
        refusal: int | None = None,
        timeout: float = REQUEST_TIMEOUT,
        max_waiting: int = MAX_WAITING,
    ) -> None:
        """`messages` is for whoever asks for any other path. `check` raises Refusal for a request from elsewhere, in
        the place of `check_source`. `refusal` is the status of every refusal, where clients know no other."""
        self.pages = pages
        self.sockets = sockets
        self.messages = messages
        self.refusal = refusal
        self.check = check or self.check_source
        self.timeout = timeout
        self.log = QuietLog(_logger)
        self.port: int | None = None
        """With `loopback`: the number that requests must name. Until it is set nobody is served."""
        self._loopback = loopback
        self._max_waiting = max_waiting
        self._waiting: dict[HttpConnection, None] = {}
        """Oldest first."""

    def greet(self) -> "HttpConnection":
        """Who receives a new connection."""
        return HttpConnection(self)

    def enter(self, connection: "HttpConnection") -> None:
        if len(self._waiting) >= self._max_waiting:
            next(iter(self._waiting)).drop()
        self._waiting[connection] = None

    def leave(self, connection: "HttpConnection") -> None:
        self._waiting.pop(connection, None)

    def check_source(self, request: Request) -> None:
        """Raises Refusal for a request that may come from a page of another site.

        Not on loopback there is TLS: the name in `Host` is one that our certificate vouches for, or no browser comes.
        """
        host, origin = request.one("host"), request.one("origin")
        if not host:
            raise Refusal(400, "The request has no Host header.")
        if not self._loopback:
            origins = {f"https://{host.lower()}"}
        else:
            hosts = set() if self.port is None else set(loopback_hosts(self.port))
            if host.lower() not in hosts:
                raise Refusal(403, "The Host must be localhost, 127.0.0.1 or [::1], with the number of this port.")
            origins = {f"http://{each}" for each in hosts}
        fetched = request.one("sec-fetch-site") or "none"
        if (origin is not None and origin.lower() not in origins) or fetched not in _OWN:
            raise Refusal(403, "Pages of other sites may not use this port.")

    def page(self, request: Request) -> Content | Awaitable[Content]:
        """The content that is asked for; awaiting it raises whatever `failed` takes. Raises Refusal."""
        page = self.pages.get(request.path)
        if page is None:
            known = ", ".join(sorted({*self.pages, *self.sockets}))
            raise Refusal(404, f"There is nothing at this path. There is: {known}.")
        if request.method not in _ALLOWED:
            raise Refusal(405, "Only GET and HEAD are served here.", ("Allow", "GET, HEAD"))
        try:
            return page()
        except Exception as error:
            raise self.failed(request, error) from error

    def failed(self, request: Request, error: Exception) -> Refusal:
        """The answer to a request whose page could not be made."""
        self.log.write(logging.ERROR, "failed pages", "%s could not be made", request.path, error=error)
        return Refusal(500, "This page could not be made; the broker's log says why.")


class HttpConnection:
    """A Receiver: one connection until its request is answered, or until the WebSocket above it takes over."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._reader = HeadReader()
        self._transport: Transport
        self._deadline: asyncio.TimerHandle | None = None
        self._over = False
        self._making: asyncio.Task[None] | None = None

    def transport_ready(self, transport: Transport) -> None:
        self._transport = transport
        self._deadline = asyncio.get_running_loop().call_later(self._site.timeout, self._expire)
        self._site.enter(self)

    def data_received(self, data: bytes | memoryview) -> None:
        if self._over:
            return
        method = "GET"
        try:
            read = self._reader.feed(data)
            if read is None:
                return
            request, rest = read
            method = request.method
            self._answer(request, rest)
        except Refusal as refusal:
            self._refuse(refusal, method)

    def eof_received(self) -> None:
        """Who has asked may say that this was all; who has not, has only tried the port."""
        if self._making is None:
            self.drop()

    def writing_paused(self) -> None:
        """There is one answer, and it is written already."""

    def writing_resumed(self) -> None:
        """See writing_paused."""

    def transport_lost(self, error: Exception | None) -> None:
        self._end()
        if self._making is not None:
            self._making.cancel()

    def drop(self) -> None:
        self._end()
        self._transport.abort()

    def _answer(self, request: Request, rest: bytes) -> None:
        self._site.check(request)
        socket = self._site.sockets.get(request.path)
        if socket is not None:
            self._upgrade(request, rest, socket)
            return
        if self._site.messages is not None and request.path not in self._site.pages:
            self._welcome(request, rest, self._site.messages)
            return
        content = self._site.page(request)
        if isinstance(content, tuple):
            self._show(request, content)
        else:
            self._end()
            self._making = asyncio.ensure_future(self._show_later(request, content))

    async def _show_later(self, request: Request, work: Awaitable[Content]) -> None:
        try:
            self._show(request, await work)
        except Exception as error:  # noqa: BLE001  # told, logged, and nobody else is hurt
            self._refuse(self._site.failed(request, error), request.method)

    def _show(self, request: Request, content: Content) -> None:
        kind, body = content
        self._send(200, kind, body, (), bodiless=request.method == "HEAD")

    def _upgrade(self, request: Request, rest: bytes, socket: Socket) -> None:
        _check_upgrade(request, rest, "This path is for RSocket over WebSocket.")
        # Loaded here, since most brokers never meet a WebSocket.
        from rsocket_broker.transports.websocket import WebSocketTransport, accepted

        framing, answer = accepted(request.head, socket.limit)
        self._end()
        self._transport.write([answer])
        WebSocketTransport(self._transport, framing, socket.receiver()).start()

    def _welcome(self, request: Request, rest: bytes, messages: MessageSocket) -> None:
        """A client that is judged before it is answered: a refusal that comes later would tell it less."""
        _check_upgrade(request, rest, "This port is for WebSockets.")
        from rsocket_broker.transports.websocket import opened  # see _upgrade
        from rsocket_broker.transports.websocket_text import WebSocketText, channel_above

        protocol, answer = opened(request.head, messages.limit)
        peer = attrs.evolve(self._transport.peer, channel=channel_above(self._transport.peer.channel))
        try:
            receiver = messages.welcome(peer, request)
        except BrokerError as error:
            raise Refusal(403, error.public) from error
        self._end()
        self._transport.write([answer])
        WebSocketText(self._transport, protocol, receiver, messages.limit).start()

    def _refuse(self, refusal: Refusal, method: str) -> None:
        address = self._transport.peer.address
        self._site.log.write(logging.INFO, "refused requests", "HTTP from %s refused: %s", address, refusal)
        body = f"{refusal.text}\n".encode()
        status, headers = refusal.status, refusal.headers
        if self._site.refusal is not None:
            status, headers = self._site.refusal, ()
        self._send(status, "text/plain; charset=utf-8", body, headers, bodiless=method == "HEAD")

    def _send(
        self, status: int, kind: str, body: bytes, headers: tuple[tuple[str, str], ...], *, bodiless: bool
    ) -> None:
        self._end()
        own = (
            ("Date", email.utils.formatdate(usegmt=True)),
            ("Content-Type", kind),
            ("Content-Length", str(len(body))),
        )
        lines = [f"HTTP/1.1 {status} {http.HTTPStatus(status).phrase}"]
        lines += [f"{name}: {value}" for name, value in (*own, *HEADERS, *headers)]
        self._transport.write(["\r\n".join([*lines, "", ""]).encode("latin-1"), b"" if bodiless else body])
        self._transport.close()

    def _expire(self) -> None:
        if not self._reader.received:  # it has only tried the port
            self.drop()
            return
        self._refuse(Refusal(408, f"No request came within {self._site.timeout:g} s."), "GET")

    def _end(self) -> None:
        """The request has come, or never will."""
        self._over = True
        self._site.leave(self)
        if self._deadline is not None:
            self._deadline.cancel()


def _check_upgrade(request: Request, rest: bytes, text: str) -> None:
    """Raises Refusal for what is no request for a WebSocket."""
    if request.method != "GET" or "websocket" not in request.words("upgrade"):
        raise Refusal(426, text, *ASK_FOR_UPGRADE)
    if rest:
        raise Refusal(400, "A WebSocket client waits for the answer before it sends more.")


def loopback_hosts(port: int) -> Iterator[str]:
    """What `Host` says of a request that was made to this machine's loopback and this port."""
    for name in ("localhost", "127.0.0.1", "[::1]"):
        yield f"{name}:{port}"
        if port == DEFAULT_PORT:
            yield name
