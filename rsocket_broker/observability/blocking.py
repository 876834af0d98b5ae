"""Who holds up the event loop: a handler that computes or waits without `await`, named while it does.

Nothing can take the loop away from it: Python runs such code to its end. But a thread beside the loop sees that it does
not answer, looks where it stands, and says so in the log: the plugin, the file and the line, and afterwards for how
long. What the thread costs is one wake-up in a quarter of a second.
"""

import asyncio
import logging
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Final, NamedTuple

from rsocket_broker.quiet_log import QuietLog

logger = logging.getLogger(__name__)

LOOKS: Final = 0.25
"""Seconds between two looks; what holds up the loop for longer than this, everybody has felt."""
CLEARLY: Final = 2 * LOOKS
"""Seconds without an answer after which somebody is to blame, and not a busy machine."""


class Place(NamedTuple):
    """A line of code, with the plugin that it belongs to; "" for none."""

    plugin: str
    file: str
    line: int
    function: str

    def __str__(self) -> str:
        return f"{self.function} at {self.file}:{self.line}"


def culprit(stack: Sequence[tuple[str, int, str]], origins: Mapping[str, str]) -> Place | None:
    """The innermost line of a plugin, or of whoever it is where no plugin is in the stack.

    `stack` is file, line and function from the outermost call to the innermost, `origins` the plugin of each file or
    folder. None for a stack that says nothing.
    """
    for file, line, function in reversed(stack):
        for origin, plugin in origins.items():
            if file == origin or file.startswith(f"{origin}/"):
                return Place(plugin, file, line, function)
    if not stack:
        return None
    file, line, function = stack[-1]
    return Place("", file, line, function)


def origins_of(plugins: Mapping[str, str]) -> dict[str, str]:
    """From plugin and file to what `culprit` wants: a package's `__init__.py` stands for its folder, and so does any
    file in it."""
    found = {}
    for plugin, origin in plugins.items():
        path = Path(origin)
        inside = (path.parent / "__init__.py").is_file()
        found[str(path.parent if inside else path)] = plugin
    return found


class BlockingWatch:
    """One per broker. `blamed` is called on the loop with the plugin ("" for none) once it goes on."""

    def __init__(self, plugins: Mapping[str, str], blamed: Callable[[str], object], clearly: float = CLEARLY) -> None:
        """`plugins`: the file of each."""
        self._plugins = plugins
        self._origins: dict[str, str] | None = None
        self._blamed = blamed
        self._clearly = clearly
        self._log = QuietLog(logger)
        self._over = threading.Event()
        self._heard = time.monotonic()
        self._asked = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_thread = 0

    def start(self) -> None:
        """On the loop that is to be watched."""
        self._loop, self._loop_thread = asyncio.get_running_loop(), threading.get_ident()
        threading.Thread(target=self._watch, name="blocking watch", daemon=True).start()

    def stop(self) -> None:
        self._over.set()

    def _answer(self) -> None:
        self._heard, self._asked = time.monotonic(), False

    def _watch(self) -> None:
        while not self._over.wait(self._clearly / 2):
            if not self._ask():
                return
            if time.monotonic() - self._heard > self._clearly and self._asked:
                self._blame()

    def _ask(self) -> bool:
        """False once the loop is closed."""
        if self._asked:
            return True
        self._asked, self._heard = True, time.monotonic()
        try:
            assert self._loop is not None
            self._loop.call_soon_threadsafe(self._answer)
        except RuntimeError:
            return False
        return True

    def _blame(self) -> None:
        """The loop does not answer: looks where it is, waits until it goes on, and says who it was."""
        place, since = self._place(), self._heard
        if place is not None:
            self._log.write(logging.WARNING, str(place), "%s", self._words(place))
        while self._asked and not self._over.wait(self._clearly / 2):
            place = place or self._place()
        lasted = time.monotonic() - since
        if place is None or self._over.is_set():
            return
        self._log.write(logging.WARNING, f"{place} ended", "it went on after %.1f s: %s", lasted, place)
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._blamed, place.plugin)

    def _words(self, place: Place) -> str:
        who = f'the plugin "{place.plugin}" holds up everybody' if place.plugin else "everybody is held up"
        return f"{who}: {place} does not come back; use await, or asyncio.to_thread for what computes or blocks"

    def _place(self) -> Place | None:
        if self._origins is None:
            self._origins = origins_of(self._plugins)
        frame: FrameType | None = sys._current_frames().get(self._loop_thread)
        stack = []
        while frame is not None:
            stack.append((frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name))
            frame = frame.f_back
        return culprit(stack[::-1], self._origins)
