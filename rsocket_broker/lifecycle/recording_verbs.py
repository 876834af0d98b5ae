"""`clients.record` and `clients.replay`: sessions written down for the operator, and served again."""

import asyncio
import base64
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path

from rsocket_broker.admin.endpoint import Params, Stream
from rsocket_broker.audit import Audit, Event
from rsocket_broker.errors import ApplicationError, Invalid
from rsocket_broker.jsontext import JsonError
from rsocket_broker.recording.entries import Header, entry_line
from rsocket_broker.routing.endpoint import SecureEndpoint
from rsocket_broker.routing.session import Session
from rsocket_broker.routing.unverified import UnverifiedEndpoint
from rsocket_broker.sessions.live import Kind

BACKLOG_BYTES = 128 * 1024 * 1024
"""Bytes of messages that wait for who writes them down: two of the largest. Beyond that messages are left out."""
MAX_SPEED = 1000.0


class Recorder:
    """Takes in what is said in one session, as lines of a recording."""

    def __init__(self, session: Session) -> None:
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()
        self._lines: deque[bytes] = deque()
        self._bytes = 0
        self._dropped = 0
        self._news = asyncio.Event()
        self.header = header_of(session)
        self._stop = session.followers.record(self._take)
        self._over = asyncio.ensure_future(session.connection.wait_closed())
        self._over.add_done_callback(lambda _: self._news.set())

    def _take(self, message: dict[str, object], content: object) -> None:
        try:
            line = entry_line(self._loop.time() - self._began, message, as_json(content))
        except JsonError:  # parameters that a plugin has made and that are no JSON: the app got none either
            return
        if self._bytes + len(line) > BACKLOG_BYTES:
            self._dropped += 1
        else:
            self._lines.append(line)
            self._bytes += len(line)
        self._news.set()

    async def lines(self) -> AsyncGenerator[object, None]:
        """The header, then a line for each message until the session ends, as JSON text; `{"dropped": N}` for N left
        out. A line of 60 MB would take a second to be parsed, and another to be written again."""
        yield self.header.line()
        try:
            while self._lines or not self._over.done():
                while self._lines:
                    line = self._lines.popleft()
                    self._bytes -= len(line)
                    yield line
                if self._dropped:
                    count, self._dropped = self._dropped, 0
                    yield {"dropped": count}
                self._news.clear()
                if not self._over.done():
                    await self._news.wait()
        finally:
            self._stop()
            self._over.cancel()


def header_of(session: Session) -> Header:
    claims = session.claims
    return Header(
        made=datetime.now(UTC),
        app=claims.app,
        app_id=session.identity.app_id,
        device=claims.device,
        device_id=session.identity.device_id,
        os=claims.os,
        sdk_version=claims.sdk_version,
        plugins=tuple(session.announced),
        background=tuple(session.background),
    )


def as_json(content: object) -> object:
    """What a message says, for a line of text."""
    if isinstance(content, bytes | bytearray):
        return {"base64": base64.b64encode(content).decode()}
    return content


def recording_verbs(endpoint: SecureEndpoint, audit: Audit) -> dict[str, Stream]:
    """`clients.record` {client} gives the lines of a recording; `clients.replay` {path} serves one, as `replay` tells.

    Both raise RequestFailed or HomeError, in words for the operator, and end when they are closed.
    """

    async def record(params: Params) -> AsyncGenerator[object, None]:
        session = endpoint.sessions.find(params["client"])
        if session.kind is not Kind.FLIPPER:
            raise ApplicationError(f"{session.id} speaks no Flipper JSON, and nothing else can be served again.")
        audit.note(Event.RECORDED, session=session.id, app_id=session.identity.app_id)
        async with aclosing(Recorder(session).lines()) as lines:
            async for line in lines:
                yield line

    async def serve(params: Params) -> AsyncGenerator[object, None]:
        from rsocket_broker.lifecycle.replay import read_recording, replay  # few brokers ever do

        speed = float(params.get("speed", 1.0))
        if not 0 <= speed <= MAX_SPEED:
            raise Invalid(f"speed: wanted 0 to {MAX_SPEED:g}")
        recording = await asyncio.to_thread(read_recording, Path(params["path"]))
        responder = UnverifiedEndpoint(endpoint).responder()
        parts = replay(recording, responder, speed, stay=params.get("stay", True))
        async with aclosing(parts) as events:
            async for event in events:
                yield event

    return {
        "clients.record": Stream(record, {"client": str}),
        "clients.replay": Stream(serve, {"path": str}, {"speed": (int, float), "stay": bool}),
    }
