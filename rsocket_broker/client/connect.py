"""One call for an app: enrolled where it was not, connected, and kept so for as long as the app wants."""

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime
from os import PathLike

import attrs

from rsocket_broker.client.app_plugin import AppPlugin, by_id
from rsocket_broker.client.enroll import Upload, exchange, fetched, parse_token
from rsocket_broker.client.flipper import FlipperApp
from rsocket_broker.client.folder import AppFolder, Enrolled
from rsocket_broker.client.line import (
    Address,
    Lease,
    Terms,
    WebAddress,
    open_secure,
    refuses_resumption,
    resume_secure,
)
from rsocket_broker.client.pairing import Pairing, pair
from rsocket_broker.client.profile import AppProfile
from rsocket_broker.client.progress import Observer, Progress, Stage
from rsocket_broker.client.reconnect import Backoff, Failure, Reconnector, Step
from rsocket_broker.client.renewal import Renewal, check_free, serial_of
from rsocket_broker.client.responder import AppResponder
from rsocket_broker.client.session import Session
from rsocket_broker.connection import Connection
from rsocket_broker.errors import (
    AuthorityError,
    BrokerError,
    ConnectionClosed,
    EnrollmentRefused,
    HomeError,
    SetupRefused,
    TlsRefused,
)
from rsocket_broker.grant_tokens import GrantToken
from rsocket_broker.moments import utc_now

logger = logging.getLogger(__name__)

GOODBYE_TIMEOUT = 5.0
"""Seconds that the plugins' `on_deinit` may take together, when a line is lost or the app leaves."""


PASSING_STEPS = frozenset({"limits"})
"""Steps of an enrolment whose refusal passes by itself: the broker is asked again, whatever `retry_refusals` says."""


@attrs.frozen(slots=True, kw_only=True)
class Settings:
    """Everything that a client must know to keep its line. `draw` gives random numbers from 0 to 1."""

    profile: AppProfile
    folder: AppFolder
    plain: Address
    secure: Address | WebAddress
    plugins: Sequence[AppPlugin] = ()
    token: GrantToken | None = None
    pairing: Pairing | None = None
    upload: Upload | None = None
    backoff: Backoff = attrs.field(factory=Backoff)
    retry_refusals: bool = False
    resume: bool = True
    lease: Lease | None = None
    observer: Observer | None = None
    draw: Callable[[], float] = random.random
    clock: Callable[[], float] = time.monotonic
    now: Callable[[], datetime] = utc_now


@contextlib.asynccontextmanager
async def connect(
    *,
    app_id: str,
    app: str,
    directory: str | PathLike[str],
    host: str = "localhost",
    insecure_port: int = 8089,
    secure_port: int = 8088,
    websocket: str | None = None,
    plugins: Sequence[AppPlugin] = (),
    device: str | None = None,
    token: str | None = None,
    pairing: Pairing | None = None,
    upload: Upload | None = None,
    timeout: float | None = None,
    retry_refusals: bool = False,
    resume: bool = True,
    lease: Lease | None = None,
    backoff: Backoff | None = None,
    observer: Observer | None = None,
    draw: Callable[[], float] = random.random,
    clock: Callable[[], float] = time.monotonic,
    now: Callable[[], datetime] = utc_now,
) -> AsyncIterator[Session]:
    """A connected session for the app, enrolled on the way if need be: `async with connect(...) as session:`.

    Waits for a broker that is not there yet, for ever or up to `timeout` seconds (then TimeoutError), and connects
    again whenever the line is lost, until the block is left. `directory` is the app's own folder for its key and its
    certificates, made with mode 0700 where missing. `host` must be a name or address in the broker's certificate.
    `websocket`, such as `wss://localhost:9088/rsocket`, is where sessions are opened in place of `secure_port`;
    ValueError says what is wrong with it. `token` is that of a grant, for a broker that enrols by token only; it is
    proven whenever there is no certificate, or none that is accepted, and works as often as the grant says;
    ConfigurationError for what is no token.

    With `pairing` the certificate comes from the broker that its code leads to, with `upload` it is fetched; else the
    broker puts it into `directory`.

    A refusal in words (of the enrolment, of the session) before the first connection raises EnrollmentRefused or
    SetupRefused with the broker's text, unless `retry_refusals`. Later ones are logged and tried again, and so is
    a broker that was asked too often.

    With `resume`, a session whose line is lost goes on over the next one: nothing under way is lost or done twice.
    Where the broker does not offer that, or has given the session up, a new one begins. With a `lease` each side asks
    only as much as the other lets it; the lease is what we let the broker ask. `backoff`, `draw` (a random number from
    0 to 1) and `clock` shape the waits.

    The certificate is renewed over the session after two thirds of its life, and whenever the broker asks for it, as
    when it changes its authority; the session goes on. `now` is the time of day (aware) by which that is judged.
    """
    settings = Settings(
        profile=_profile(app_id, app, device),
        folder=AppFolder(directory),
        plain=Address(host, insecure_port),
        secure=Address(host, secure_port) if websocket is None else WebAddress.parse(websocket),
        plugins=plugins,
        token=parse_token(token),
        pairing=pairing,
        upload=upload,
        backoff=backoff or Backoff(),
        retry_refusals=retry_refusals,
        resume=resume,
        lease=lease,
        observer=observer,
        draw=draw,
        clock=clock,
        now=now,
    )
    async with _linked(settings, timeout) as session:
        yield session


