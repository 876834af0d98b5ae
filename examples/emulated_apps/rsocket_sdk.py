"""RSocketSdk: an app with Flipper's SDK as it was until early 2022, on ports 8089 and 8088."""

import asyncio
import json
import ssl

from .core import FlipperCore, Message, dump
from .rsocket_line import FRAGMENT, KEEPALIVE, LARGEST, Refused, RSocketLine, Violation
from .sdk import Port, Profile, Sdk
from .sonar_folder import SonarFolder

RETRY = 2.0
"""Seconds between two tries."""
ALPN = "rs"


class RSocketSdk(Sdk):
    """Times in seconds; `largest` and `fragment` in bytes (see `rsocket_line`)."""

    def __init__(
        self,
        profile: Profile,
        folder: SonarFolder,
        core: FlipperCore,
        *,
        insecure_port: Port = 8089,
        secure_port: Port = 8088,
        host: str = "localhost",
        retry: float = RETRY,
        keepalive: float = KEEPALIVE,
        largest: int = LARGEST,
        fragment: int = FRAGMENT,
    ) -> None:
        super().__init__(
            profile, folder, core, insecure_port=insecure_port, secure_port=secure_port, host=host, retry=retry
        )
        self._keepalive, self._largest, self._fragment = keepalive, largest, fragment
        self.line: RSocketLine | None = None
        self.tls = ""
        """Version and ALPN protocol of the session, such as `TLSv1.2 rs`."""

    def identity(self, device_id: object, **more: object) -> bytes:
        profile = self.profile
        names = {"os": profile.os, "device": profile.device, "device_id": device_id, "app": profile.app}
        levels = {"sdk_version": profile.sdk_version, "medium": profile.medium}
        return dump({**names, **levels, **more}).encode()

    async def _exchange(self) -> None:
        try:
            line = RSocketLine(*await self._dial(self.insecure_port), keepalive=self._keepalive)
        except OSError as error:
            self.note("missed", error)
            return
        line.setup(self.identity("" if self.profile.desktop else "unknown"))
        csr = await asyncio.to_thread(self.folder.renew, self.profile.app_id)
        message = {"method": "signCertificate", "csr": csr, "destination": self.folder.destination}
        running = asyncio.create_task(line.run())
        self._sent_request()
        try:
            answer = json.loads(await line.request(dump({**message, "medium": self.profile.medium}).encode()))
            self.folder.keep({**answer, "medium": self.profile.medium})
            self.note("exchanged" if self.folder.complete() else "unserved", dump(answer))
        except (Refused, ConnectionError) as error:
            self.note("unserved", error)
        finally:
            running.cancel()
            await self._ended(running)

    async def _connect(self) -> None:
        try:
            reader, writer = await self._dial(self.secure_port, self._context())
        except OSError as error:
            if isinstance(error, ssl.SSLError) or ended(error):
                self._failed(repr(error))
            else:
                self.note("missed", error)
            return
        await self._session(reader, writer)

    def _context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.load_verify_locations(self.folder / "sonarCA.crt")
        context.load_cert_chain(self.folder / "device.crt", self.folder / "privateKey.pem")
        context.set_alpn_protocols([ALPN])
        return context

    async def _session(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        secure = writer.get_extra_info("ssl_object")
        self.tls = f"{secure.version()} {secure.selected_alpn_protocol()}"
        line = self.line = RSocketLine(
            reader,
            writer,
            serve=self._serve,
            hear=self._hear,
            keepalive=self._keepalive,
            largest=self._largest,
            fragment=self._fragment,
        )
        config = self.folder.config() or {}
        more = {"csr": self.folder.request, "csr_path": self.folder.destination}
        line.setup(self.identity(config.get("deviceId"), **more))
        self.core.opened(lambda message: line.fire(dump(message).encode()))
        self._opened()
        running = asyncio.create_task(line.run())
        try:
            await self._ended(running)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            self.core.closed()
            self.note("lost")

    async def _ended(self, running: "asyncio.Task[None]") -> None:
        """Waits for the end of a line, and says what a server has done wrong."""
        (found,) = await asyncio.gather(running, return_exceptions=True)
        if isinstance(found, Violation):
            self.note("violation", found)
        elif isinstance(found, Refused):
            self.note("refused", found)
        elif isinstance(found, Exception):
            raise found

    async def _serve(self, data: bytes) -> bytes:
        """A request-response is always answered: with an empty object where a receiver forgets to."""
        answer = await self.core.answer(json.loads(data))
        return dump({"success": {}} if answer is None else answer).encode()

    async def _hear(self, data: bytes) -> None:
        message: Message = json.loads(data)
        answer = await self.core.answer(message)
        if answer is not None and self.line is not None:
            self.line.fire(dump(({"id": message["id"]} if "id" in message else {}) | answer).encode())


def ended(error: OSError) -> bool:
    """The stream has ended in the handshake, which the library counts; a reset (with a number) it does not."""
    return isinstance(error, ConnectionResetError) and error.errno is None
