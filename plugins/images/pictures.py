"""What Fresco tells of images, from JSON to values.

    listImages   {"levels": [{"cacheType", "sizeBytes", "imageIds": ["1"], "maxSizeBytes", "clearKey"}]}
    getImage     {"imageId", "uri", "width", "height", "sizeBytes", "data": "data:image/jpeg;base64,…"}
    event        {"imageIds", "attribution", "startTime", "endTime", "source", "viewport": {"width", "height"}}

The type that a data URL claims is often wrong: Android says JPEG of whatever it has encoded. The bytes say what it is.
"""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from rsocket_broker.plugin_api import ApplicationError, Invalid
from rsocket_broker.plugin_api.lenient import fields, identifier, items, number, octets, text

MAX_IDS = 20_000
"""Images of one level: a disk cache of 40 MB holds a few thousand."""
MAX_LEVELS = 100
MAX_URI = 8 * 1024
MAX_WORDS = 20
"""Words of an event's attribution."""

_SIGNATURES: Final = (
    (b"\x89PNG\r\n\x1a\n", 0, "image/png"),
    (b"\xff\xd8\xff", 0, "image/jpeg"),
    (b"GIF8", 0, "image/gif"),
    (b"WEBP", 8, "image/webp"),
    (b"ftypavif", 4, "image/avif"),
    (b"ftypavis", 4, "image/avif"),
    (b"ftyphei", 4, "image/heic"),
    (b"ftypmif1", 4, "image/heif"),
    (b"BM", 0, "image/bmp"),
)


class Level(NamedTuple):
    """One cache. `size` and `room` in bytes, `room` None where it is not told; `clear` is what `clear` takes, or ""."""

    name: str
    size: int
    room: int | None
    clear: str
    images: tuple[str, ...]


class Picture(NamedTuple):
    """One image. `kind` is what its bytes are (`image/png`, …), "application/octet-stream" when they are none known."""

    id: str
    uri: str
    width: int
    height: int
    size: int
    kind: str
    data: bytes


class Load(NamedTuple):
    """One load of an image. Times in ms of a clock of the app's own; `viewport` is None for what was fetched ahead."""

    images: tuple[str, ...]
    attribution: tuple[str, ...]
    start: float
    end: float
    source: str
    viewport: tuple[int, int] | None

    @property
    def size(self) -> int:
        """About how many bytes it takes."""
        return 250 + sum(map(len, self.images)) + sum(map(len, self.attribution))


class Leaked(NamedTuple):
    """A reference to an image that was not closed."""

    time: float
    name: str
    stack: str

    @property
    def size(self) -> int:
        """About how many bytes it takes."""
        return 150 + len(self.name) + len(self.stack)


def levels(answer: object) -> list[Level]:
    """The answer to `listImages`. Raises ApplicationError: the app, not the asker, is wrong."""
    try:
        return [
            _level(fields(one, "levels")) for one in items(fields(answer, "answer").get("levels"), "levels", MAX_LEVELS)
        ]
    except Invalid as error:
        raise _nonsense("listImages", error) from error


def _level(level: Mapping[str, Any]) -> Level:
    ids = tuple(identifier({"id": one}, "id", MAX_URI) for one in items(level.get("imageIds"), "imageIds", MAX_IDS))
    room = number(level, "maxSizeBytes")
    return Level(
        text(level, "cacheType", 200),
        int(number(level, "sizeBytes") or 0),
        None if room is None else int(room),
        text(level, "clearKey", 100),
        ids,
    )


def picture(answer: object) -> Picture:
    """The answer to `getImage`. Raises ApplicationError."""
    try:
        found = fields(answer, "answer")
        head, comma, body = text(found, "data", 64 * 1024 * 1024).partition(",")
        if not head.startswith("data:") or not comma or not head.endswith(";base64"):
            raise Invalid("data: wanted a data URL in base64.")
        data = octets(body, "data")
        width, height = int(number(found, "width") or 0), int(number(found, "height") or 0)
        size = int(number(found, "sizeBytes") or 0)
        return Picture(
            identifier(found, "imageId", MAX_URI), text(found, "uri", MAX_URI), width, height, size, kind(data), data
        )
    except Invalid as error:
        raise _nonsense("getImage", error) from error


def kind(data: bytes) -> str:
    """The MIME type of an image, by its first bytes."""
    for signature, at, name in _SIGNATURES:
        if data[at : at + len(signature)] == signature:
            return name
    return "application/octet-stream"


def load(event: Mapping[str, Any]) -> Load:
    """One image load. Raises Invalid."""
    viewport = event.get("viewport")
    shown = None if viewport is None else fields(viewport, "viewport")
    return Load(
        tuple(identifier({"id": one}, "id", MAX_URI) for one in items(event.get("imageIds"), "imageIds", 100)),
        tuple(str(one)[:200] for one in items(event.get("attribution"), "attribution", MAX_WORDS)),
        number(event, "startTime") or 0,
        number(event, "endTime") or 0,
        text(event, "source", 100),
        None if shown is None else (int(number(shown, "width") or 0), int(number(shown, "height") or 0)),
    )


def leaked(event: Mapping[str, Any], now: float) -> Leaked:
    """A `closeable_reference_leak_event`; `now` in ms since 1970. Raises Invalid."""
    return Leaked(now, text(event, "className", 500), text(event, "stacktrace", 64 * 1024))


def _nonsense(method: str, error: Invalid) -> ApplicationError:
    return ApplicationError(f"The app's answer to {method} makes no sense: {error.public}")
