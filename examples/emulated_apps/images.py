"""The app's half of `Fresco`: an image cache."""

import base64
from collections import deque
from collections.abc import Mapping
from typing import ClassVar, NamedTuple

from .plugin import NO_REPLY, AppPlugin, NoReply, Params, Platform, Receiver, ReceiverError

BUFFERED = 500
"""Image events kept until a server comes; then the oldest are lost."""

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
"""One pixel."""


class Image(NamedTuple):
    """One image in memory."""

    uri: str
    width: int
    height: int
    data: bytes = PNG


class Fresco(AppPlugin):
    """`ready` is false until the app has initialised its image library: no call is answered before that."""

    id: ClassVar[str] = "Fresco"
    background: ClassVar[bool] = True

    def __init__(self, platform: Platform = Platform.ANDROID, *, ready: bool = True, capacity: int = 4_000_000) -> None:
        super().__init__(platform)
        self.ready, self.capacity = ready, capacity
        self.images: dict[str, Image] = {}
        self.overlay = False
        self._events: deque[dict[str, object]] = deque(maxlen=BUFFERED)
        self._waiting: deque[tuple[str, object]] = deque(maxlen=BUFFERED)
        self._shown = 0

    def receivers(self) -> Mapping[str, Receiver]:
        calls: dict[str, Receiver] = {
            "listImages": self._list,
            "getImage": self._image,
            "getAllImageEventsInfo": self._drain,
            "clear": self._clear,
            "trimMemory": lambda params: NO_REPLY,
            "enableDebugOverlay": self._debug_overlay,
        }
        return calls if self.ready else dict.fromkeys(calls, lambda params: NO_REPLY)

    def on_connect(self) -> None:
        while self._waiting:
            self.emit(*self._waiting.popleft())

    def load(self, image: Image, *, source: str = "network", view: tuple[int, int] | None = None, at: int = 0) -> str:
        """The app loads an image, for a view of this size or ahead of time; its id. `at`: ms of no origin."""
        self._shown += 1
        identifier = str(self._shown)
        self.images[identifier] = image
        viewport = None if view is None else {"width": view[0], "height": view[1]}
        event = self.fields(
            imageIds=[identifier], attribution=["Feed"], startTime=at, endTime=at + 20, source=source, viewport=viewport
        )
        self._events.append(event)
        self._report("events", event)
        return identifier

    def leak(self, class_name: str, stacktrace: str, code: int = 1) -> None:
        """An image was never closed."""
        event = {"identityHashCode": code, "className": class_name, "stacktrace": stacktrace}
        self._report("closeable_reference_leak_event", event)

    def _report(self, event: str, params: object) -> None:
        if not self.emit(event, params):
            self._waiting.append((event, params))

    def _list(self, params: Params) -> object:
        size = sum(size_of(image) for image in self.images.values())
        memory = {
            "cacheType": "Bitmap memory cache",
            "sizeBytes": size,
            "imageIds": list(self.images),
            "maxSizeBytes": self.capacity,
            "clearKey": "memory",
        }
        levels = [{"cacheType": "On screen bitmaps", "sizeBytes": 0, "imageIds": []}, memory]
        if params.get("showDiskImages"):
            levels.append({"cacheType": "Disk images", "sizeBytes": 0, "imageIds": [], "clearKey": "disk"})
        return {"levels": levels}

    def _image(self, params: Params) -> object:
        identifier = str(params.get("imageId"))
        image = self.images.get(identifier)
        if image is None:
            raise ReceiverError({"reason": f"ImageId {identifier} was evicted from cache"})
        return {
            "imageId": identifier,
            "uri": image.uri,
            "width": image.width,
            "height": image.height,
            "sizeBytes": size_of(image),
            "data": f"data:image/png;base64,{self.base64(image.data)}",
        }

    def _drain(self, params: Params) -> object:
        events = list(self._events)
        self._events.clear()
        return {"events": events}

    def _clear(self, params: Params) -> NoReply:
        if params.get("type") == "memory":
            self.images.clear()
        return NO_REPLY

    def _debug_overlay(self, params: Params) -> NoReply:
        self.overlay = bool(params.get("enabled"))
        self._report("debug_overlay_event", {"enabled": self.overlay})
        return NO_REPLY


def size_of(image: Image) -> int:
    """Bytes of a bitmap in memory: four for each pixel."""
    return image.width * image.height * 4