def _profile(app_id: str, app: str, device: str | None) -> AppProfile:
    return AppProfile(app_id=app_id, app=app) if device is None else AppProfile(app_id=app_id, app=app, device=device)


@contextlib.asynccontextmanager
async def _linked(settings: Settings, timeout: float | None) -> AsyncIterator[Session]:
    link = Link(settings)
    link.start()
    try:
        await link.first_connection(timeout)
        yield link.session
    finally:
        await link.stop()


class Link:
    """Keeps one session alive: enrols, connects, waits, and starts again."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        check_free(settings.plugins)
        self._plugins = by_id(list(settings.plugins))
        self.session = Session(self._plugins)
        self._renewal = Renewal(settings.folder, self.session.request, now=settings.now, draw=settings.draw)
        self._renewal.renewed = self._renewed
        self._flipper = FlipperApp(self._plugins, self.session)
        self._reconnector = Reconnector(settings.backoff)
        self._terms = Terms(settings.resume, settings.lease)
        self._connection: Connection | None = None
        self._task: asyncio.Task[None] | None = None
        self._last_failure = ""

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name=f"link of {self._settings.profile.app_id}")

    async def first_connection(self, timeout: float | None) -> None:
        """Raises what made it impossible, or TimeoutError with what failed last."""
        try:
            await self.session.wait_connected(timeout)
        except TimeoutError:
            reason = self._last_failure or "no answer yet"
            raise TimeoutError(f"not connected after {timeout:g} s: {reason}") from None

    async def stop(self) -> None:
        """Says goodbye to the broker and to the plugins. Safe to call at any time."""
        self.session.end(ConnectionClosed("this session was closed by the app"))
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._connection is not None:
            await self._connection.close()
        await self._plugins_off()

    async def _run(self) -> None:
        try:
            while True:
                await self._once()
                await self._wait()
        except BrokerError as error:
            self._tell(Stage.FAILED, error.public)
            self.session.end(error)
        except Exception as error:
            logger.exception("the link to the broker failed")
            self.session.end(ConnectionClosed(f"the client failed: {type(error).__name__}"))

    async def _once(self) -> None:
        """One try. Returns when it has failed or its session is lost; raises BrokerError when no other may follow."""
        try:
            enrolled = await self._enrolled()
            await self._hold(enrolled)
        except (TlsRefused, AuthorityError) as error:
            self._failed(Failure.TLS, error.public)
        except (EnrollmentRefused, SetupRefused) as error:
            self._failed(Failure.REFUSED, error.public)
            if self._is_final(error):
                raise
        except (OSError, ConnectionClosed) as error:
            self._failed(Failure.NETWORK, str(error) or type(error).__name__)

    def _is_final(self, error: EnrollmentRefused | SetupRefused) -> bool:
        """Whether the app is to be told instead of another try: only before its first session."""
        passing = isinstance(error, EnrollmentRefused) and error.step in PASSING_STEPS
        return not (passing or self._settings.retry_refusals or self.session.connections)

    async def _enrolled(self) -> Enrolled:
        enrolled = await asyncio.to_thread(self._load)
        if enrolled is not None and self._reconnector.next_step(enrolled=True) is Step.CONNECT:
            return enrolled
        self._tell(Stage.ENROLLING, str(self._settings.plain))
        try:
            enrolled = await self._obtain()
        except (OSError, ConnectionClosed):
            self._reconnector.enrollment_unreachable()
            raise
        self._reconnector.enrolled()
        self._tell(Stage.ENROLLED, enrolled.device_id)
        return enrolled

    async def _obtain(self) -> Enrolled:
        settings = self._settings
        if settings.pairing is not None:
            return await pair(settings.profile, settings.folder, settings.pairing, self._tell_enrolling)
        if settings.upload is not None:
            return await fetched(
                settings.profile,
                settings.folder,
                settings.plain,
                settings.upload,
                settings.token,
                self._tell_enrolling,
            )
        return await exchange(settings.profile, settings.folder, settings.plain, token=settings.token)

    def _tell_enrolling(self, step: str) -> None:
        self._tell(Stage.ENROLLING, step)

    def _load(self) -> Enrolled | None:
        try:
            return self._settings.folder.load()
        except (HomeError, AuthorityError) as error:
            logger.info("no certificate to connect with: %s", error.public)
            return None

    async def _hold(self, enrolled: Enrolled) -> None:
        settings, session = self._settings, self.session
        self._tell(Stage.CONNECTING, str(settings.secure))
        self._renewal.enrolled = enrolled
        renews = settings.secure.secure
        claims = settings.profile.secure_claims(
            enrolled.device_id, enrolled.csr_pem, settings.folder.destination, renews=renews
        )
        responder = AppResponder(self._plugins, self._flipper, session.tell, self._renewal if renews else None)

        def opened(connection: Connection) -> None:
            self._connection = connection
            session.opened(connection, enrolled.device_id)

        try:
            line = await self._open(enrolled, claims, responder, opened)
            async with self._renewing() if renews else contextlib.nullcontext():
                await self._live(line)
        finally:
            session.lost()
            await self._plugins_off()

    async def _open(
        self, enrolled: Enrolled, claims: bytes, responder: AppResponder, opened: Callable[[Connection], None]
    ) -> Connection:
        address, credentials = self._settings.secure, enrolled.credentials
        try:
            return await open_secure(address, credentials, claims, responder, opened, self._terms)
        except SetupRefused as error:
            if not (self._terms.resume and refuses_resumption(error)):
                raise
        logger.info("the broker at %s offers no resumption: sessions end with their line", address)
        self._terms = attrs.evolve(self._terms, resume=False)
        return await open_secure(address, credentials, claims, responder, opened, self._terms)

    @contextlib.asynccontextmanager
    async def _renewing(self) -> AsyncIterator[None]:
        """Within the block, the certificate is renewed when it is time."""
        keeping = asyncio.create_task(self._renewal.keep(), name=f"renewals of {self._settings.profile.app_id}")
        keeping.add_done_callback(_log_failure)
        try:
            yield
        finally:
            keeping.cancel()

    def _renewed(self, enrolled: Enrolled) -> None:
        self._tell(Stage.RENEWED, serial_of(enrolled))

    async def _live(self, line: Connection) -> None:
        """Until the session is over."""
        began = self._settings.clock()
        self._reconnector.accepted()
        self.session.accepted()
        self._last_failure = ""
        self._tell(Stage.CONNECTED, self.session.device_id)
        try:
            while True:
                await line.wait_line_lost()
                self._reconnector.session_ended(self._settings.clock() - began)
                if not await self._resumed(line):
                    break
                began = self._settings.clock()
        finally:
            if line.closing is not None:
                logger.info("the session with the broker is over: %s", line.closing.public)
                self._tell(Stage.LOST, line.closing.public)
        await line.wait_closed()

    async def _resumed(self, line: Connection) -> bool:
        """Connects a line that was lost again and again, until its session goes on, or is over."""
        told = False
        while line.suspended:
            if not told:
                self.session.interrupted()
                self._tell(Stage.INTERRUPTED, "the line was lost")
                told = True
            await self._wait()
            await self._resume(line)
        return line.closing is None

    async def _resume(self, line: Connection) -> None:
        """One try, with what the folder holds by now: the certificate may have been renewed."""
        if not line.suspended:
            return  # its time was over while we waited
        self._tell(Stage.CONNECTING, str(self._settings.secure))
        enrolled = await asyncio.to_thread(self._load) or self._renewal.current
        try:
            await resume_secure(self._settings.secure, enrolled.credentials, line)
        except (TlsRefused, AuthorityError):
            line.abort()  # another certificate would not be allowed to resume it
            raise
        except ConnectionClosed as error:
            logger.info("the session cannot be resumed: %s", error.public)
        except OSError as error:
            self._failed(Failure.NETWORK, str(error) or type(error).__name__)
        else:
            self._reconnector.accepted()
            self.session.resumed()
            self._last_failure = ""
            self._tell(Stage.RESUMED, self.session.device_id)

    async def _plugins_off(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GOODBYE_TIMEOUT):
                await self._flipper.disconnected()

    async def _wait(self) -> None:
        seconds = self._reconnector.delay(self._settings.draw())
        self._tell(Stage.WAITING, f"{seconds:.2f} s")
        await asyncio.sleep(seconds)

    def _failed(self, failure: Failure, text: str) -> None:
        self._reconnector.failed(failure)
        if text != self._last_failure:  # a broker that is away for a night is worth one line, not thousands
            logger.warning("no session with the broker at %s: %s", self._settings.secure, text)
        self._last_failure = text
        self._tell(Stage.FAILED, text)

    def _tell(self, stage: Stage, detail: str) -> None:
        observer = self._settings.observer
        if observer is None:
            return
        try:
            observer(Progress(stage, detail))
        except Exception:
            logger.exception("the observer of a session failed")


def _log_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.error("%s have failed, and come no more before the next session", task.get_name(), exc_info=error)
