"""Sdk: what the connection managers of both eras have in common: exchange, connect, wait, and again, for ever."""

import abc
import asyncio
import ssl
from collections.abc import Callable
from types import TracebackType
from typing import NamedTuple, Self, TypeAlias

from .core import FlipperCore
from .sonar_folder import SonarFolder

FAILURES = 2
"""Failed connections after which the SDK exchanges certificates anew."""

PATIENCE = 20.0
"""Seconds that `until` waits when it is not told otherwise."""

LAST = 12
"""Happenings that an error tells."""

Port: TypeAlias = int | Callable[[], int]
"""A port to dial. A function is asked at each try, and raises LookupError or OSError where nobody listens now."""


class Profile(NamedTuple):
    """How an app names itself. `medium`: 1 is access to its files."""

    app_id: str
    app: str = "Emulated"
    os: str = "Android"
    device: str = "Pixel 6 - 13 - API 33"
    sdk_version: int = 4
    medium: int = 1

    @property
    def desktop(self) -> bool:
        return self.os in ("MacOS", "Windows")


class Happening(NamedTuple):
    """What an SDK has done or met, in one word, and the circumstances.

    `exchanging` (a request has been sent), `exchanged` (the folder is complete), `unserved` (it is not), `connected`,
    `lost` (the session), `failed` (a try, counted as a failure), `missed` (a try, not counted), `violation` (of the
    protocol, by the server), `silent` (it will not try again), `crashed` (the app's process has ended).
    """

    what: str
    why: str = ""


class Ended(Exception):
    """No further try is made."""


class Sdk(abc.ABC):
    """`async with sdk:` is the life of the app's process. `retry` is the wait between tries in seconds."""

    def __init__(
        self,
        profile: Profile,
        folder: SonarFolder,
        core: FlipperCore,
        *,
        insecure_port: Port,
        secure_port: Port,
        host: str = "localhost",
        retry: float,
    ) -> None:
        self.profile, self.folder, self.core = profile, folder, core
        self.insecure_port, self.secure_port = insecure_port, secure_port
        self.host, self.retry = host, retry
        self.failures = 0
        self.happened: list[Happening] = []
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self.core.closed()

    # What a test asks.

    def count(self, what: str) -> int:
        """How often something has happened so far."""
        return sum(one.what == what for one in self.happened)

    async def until(self, condition: Callable[[], object], limit: float = PATIENCE) -> None:
        """Returns when `condition()` is true; it is looked at whenever something happens. Raises TimeoutError."""
        try:
            async with asyncio.timeout(limit):
                while not condition():
                    await self._news.wait()
        except TimeoutError:
            last = [" ".join(one) for one in self.happened[-LAST:]]
            raise TimeoutError(
                f"it did not come to that; {len(self.happened)} things happened, the last: {last}"
            ) from None

    async def connected(self, times: int = 1, limit: float = PATIENCE) -> None:
        """Returns when a session is open, at least the one of this number."""
        await self.until(lambda: self.core.connected and self.count("connected") >= times, limit)

    def note(self, what: str, why: object = "") -> None:
        self.happened.append(Happening(what, str(why)))
        news, self._news = self._news, asyncio.Event()
        news.set()

    # The manager.

    async def _run(self) -> None:
        try:
            while True:
                await self._try()
                await asyncio.sleep(self.retry)
        except Ended:
            return
        except Exception as error:  # a mistake of the emulation must be seen
            self.note("crashed", f"the emulation: {type(error).__name__}: {error}")
            raise

    async def _try(self) -> None:
        if self.exchange_needed():
            await self._exchange()
        else:
            await self._connect()

    def exchange_needed(self) -> bool:
        config = self.folder.config()
        return (
            self.failures >= FAILURES
            or config is None
            or config["medium"] != self.profile.medium
            or not self.folder.complete()
        )

    async def _dial(
        self, port: Port, tls: ssl.SSLContext | None = None
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Raises OSError, and ssl.SSLError, which is one, when a handshake fails."""
        try:
            number = port if isinstance(port, int) else port()
        except LookupError as error:
            raise ConnectionRefusedError(f"nothing listens on the device's port {error}") from error
        if tls is None:
            return await asyncio.open_connection(self.host, number)
        return await asyncio.open_connection(self.host, number, ssl=tls, server_hostname="")

    def _sent_request(self) -> None:
        self.failures = 0
        self.note("exchanging")

    def _failed(self, why: object) -> None:
        self.failures += 1
        self.note("failed", why)

    def _opened(self) -> None:
        self.failures = 0
        self.note("connected")

    @abc.abstractmethod
    async def _exchange(self) -> None:
        """One try to get certificates. Raises Ended."""

    @abc.abstractmethod
    async def _connect(self) -> None:
        """One try to open a session, and the session. Raises Ended."""
