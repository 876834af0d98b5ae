"""Where sealed bundles go: into this home, to a service by HTTP, or wherever somebody's own class takes them.

[mediums.upload]
uploader = "http"                              "pickup": they lie in the home; or MODULE:CLASS
url = "https://bundles.example/{device_id}"
method = "PUT"                                 or POST
header = "Authorization"                       with the content of token_file as its value
token_file = "/etc/rsocket-broker/upload-token"
"""

import abc
import asyncio
import http.client
import importlib
import ipaddress
import re
import ssl
import urllib.parse
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar, Final

from rsocket_broker.errors import BrokerError, ConfigurationError, HomeError
from rsocket_broker.files import read_private

TIMEOUT_S: Final = 20.0
"""For each step of a request to the service: to connect, to send, to be answered."""
AT_ONCE: Final = 2
"""Uploads at work. They have threads of their own: a service that hangs must not hold those that sign and write."""
MAX_TOKEN: Final = 8192
"""Bytes of a token file: the longest header that servers take by default."""
PLACE: Final = "{device_id}"
CONTENT_TYPE: Final = "application/json"
_HEADER: Final = re.compile(r"[A-Za-z0-9-]{1,64}", re.ASCII)
_NOT_OURS: Final = frozenset({"host", "content-length", "content-type", "transfer-encoding", "connection"})
_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)


class UploadFailed(BrokerError):
    """The bundle is not where it should be. The text is for the log: an app only hears that it did not work."""


class Uploader(abc.ABC):
    """Takes bundles. One instance per broker, made with the table [mediums.upload] less its key `uploader`."""

    keeps_here: ClassVar[bool] = False
    """Whether the bundle lies in the home, to be fetched from the broker itself; `upload` has nothing to do then."""

    def __init__(self, settings: Mapping[str, object]) -> None:
        """Raises ConfigurationError for settings that make no sense."""
        self.settings = settings

    @abc.abstractmethod
    async def upload(self, device_id: str, bundle: bytes) -> None:
        """Puts a sealed bundle where the app looks for that id. Called once for each certificate, and again only after
        it has raised UploadFailed and the app has asked anew; the same id then has another bundle."""


class PickupUploader(Uploader):
    """Keeps them in the home. Apps fetch them from the port for enrolment."""

    keeps_here: ClassVar[bool] = True

    def __init__(self, settings: Mapping[str, object]) -> None:
        super().__init__(settings)
        _only(settings, ())

    async def upload(self, device_id: str, bundle: bytes) -> None:
        """Nothing is sent anywhere: with `keeps_here`, it lies in the home with the rest of the delivery."""


