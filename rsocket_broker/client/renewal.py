"""Keeps the app's certificate alive over its session: asks for a new one in good time, and when the broker says so.

The broker serves `identity.renew` {"csr": PEM} -> {"certificate": PEM, "trust": PEM}, which signs the request that lies
in our folder again, and `identity.stored` {"serial": hex}, after which the session goes on as the new certificate's.
It calls `identity.trust` {"trust": PEM} (anchors to store) and `identity.renew` {} (renew now). The key stays here.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator
from datetime import datetime, timedelta
from typing import Any

import attrs
from cryptography import x509

from rsocket_broker.client.app_plugin import AppPlugin, method
from rsocket_broker.client.folder import AppFolder, Enrolled
from rsocket_broker.errors import ApplicationError, BrokerError, ConfigurationError, Invalid, RequestFailed
from rsocket_broker.jsontext import JsonError
from rsocket_broker.moments import utc_now

PLUGIN = "identity"
"""The id under which both sides speak of certificates; no plugin of an app may have it."""

DUE = 2 / 3
"""Of a certificate's life, after which it is renewed."""
SPREAD = 1 / 30
"""Of a certificate's life, over which the renewals of those are spread that were made at the same moment."""

LOOK = 60.0
"""Seconds: how often the time of day is looked at. That a machine slept, or its clock was set, is found by then."""
FIRST_PAUSE, LONGEST_PAUSE = 60.0, 3600.0
"""Seconds from one try to the next, doubled after each that failed. A clock that is far ahead, to which every new
certificate seems old, has the broker asked no more often either."""

MAX_FIELD = 64 * 1024
"""Characters of the certificates in one field: some thousands where they are real."""

Ask = Callable[[str, object], Awaitable[Any]]
"""Asks the broker at a route with one JSON value, over the session; its answer."""

logger = logging.getLogger(__name__)


@attrs.frozen(slots=True)
class Schedule:
    """When a certificate is to be renewed. `draw` (0 to 1) places it within the spread."""

    begins: datetime
    ends: datetime

    @classmethod
    def of(cls, certificate_pem: bytes) -> "Schedule":
        certificate = x509.load_pem_x509_certificate(certificate_pem)
        return cls(certificate.not_valid_before_utc, certificate.not_valid_after_utc)

    def due(self, draw: float) -> datetime:
        return self.begins + (self.ends - self.begins) * (DUE + SPREAD * draw)


class Renewal(AppPlugin):
    """The identity of one app. `enrolled` is what its folder holds; set it when an exchange has put it there."""

    id = PLUGIN

    def __init__(
        self,
        folder: AppFolder,
        ask: Ask,
        *,
        now: Callable[[], datetime] = utc_now,
        draw: Callable[[], float],
    ) -> None:
        self._folder = folder
        self._ask = ask
        self._now = now
        self._draw = draw
        self._turn = asyncio.Lock()
        self.enrolled: Enrolled | None = None
        self.renewed: Callable[[Enrolled], object] = lambda enrolled: None
        """Called after each renewal."""

    @property
    def current(self) -> Enrolled:
        """What to connect with."""
        assert self.enrolled is not None
        return self.enrolled

    async def keep(self) -> None:
        """Renews whenever it is time, until it is cancelled. For as long as a session is there."""
        failures = 0
        while True:
            await self._until_due()
            try:
                await self.renew_now()
                failures = 0
                pause = FIRST_PAUSE
            except (BrokerError, OSError, JsonError) as error:
                logger.warning("the certificate was not renewed: %s", _words(error))
                pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(failures, 16))
                failures += 1
            await asyncio.sleep(pause)

    async def _until_due(self) -> None:
        draw = self._draw()
        while True:
            left = self._due(draw) - self._now()
            if left <= timedelta():
                return
            await asyncio.sleep(min(LOOK, left.total_seconds()))

    def _due(self, draw: float) -> datetime:
        return Schedule.of(self.current.credentials.chain_pem).due(draw)

    async def renew_now(self) -> str:
        """Renews once, or waits for a renewal that is under way; the serial number (hex) of the new certificate.

        Raises BrokerError with the broker's words, or what was wrong with its answer; nothing has changed then.
        """
        before = self.enrolled
        async with self._turn:
            if self.enrolled is not before:
                return serial_of(self.current)
            return await self._renew()

    async def _renew(self) -> str:
        answer = await self._ask(f"{PLUGIN}.renew", {"csr": self.current.csr_pem})
        certificate, trust = _field(answer, "certificate"), _field(answer, "trust")
        self.enrolled = await asyncio.to_thread(self._folder.store_renewal, certificate, trust)
        serial = serial_of(self.current)
        logger.info("the certificate was renewed, serial %s", serial)
        self.renewed(self.current)
        await self._ask(f"{PLUGIN}.stored", {"serial": serial})
        return serial

    @method("renew")
    async def told_to_renew(self) -> dict[str, object]:
        """The broker signs with another authority by now."""
        with _told():
            return {"serial": await self.renew_now()}

    @method("trust")
    async def told_to_trust(self, params: object) -> dict[str, object]:
        """The broker will show other certificates from some moment on."""
        with _told():
            async with self._turn:
                self.enrolled = await asyncio.to_thread(self._folder.store_trust, _field(params, "trust"))
        return {}


def check_free(plugins: Iterable[AppPlugin]) -> None:
    """Raises ConfigurationError when a plugin of the app has the id that is ours."""
    if any(plugin.id == PLUGIN for plugin in plugins):
        raise ConfigurationError(f"the id {PLUGIN!r} is the SDK's own: call the app plugin something else")


def _field(value: object, name: str) -> bytes:
    found = value.get(name) if isinstance(value, dict) else None
    if not isinstance(found, str) or len(found) > MAX_FIELD or not found.isascii():
        raise Invalid(f"{PLUGIN}: the field {name} must be PEM text of at most {MAX_FIELD} characters")
    return found.encode()


def serial_of(enrolled: Enrolled) -> str:
    """The serial number of the certificate, in hex."""
    return f"{x509.load_pem_x509_certificate(enrolled.credentials.chain_pem).serial_number:x}"


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """What fails in the block, in words for the broker."""
    try:
        yield
    except RequestFailed:
        raise
    except (BrokerError, OSError, JsonError) as error:
        raise ApplicationError(_words(error)) from error


def _words(error: Exception) -> str:
    return error.public if isinstance(error, BrokerError) else str(error) or type(error).__name__
