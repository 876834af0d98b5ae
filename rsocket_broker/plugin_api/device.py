"""The device that an app runs on, as far as the broker can reach it: by adb, or by the tools of Xcode for a simulator.

    device = await app.device_access()
    await device.open_link("shop://cart/3", app.identity.app_id)

A plugin never opens a way to a device by itself: the broker knows which attached device a client's identity is, and
hands out that one alone.
"""

import abc
import re
from collections.abc import AsyncGenerator
from typing import Final, NamedTuple

from rsocket_broker.errors import Invalid

LEVELS: Final = ("unknown", "verbose", "debug", "info", "warn", "error", "fatal")
"""How serious a line of a device's log is, from the least on."""

MAX_LINK: Final = 8 * 1024
"""Characters of a link: Android hands it on in one transaction, and no app has longer ones."""

_LINK: Final = r"[A-Za-z][A-Za-z0-9+.-]*:[^\x00-\x20\x7f\ud800-\udfff]+"


class LogLine(NamedTuple):
    """One entry of a device's log. `time` is in seconds since 1970 by the device's own clock; `level` one of LEVELS.

    A message of several lines is as many entries on Android, all of one time, process and thread.
    """

    time: float
    pid: int
    tid: int
    level: str
    tag: str
    message: str


class Device(abc.ABC):
    """One attached device. Every method raises ApplicationError, in words for the caller, when the device cannot."""

    @property
    @abc.abstractmethod
    def serial(self) -> str:
        """What its tools call it now: an adb serial, a simulator's UDID."""

    @abc.abstractmethod
    async def open_link(self, uri: str, app_id: str) -> None:
        """Open a deep link in the app `app_id`, as if the user had tapped it. Raises Invalid for what is no link."""

    @abc.abstractmethod
    def log(self, since: float | None = None, level: str = "unknown") -> AsyncGenerator[LogLine, None]:
        """The log of the whole device, and what is added to it, until the generator is closed.

        `since` is a time by the device's clock; 0 is all that it still has, None what comes from now on. `level` is
        the least serious one that is wanted; the rest stays on the device.
        """

    @abc.abstractmethod
    async def pids(self, app_id: str) -> frozenset[int]:
        """The processes of an app that run now; empty when there is none."""

    @abc.abstractmethod
    async def screenshot(self) -> bytes:
        """What the screen shows, as PNG."""


def check_link(uri: str) -> str:
    """`uri` itself. Raises Invalid for what no device could open: without a scheme, with blanks or half a character, or
    overlong."""
    if len(uri) > MAX_LINK:
        raise Invalid(f"The link is longer than {MAX_LINK} characters.")
    if re.fullmatch(_LINK, uri) is None:
        raise Invalid("The link must have a scheme and no blanks or control characters, such as shop://cart/3.")
    return uri


def at_least(level: str) -> frozenset[str]:
    """The levels from `level` on. Raises Invalid for a name that is none."""
    if level not in LEVELS:
        raise Invalid(f"There is no level {level[:20]!r}: it must be one of {', '.join(LEVELS)}.")
    return frozenset(LEVELS[LEVELS.index(level) :])
