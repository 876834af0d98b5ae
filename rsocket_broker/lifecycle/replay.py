"""A recorded app as a session of this broker: no device, the same plugins, the policy for those who prove nothing."""

import asyncio
import io
from collections import deque
from collections.abc import AsyncGenerator
from pathlib import Path

import attrs

from rsocket_broker.claims import Claims
from rsocket_broker.errors import Invalid
from rsocket_broker.files import read_given
from rsocket_broker.messages import MessageLine
from rsocket_broker.quota import Holding
from rsocket_broker.recording.entries import Entry, Header, read_entry, read_header
from rsocket_broker.recording.recorded_app import RecordedApp
from rsocket_broker.routing.responder import SecureResponder
from rsocket_broker.transports.base import Channel, Peer, TextReceiver

MAX_RECORDING = 512 * 1024 * 1024
"""Bytes of a recording that is replayed: all of it is held while it runs."""
NO_EXCHANGE = 3
"""The medium of a client that has no certificate and wants none."""


@attrs.frozen(slots=True)
class Recording:
    """A recording as it was read."""

    header: Header
    entries: tuple[Entry, ...]

    @property
    def claims(self) -> Claims:
        """What the app says of itself, once more; nobody has proved it."""
        header = self.header
        return Claims(
            os=header.os,
            device=header.device,
            device_id=header.device_id,
            app=header.app or header.app_id,
            app_id=header.app_id,
            sdk_version=header.sdk_version,
            medium=NO_EXCHANGE,
        )


def read_recording(path: Path) -> Recording:
    """The recording in a file. Raises Invalid that names file and line at fault, HomeError for a file that is
    unreadable, too large, or can be changed by other users."""
    lines = io.BytesIO(read_given(path, MAX_RECORDING))
    try:
        header = read_header(lines.readline())
        entries = (read_entry(line, number) for number, line in enumerate(lines, 2))
        return Recording(header, tuple(entry for entry in entries if entry is not None))
    except Invalid as error:
        raise Invalid(f"{path}: {error.public}") from error


class ReplayedLine:
    """The TextTransport of a recorded app: what is sent is heard at once, and what it says comes when it is due."""

    def __init__(self, app: RecordedApp, peer: Peer) -> None:
        self.peer = peer
        self.queued = 0
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the app has said all that it says by itself, or the line has ended."""
        self._app = app
        self._loop = asyncio.get_running_loop()
        self._receiver: TextReceiver | None = None
        self._waiting: deque[bytes] = deque()
        self._reading = True
        self._timer: asyncio.TimerHandle | None = None

    def start(self, receiver: TextReceiver) -> None:
        """The time of the recording begins."""
        self._receiver = receiver
        self._app.begin(self._loop.time())
        receiver.transport_ready(self)
        self._set_timer()

    def send(self, text: bytes) -> None:
        self._waiting.extend(self._app.receive(text))
        self._loop.call_soon(self._deliver)

    def count_in(self, holding: Holding) -> None:
        """Nothing comes in pieces."""

    def ping(self) -> None:
        self._loop.call_soon(self._pong)

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        self._reading = True
        self._loop.call_soon(self._deliver)

    def close(self, code: int, reason: str) -> None:
        self.abort()

    def abort(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            self._loop.call_soon(receiver.transport_lost, None)
        self._finish()

    def _pong(self) -> None:
        if self._receiver is not None:
            self._receiver.heard(0)

    def _deliver(self) -> None:
        """One message a turn: others are served in between, as they are when a line brings them."""
        if self._receiver is None or not self._reading or not self._waiting:
            return
        text = self._waiting.popleft()
        self._receiver.heard(len(text))
        self._receiver.message_received(text)
        if self._waiting:
            self._loop.call_soon(self._deliver)
        elif self._app.over:
            self._finish()

    def _set_timer(self) -> None:
        due = self._app.due()
        if due is not None:
            self._timer = self._loop.call_at(due, self._ring)
        elif not self._waiting:
            self._finish()

    def _ring(self) -> None:
        self._waiting.extend(self._app.messages(self._loop.time()))
        self._deliver()
        self._set_timer()

    def _finish(self) -> None:
        if not self.over.done():
            self.over.set_result(None)


async def replay(
    recording: Recording, responder: SecureResponder, speed: float, *, stay: bool
) -> AsyncGenerator[dict[str, object], None]:
    """Serves a recording until this is closed, or without `stay` until the app has said everything.

    Yields `{"event": "connected", "client": ID, "app": NAME, "messages": N}`, then `{"event": "over"}`, then `{"event":
    "left", "why": TEXT}` when the session was ended by somebody else. Raises SetupRefused.
    """
    app = RecordedApp(recording.header, recording.entries, speed)
    line, transport = MessageLine(responder), ReplayedLine(app, Peer("a recording", Channel.MEMORY))
    line.open(transport.peer, recording.claims)
    transport.start(line)
    try:
        told = {"app": recording.header.app or recording.header.app_id, "messages": len(recording.entries)}
        assert responder.session is not None  # or `open` had raised
        yield {"event": "connected", "client": responder.session.id, **told}
        await transport.over
        if line.closing is None:
            yield {"event": "over"}
        if stay or line.closing is not None:
            yield {"event": "left", "why": (await line.wait_closed()).public}
    finally:
        await line.close("the recording was stopped")
