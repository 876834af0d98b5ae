"""The plugin `DeviceLogs`: what the device's own log says, filtered to an app. The app has no part in it."""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator
from contextlib import aclosing

import attrs

from rsocket_broker.plugin_api import App, ApplicationError, Canceled, Device, Invalid, LogLine, Plugin, method
from rsocket_broker.plugin_api.history import MAX_WAIT
from rsocket_broker.plugins.logs.wanted import SYSTEM, Wanted

MAX_LINES = 5000
"""Entries that `recent` gives at most: what a test's report can take."""
FIRST, QUIET = 3.0, 0.5
"""Seconds without an entry after which `recent` has read all that there is: before the first one, and behind it."""
LIMIT = 20.0
"""Seconds for `recent` on a device whose log grows faster than it is read."""


@attrs.frozen
class Settings:
    """`[plugins.DeviceLogs]`."""

    whole_device: bool = False
    """Whether the log of other apps and of the system may be asked for. Whoever may call this plugin may then."""


class DeviceLogs(Plugin):
    """Nothing is kept here: whoever asks has a reader of their own on the device, which ends with them."""

    id = "DeviceLogs"
    needs_app = False
    settings: Settings
    concurrency = 32  # each reader is a process on a device

    async def _source(
        self, app: App, level: str, tags: list[str] | None, contains: str, whole_device: bool = False
    ) -> tuple[Device, Wanted]:
        """The device, and what is wanted of its log. Raises RequestFailed; for a wrong question, before all else."""
        if whole_device and not self.settings.whole_device:
            raise ApplicationError(
                "The log of the whole device is not given out unless [plugins.DeviceLogs] has whole_device = true."
            )
        app_id = app.identity.app_id
        wanted = Wanted(app_id, (), level, tags or (), contains, whole_device=whole_device)
        device = await app.device_access()
        if not whole_device:
            own, system = await asyncio.gather(device.pids(app_id), device.pids(SYSTEM))
            wanted = Wanted(app_id, own, level, tags or (), contains, system=system)
        return device, wanted

    @method("follow")
    async def follow(
        self,
        app: App,
        level: str = "unknown",
        tags: list[str] | None = None,
        contains: str = "",
        whole_device: bool = False,
        since: float | None = None,
        client: str = "",
    ) -> AsyncIterator[dict[str, object]]:
        """The entries of the app's processes from now on, or from `since` (seconds since 1970 by the device's clock;
        0 is all that it still has). `level` is the least serious one; no `tags` are all of them."""
        device, wanted = await self._source(await app.reach(client, "follow"), level, tags, contains, whole_device)
        async with aclosing(device.log(since)) as lines:
            async for line in lines:
                if wanted(line):
                    yield line._asdict()

    @method("recent")
    async def recent(
        self,
        app: App,
        limit: int = 200,
        level: str = "unknown",
        tags: list[str] | None = None,
        contains: str = "",
        whole_device: bool = False,
        client: str = "",
    ) -> dict[str, object]:
        """The newest `limit` entries that the device still has, oldest first."""
        if not 0 < limit <= MAX_LINES:
            raise Invalid(f"limit: wanted 1 to {MAX_LINES}.")
        found: deque[LogLine] = deque(maxlen=limit)
        device, wanted = await self._source(await app.reach(client, "recent"), level, tags, contains, whole_device)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LIMIT):
                await _gather(device, wanted, found)
        return {"lines": [line._asdict() for line in found]}

    @method("wait", deadline=None)
    async def wait(
        self,
        app: App,
        contains: str,
        level: str = "unknown",
        tags: list[str] | None = None,
        timeout: float = 10.0,
        since: float | None = None,
        client: str = "",
    ) -> dict[str, object]:
        """The first entry whose message holds `contains`. Raises Canceled when there is none within `timeout` s."""
        if not 0 <= timeout <= MAX_WAIT:
            raise Invalid(f"timeout: wanted 0 to {MAX_WAIT:g} seconds.")
        device, wanted = await self._source(await app.reach(client, "wait"), level, tags, contains)
        try:
            async with asyncio.timeout(timeout), aclosing(device.log(since)) as lines:
                async for line in lines:
                    if wanted(line):
                        return line._asdict()
        except TimeoutError:
            raise Canceled(f"The log said nothing of {contains[:100]!r} within {timeout:g} s.") from None
        raise ApplicationError("The device's log has ended.")


async def _gather(device: Device, wanted: Wanted, found: deque[LogLine]) -> None:
    """Reads what there is; done when nothing came for a while."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(FIRST) as patience, aclosing(device.log(0)) as lines:
            async for line in lines:
                patience.reschedule(asyncio.get_running_loop().time() + QUIET)
                if wanted(line):
                    found.append(line)
