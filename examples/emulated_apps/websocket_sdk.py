"""WebSocketSdk: an app with Flipper's SDK as it was from 2022 to its end, on ports 9089 and 9088."""

import asyncio
import base64
import contextlib
import json
import ssl
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import NoReturn, TypeAlias
from urllib.parse import quote_plus

from .bundle import BUNDLE, WrongKey, unpack
from .core import SILENT_ON_SUCCESS, FlipperCore, Message, dump
from .java_trust import HandshakeFailed, TlsLine, check
from .sdk import Ended, Port, Profile, Sdk
from .sonar_folder import SonarFolder
from .websocket_line import NotUpgraded, PlainLine, WebSocketLine

RETRY = 3.0
"""Seconds between two tries."""
CONNECT_LIMIT = 0.03
"""Seconds for the TCP connection on Android, where somebody has taken milliseconds for seconds."""
PINGS = {"Android": 60.0}
"""Seconds between pings by `os`; the others have PING."""
PING = 10.0
LAST_LINES = 512

Scan: TypeAlias = Callable[[], Awaitable[str | None]]


class WebSocketSdk(Sdk):
    """On Android (and desktops) and, with `os` "iOS" in the profile, on iOS, which trusts every server.

    `connect_limit` and `ping` in seconds; `now` is the device's clock, with a zone. `linger`: seconds for which the
    socket of an exchange stays open after its answer, while one more message kills the app. `scan` is the user who
    holds the camera of an iOS app onto a screen: it gives the text of the QR code there, or None to give up.
    """

    def __init__(
        self,
        profile: Profile,
        folder: SonarFolder,
        core: FlipperCore,
        *,
        insecure_port: Port = 9089,
        secure_port: Port = 9088,
        host: str = "localhost",
        retry: float = RETRY,
        connect_limit: float = CONNECT_LIMIT,
        ping: float | None = None,
        linger: float = 0.0,
        scan: Scan | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        super().__init__(
            profile, folder, core, insecure_port=insecure_port, secure_port=secure_port, host=host, retry=retry
        )
        self._connect_limit, self._linger, self._scan, self._now = connect_limit, linger, scan, now
        self._ping = PINGS.get(profile.os, PING) if ping is None else ping
        self._logs: list[str] = []
        self.line: WebSocketLine | None = None

    @property
    def ios(self) -> bool:
        return self.profile.os == "iOS"

    def note(self, what: str, why: object = "") -> None:
        level = {"failed": "error", "unserved": "error", "missed": "warning"}.get(what, "info")
        self._logs.append(f"{time.time_ns() // 1_000_000}:{level}:[conn] {what} {why}".rstrip())
        del self._logs[:-LAST_LINES]
        super().note(what, why)

    def query(self, device_id: str, **more: str) -> str:
        """The identity as a URL carries it; the base64 of a request goes in as it is."""
        profile = self.profile
        fields = {
            "os": profile.os,
            "device": profile.device,
            "device_id": device_id,
            "app": profile.app,
            "app_id": profile.app_id,
            "sdk_version": str(profile.sdk_version),
            "medium": str(profile.medium),
        }
        parts = [f"{name}={quote_plus(value)}" for name, value in fields.items()]
        return "&".join([*parts, *(f"{name}={value}" for name, value in more.items())])

    # The exchange.

    async def _exchange(self) -> None:
        device_id = "" if self.profile.desktop else "unknown"
        line = await self._open(self.insecure_port, self.query(device_id), None)
        if line is None:
            return
        try:
            csr = await asyncio.to_thread(self.folder.renew, self.profile.app_id)
            self._sent_request()
            message = {"method": "signCertificate", "csr": csr, "destination": self.folder.destination}
            more = {"medium": self.profile.medium, "timestamp": round(self._now().timestamp() * 1000)}
            line.send(dump({**message, **more, "logs": self._take_logs()}))
            answer = await line.receive()
            if answer is None:
                self.note("unserved", "the server closed the connection")
                return
            await self._answered(line, answer)
            await self._listen_on(line)
        finally:
            await line.close()

    async def _answered(self, line: WebSocketLine, text: str) -> None:
        """Whatever came is the answer. It is parsed where nothing catches an error, unless it is empty."""
        try:
            answer = json.loads(text or "{}")
            config = {"deviceId": answer.get("deviceId"), "medium": self.profile.medium}
        except (ValueError, AttributeError) as error:
            self._die(f"the answer is not a JSON object: {error}")
        self.folder.keep(config)
        if isinstance(answer.get("certificates"), str):
            (self.folder / BUNDLE).write_text(answer["certificates"], encoding="ascii")
            await self._scan_key()
        complete = self.folder.complete()
        self.note("exchanged" if complete else "unserved", text)
        acknowledgement = {"method": "signCertificateAck", "isError": False, "hasRequiredFiles": complete}
        line.send(dump({**acknowledgement, "config": config, "logs": self._take_logs()}))

    async def _scan_key(self) -> None:
        """The camera stays open until the code is right, or the user has had enough, who is not asked again then."""
        while self.ios and self._scan is not None and not self.folder.complete():
            key = await self._scan()
            if key is None:
                self._scan = None
                return
            try:
                unpack(self.folder, key)
            except WrongKey as error:
                self.note("wrong key", error)

    async def _listen_on(self, line: WebSocketLine) -> None:
        """The socket is going away; a second message finds an object that is no more."""
        second = None
        if self._linger:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._linger):
                    second = await line.receive()
        if second is not None or line.waiting():
            self._die(f"a second message in the exchange: {second}")

    def _die(self, why: str) -> NoReturn:
        self.note("crashed", why)
        raise Ended(why)

    def _take_logs(self) -> list[str]:
        logs, self._logs = self._logs, []
        return logs

    # The session.

    async def _connect(self) -> None:
        await asyncio.to_thread(self.folder.make_p12)
        config = self.folder.config() or {}
        # The SDK's base64 routine takes the last character for a line break, which it is not.
        csr = base64.b64encode(self.folder.request.encode()).decode("ascii")[:-1]
        destination = quote_plus(self.folder.destination)
        query = self.query(str(config.get("deviceId") or ""), csr=csr, csr_path=destination)
        line = await self._open(self.secure_port, query, self._context())
        if line is None:
            return
        self.line = line
        self.core.opened(lambda message: line.send(dump(message)))
        self._opened()
        pings = asyncio.create_task(self._keep_pinging(line))
        answers: set[asyncio.Task[None]] = set()
        try:
            while (text := await line.receive()) is not None:
                task = asyncio.create_task(self._serve(line, json.loads(text)))
                answers.add(task)
                task.add_done_callback(answers.discard)
        finally:
            pings.cancel()
            for task in answers:
                task.cancel()
            await line.close(1001)
            self.core.closed()
            self.note("lost", f"{line.close_code} {line.close_reason}")

    async def _serve(self, line: WebSocketLine, message: Message) -> None:
        """Answers carry the id of what they answer. A receiver that forgets to answer is never answered for."""
        answer = await self.core.answer(message)
        if answer is not None and not (message.get("method") in SILENT_ON_SUCCESS and "success" in answer):
            line.send(dump(({"id": message["id"]} if "id" in message else {}) | answer))

    async def _keep_pinging(self, line: WebSocketLine) -> None:
        while True:
            await asyncio.sleep(self._ping)
            line.ping()

    # One try to get a WebSocket.

    async def _open(self, port: Port, query: str, context: ssl.SSLContext | None) -> WebSocketLine | None:
        """None when it has not come to that, and another try follows; raises Ended when none does."""
        try:
            if self.ios:
                await self._probe(port)
            reader, writer = await asyncio.wait_for(self._dial(port), self._connect_limit)
        except (OSError, TimeoutError) as error:
            self.note("missed", error)
            return None
        stream: PlainLine | TlsLine = PlainLine(reader, writer)
        if context is not None:
            try:
                stream = TlsLine(reader, writer, context, None if self.ios else self._look)
                await stream.handshake()
            except HandshakeFailed as error:
                self._refused(error)
                return None
        line = WebSocketLine(stream, f"{self.host}:{port if isinstance(port, int) else port()}", query)
        try:
            await line.open()
        except NotUpgraded as error:
            self._not_upgraded(error)
            return None
        return line

    async def _probe(self, port: Port) -> None:
        """iOS first looks whether anybody listens, and says nothing."""
        _, writer = await self._dial(port)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    def _context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE  # Android's own check is `_look`; iOS has none
        context.load_cert_chain(self.folder / "device.crt", self.folder / "privateKey.pem")
        return context

    def _look(self, chain: list[bytes]) -> None:
        check(chain, self.folder.anchor(), self._now())

    def _refused(self, error: HandshakeFailed) -> None:
        """Android counts what went wrong in the handshake and not its end; iOS counts only that it was broken off."""
        if error.by_end == self.ios:
            self._failed(error)
        else:
            self.note("missed", error)

    def _not_upgraded(self, error: NotUpgraded) -> None:
        """Android hears of no HTTP status but 401: no event, and so no other try, until the app is started again."""
        self.note("missed", error)
        if not self.ios and error.status not in (None, 401):
            self.note("silent", error)
            raise Ended(str(error))
