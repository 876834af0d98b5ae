"""The app's half of `Network`: what an app's HTTP stack reports, and mock routes."""

import random
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, NamedTuple

from .plugin import AppPlugin, Params, Platform, Receiver

BUFFERED = 500
"""Events kept until the first `init`. Android then loses the oldest, iOS stops recording."""

BODY_LIMIT = 1024 * 1024
"""Bytes of a body that Android's OkHttp plugin reports unless told otherwise; the rest is cut off without a mark."""

CHUNK = 1024 * 1024
"""Bytes of a response's body in one event on Android."""

NO_BODIES = ("video/", "application/zip")
"""Content types whose bodies are left out."""

Headers = Mapping[str, str] | Iterable[tuple[str, str]]


class Reply(NamedTuple):
    """What an HTTP server answers."""

    status: int = 200
    body: bytes | None = None
    headers: Headers = ()
    reason: str | None = None


class Network(AppPlugin):
    """Report exchanges with `exchange`, or piece by piece with `request` and `respond`.

        network.exchange("GET", "https://api.example.org/cart", Reply(200, b"{}"))

    `mocking`: the app was built with mock support (Android); `fetch` then serves the routes that a server has set.
    `body_limit`: see BODY_LIMIT; with a larger one, bodies over CHUNK come in parts. `clock` gives seconds since 1970.
    """

    id: ClassVar[str] = "Network"
    background: ClassVar[bool] = True

    def __init__(
        self,
        platform: Platform = Platform.ANDROID,
        *,
        mocking: bool = True,
        body_limit: int = BODY_LIMIT,
        clock: Callable[[], float] = time.time,
        draw: random.Random | None = None,
    ) -> None:
        super().__init__(platform)
        self.mocking, self.body_limit = mocking, body_limit
        self.routes: list[dict[str, Any]] = []
        self._clock = clock
        self._draw = draw or random.Random()
        self._waiting: deque[tuple[str, object]] = deque()

    def receivers(self) -> Mapping[str, Receiver]:
        return {"mockResponses": self._mock} if self.mocking and self.platform is Platform.ANDROID else {}

    def _mock(self, params: Params) -> object:
        """Replaces the whole list. A route without `data` makes the receiver throw, and `enabled` is not looked at."""
        self.routes = [
            {
                "url": route["requestUrl"],
                "method": route["method"],
                "data": route["data"].encode(),
                "headers": {each["key"]: each["value"] for each in route.get("headers", [])},
                "status": int(route["status"]),
            }
            for route in params["routes"]
        ]
        return {}

    def on_connect(self) -> None:
        while self._waiting:
            self.emit(*self._waiting.popleft())

    def on_disconnect(self) -> None:
        self.routes = []

    # What an app's HTTP stack does.

    def exchange(
        self,
        method: str,
        url: str,
        reply: Reply | None,
        *,
        headers: Headers = (),
        body: bytes | None = None,
        took: float = 0.05,
        mocked: bool = False,
    ) -> object:
        """One whole exchange of `took` seconds; its id. `reply` of None: it failed, and no event tells so."""
        began = self._clock()
        identifier = self.request(method, url, headers=headers, body=body, at=began)
        if reply is not None:
            self.respond(identifier, reply, at=began + took, mocked=mocked)
        return identifier

    def fetch(self, method: str, url: str, real: Callable[[], Reply], *, body: bytes | None = None) -> Reply:
        """As an app does that asks its server: a mock route answers if one fits, else `real`. Both are reported."""
        route = next((one for one in self.routes if one["url"] in url and one["method"] == method), None)
        reply = Reply(route["status"], route["data"], route["headers"]) if route is not None else real()
        self.exchange(method, url, reply, body=body, mocked=route is not None)
        return reply

    def request(
        self, method: str, url: str, *, headers: Headers = (), body: bytes | None = None, at: float | None = None
    ) -> object:
        """Reports a request, and gives its id: a UUID on Android, a random 64-bit integer on iOS."""
        identifier: object = (
            str(uuid.UUID(int=self._draw.getrandbits(128), version=4))
            if self.platform is Platform.ANDROID
            else self._draw.randrange(-(2**63), 2**63)
        )
        self.report(
            "newRequest",
            self.fields(
                id=identifier,
                timestamp=self._time(at),
                method=method,
                url=url,
                headers=self._headers(headers),
                data=self.base64(None if body is None else body[: self._limit]),
            ),
        )
        return identifier

    def respond(self, identifier: object, reply: Reply, *, at: float | None = None, mocked: bool = False) -> None:
        """Reports the answer to a request: one event, or several where the body is large (Android)."""
        body = self._reported(reply)
        if self.platform is Platform.IOS:
            self._respond_ios(identifier, reply, body, at)
            return
        parts = [None] if body is None else [body[start : start + CHUNK] for start in range(0, len(body), CHUNK)]
        parts = parts or [b""]
        moment = self._time(at)
        head = {"status": reply.status, "headers": self._headers(reply.headers), "isMock": mocked}
        for index, part in enumerate(parts):
            values: dict[str, object] = {"id": identifier, "timestamp": moment, **(head if index == 0 else {})}
            name = "newResponse" if len(parts) == 1 else "partialResponse"
            where = {"totalChunks": len(parts), "index": index}
            self.report(name, self.fields(**values, data=self.base64(part), **where))

    def _respond_ios(self, identifier: object, reply: Reply, body: bytes | None, at: float | None) -> None:
        self.report(
            "newResponse",
            self.fields(
                id=identifier,
                timestamp=self._time(at),
                status=reply.status,
                reason=reply.reason or "no error",
                headers=self._headers(reply.headers),
                data=self.base64(body),
            ),
        )

    def _reported(self, reply: Reply) -> bytes | None:
        """The part of the body that is reported. Responses that no server listened to are kept without theirs."""
        kind = dict(reply.headers).get("Content-Type", "")
        if reply.body is None or any(one in kind for one in NO_BODIES):
            return None
        if self.platform is Platform.ANDROID and not self.active:
            return None
        return reply.body[: self._limit]

    def report(self, event: str, params: Mapping[str, object]) -> None:
        """Sends an event, or keeps it for the first server."""
        if self.emit(event, params):
            return
        if self.platform is Platform.IOS and len(self._waiting) >= BUFFERED:
            return
        self._waiting.append((event, params))
        if len(self._waiting) > BUFFERED:
            self._waiting.popleft()

    @property
    def _limit(self) -> int | None:
        return self.body_limit if self.platform is Platform.ANDROID else None

    def _time(self, at: float | None) -> int:
        return round((self._clock() if at is None else at) * 1000)

    def _headers(self, headers: Headers) -> list[dict[str, str]]:
        """Each name once, with its last value."""
        pairs = headers.items() if isinstance(headers, Mapping) else headers
        return [{"key": name, "value": value} for name, value in dict(pairs).items()]
