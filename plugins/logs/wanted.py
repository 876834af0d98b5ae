"""Which entries of a device's log are wanted: those of one app's processes, of a level, of some tags."""

import re
from collections.abc import Collection
from typing import Final

from rsocket_broker.plugin_api import Invalid, LogLine
from rsocket_broker.plugin_api.device import at_least

MAX_TAGS = 50

_STARTED: Final = r"Start proc (\d{1,9}):([\w.]{1,255})(?::[\w.]{1,255})?/"
"""What Android's ActivityManager says of each process that it starts."""
SYSTEM: Final = "system_server"
"""The process that ActivityManager is in: anybody may log under its tag, and make others' processes its own."""


class Wanted:
    """A filter that learns: an app that is started anew has other processes, and the log says so itself."""

    def __init__(
        self,
        app_id: str,
        pids: Collection[int],
        level: str = "unknown",
        tags: Collection[str] = (),
        contains: str = "",
        *,
        system: Collection[int] = (),
        whole_device: bool = False,
    ) -> None:
        """`system`: the processes that are believed when they say which ones they start. `whole_device`: of all
        processes. No `tags` are all tags. Raises Invalid for a level that is none."""
        if len(tags) > MAX_TAGS:
            raise Invalid(f"tags: {len(tags)} are more than {MAX_TAGS}.")
        self._app_id = app_id
        self._pids = set(pids)
        self._levels = at_least(level)
        self._tags = frozenset(tags)
        self._contains = contains
        self._system = frozenset(system)
        self._whole = whole_device

    def __call__(self, line: LogLine) -> bool:
        """Whether `line` is wanted; to be asked for each one in its order."""
        told = line.tag == "ActivityManager" and line.pid in self._system
        started = re.match(_STARTED, line.message) if told else None
        if started is not None and started[2] == self._app_id:
            self._pids.add(int(started[1]))
        return (
            (self._whole or line.pid in self._pids)
            and line.level in self._levels
            and (not self._tags or line.tag in self._tags)
            and self._contains in line.message
        )
