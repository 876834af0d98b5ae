"""The app's half of the plugins that report what happens in an app: CrashReporter, Navigation, LeakCanary."""

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

from .plugin import NO_REPLY, AppPlugin, NoReply, Params, Platform, Receiver


class CrashReporter(AppPlugin):
    """Android only. Nothing is caught by itself: the app's own code reports, and a late event may be lost."""

    id: ClassVar[str] = "CrashReporter"
    background: ClassVar[bool] = True

    def report(self, exception: str, reason: str | None = None, frames: Sequence[str] = ()) -> bool:
        """`exception` is a Java class; `frames` such as `org.example.Cart.total(Cart.java:42)`, the innermost first."""
        name = exception if reason is None else f"{exception}: {reason}"
        callstack = "\n\tat ".join(frames)
        return self.emit("crash-report", self.fields(callstack=callstack, name=name, reason=reason))


class Navigation(AppPlugin):
    """What the app shows. Only events after `init` are sent."""

    id: ClassVar[str] = "Navigation"
    background: ClassVar[bool] = True

    def __init__(self, platform: Platform = Platform.ANDROID, *, clock: Callable[[], float] = time.time) -> None:
        super().__init__(platform)
        self._clock = clock

    def receivers(self) -> Mapping[str, Receiver]:
        return {"greet": lambda params: {"greeting": "Hello"}} if self.platform is Platform.ANDROID else {}

    def on_connect(self) -> None:
        if self.platform is Platform.ANDROID:
            self.emit("nav_plugin_active", {})

    def go(self, uri: str | None, activity: str | None = None) -> bool:
        """The app shows a screen."""
        moment = time.strftime("%a %b %d %H:%M:%S UTC %Y", time.gmtime(self._clock()))
        return self.emit("nav_event", self.fields(uri=uri, **{"class": activity}, date=moment))


class LeakCanary(AppPlugin):
    """Android only. `version` 1 reports text, 2 a path of elements; each event has the full list so far."""

    id: ClassVar[str] = "LeakCanary"

    def __init__(self, platform: Platform = Platform.ANDROID, *, version: int = 2) -> None:
        super().__init__(platform)
        self.version = version
        self.leaks: list[object] = []
        self._seen: set[tuple[str, ...]] = set()
        self._numbers = itertools.count(1)

    def receivers(self) -> Mapping[str, Receiver]:
        return {"clear": self._clear}

    def on_connect(self) -> None:
        self._tell()

    def _clear(self, params: Params) -> NoReply:
        """Never answered. What was seen once is not reported again in this process."""
        self.leaks = []
        return NO_REPLY

    def found(self, title: str, *path: str, retained: str = "unknown size") -> None:
        """A leak is found: `path` leads from the root to the class that is leaked."""
        if (title, *path) in self._seen:
            return
        self._seen.add((title, *path))
        self.leaks.append(self._report(title, path, retained) if self.version == 2 else text_of(title, path))
        self._tell()

    def _tell(self) -> None:
        self.emit("reportLeak2" if self.version == 2 else "reportLeak", {"leaks": list(self.leaks)})

    def _report(self, title: str, path: Sequence[str], retained: str) -> dict[str, object]:
        names = [f"E{next(self._numbers)}" for _ in path]
        elements = {
            name: {
                "id": name,
                "name": f"{kind} (instance)",
                "expanded": True,
                "children": names[place + 1 : place + 2],
                "attributes": [{"name": "leaking", "value": "Y" if place == len(path) - 1 else "N"}],
                "data": {},
                "decoration": "",
                "extraInfo": {},
            }
            for place, (name, kind) in enumerate(zip(names, path, strict=True))
        }
        root = names[0] if names else ""
        return {
            "title": title,
            "root": root,
            "elements": elements,
            "retainedSize": retained,
            "details": text_of(title, path),
        }


def text_of(title: str, path: Sequence[str]) -> str:
    return "\n".join([f"* {title} has leaked:", *(f"* references {kind}" for kind in path)])