class HttpUploader(Uploader):
    """Sends them to a service of the operator's. Redirects are not followed: they would take the token elsewhere."""

    def __init__(self, settings: Mapping[str, object]) -> None:
        super().__init__(settings)
        _only(settings, ("url", "method", "header", "token_file"))
        self._url = _checked_url(_text(settings, "url"))
        self._method = _text(settings, "method", "PUT")
        self._header = _text(settings, "header", "Authorization")
        token_file = _text(settings, "token_file", "")
        self._token_file = Path(token_file).expanduser() if token_file else None
        if self._method not in ("PUT", "POST"):
            raise ConfigurationError('[mediums.upload]: "method" must be PUT or POST.')
        if not _HEADER.fullmatch(self._header) or self._header.lower() in _NOT_OURS:
            raise ConfigurationError('[mediums.upload]: "header" must be the name of a header for the token.')
        if self._token_file is not None:
            self._token()
        self._threads = ThreadPoolExecutor(AT_ONCE, "upload")

    async def upload(self, device_id: str, bundle: bytes) -> None:
        """Raises UploadFailed unless the service answers with a status of 200 to 299."""
        if not _ID.fullmatch(device_id):
            raise UploadFailed("the device id does not fit into an address.")
        url = self._url.replace(PLACE, device_id)
        await asyncio.get_running_loop().run_in_executor(self._threads, self._send, url, bundle)

    def _token(self) -> str:
        """Read at every upload, so that it can be changed while the broker runs."""
        assert self._token_file is not None
        token = read_private(self._token_file, MAX_TOKEN).decode("latin-1").strip()
        if not token or not token.isprintable():
            raise ConfigurationError(f"[mediums.upload]: {self._token_file} holds no token of one line.")
        return token

    def _send(self, url: str, bundle: bytes) -> None:
        parts = urllib.parse.urlsplit(url)
        assert parts.hostname is not None
        line: http.client.HTTPConnection
        if parts.scheme == "https":
            line = http.client.HTTPSConnection(
                parts.hostname, parts.port, timeout=TIMEOUT_S, context=ssl.create_default_context()
            )
        else:
            line = http.client.HTTPConnection(parts.hostname, parts.port, timeout=TIMEOUT_S)
        path = f"{parts.path or '/'}{'?' + parts.query if parts.query else ''}"
        try:
            headers = {"Content-Type": CONTENT_TYPE}
            if self._token_file is not None:
                headers[self._header] = self._token()
            line.request(self._method, path, body=bundle, headers=headers)
            status = line.getresponse().status
        except (OSError, http.client.HTTPException, HomeError, ConfigurationError) as error:
            why = error.public if isinstance(error, BrokerError) else f"{type(error).__name__}: {error}"
            raise UploadFailed(f"{parts.hostname} was not reached: {why}") from None
        finally:
            line.close()
        if not 200 <= status < 300:
            raise UploadFailed(f"{parts.hostname} has answered with the status {status}.")


def load_uploader(settings: Mapping[str, object]) -> Uploader:
    """The one that the table names. Raises ConfigurationError for one that cannot be had."""
    rest = {name: value for name, value in settings.items() if name != "uploader"}
    name = _text(settings, "uploader")
    own: dict[str, type[Uploader]] = {"pickup": PickupUploader, "http": HttpUploader}
    if name in own:
        return own[name](rest)
    module, colon, attribute = name.partition(":")
    if not colon:
        raise ConfigurationError('[mediums.upload]: "uploader" must be pickup, http, or MODULE:CLASS.')
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(f"[mediums.upload]: {name} cannot be loaded: {error}") from error
    if not (isinstance(found, type) and issubclass(found, Uploader)):
        raise ConfigurationError(f"[mediums.upload]: {name} is not a subclass of Uploader.")
    return found(rest)


def _text(settings: Mapping[str, object], name: str, default: str | None = None) -> str:
    value = settings.get(name, default)
    if not isinstance(value, str):
        raise ConfigurationError(f'[mediums.upload]: "{name}" {"is missing" if value is None else "must be a string"}.')
    return value


def _only(settings: Mapping[str, object], known: tuple[str, ...]) -> None:
    for name in settings:
        if name not in known:
            raise ConfigurationError(f'[mediums.upload]: unknown key "{name}" for this uploader.')


def _checked_url(url: str) -> str:
    """Raises ConfigurationError unless the token and the bundle travel encrypted, or not at all beyond this machine."""
    try:
        parts = urllib.parse.urlsplit(url)
        port_ok = parts.port is None or parts.port > 0
    except ValueError:
        raise ConfigurationError('[mediums.upload]: "url" is no address.') from None
    if url.count(PLACE) != 1 or PLACE in parts.netloc or not url.isascii() or not url.isprintable() or " " in url:
        raise ConfigurationError(f'[mediums.upload]: "url" must have {PLACE} once, in its path or query.')
    if parts.username is not None or not parts.hostname or not port_ok or parts.fragment:
        raise ConfigurationError('[mediums.upload]: "url" must be https://HOST/…; a token goes into token_file.')
    if parts.scheme != "https" and not (parts.scheme == "http" and _is_here(parts.hostname)):
        raise ConfigurationError(
            '[mediums.upload]: "url" must begin with https:// (http:// is for this machine alone).'
        )
    return url


def _is_here(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
