"""The plugin `LeakCanary`: an app's memory leaks, new ones told apart from old ones."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

from rsocket_broker.plugin_api import App, ApplicationError, Invalid, Plugin, event, method
from rsocket_broker.plugin_api.history import History
from rsocket_broker.plugins.leak_canary.leaks import Leak, fresh, new_reports, old_reports

KEPT, KEPT_BYTES = 500, 8 * 1024 * 1024
"""Leaks of one session that are kept, and their bytes."""
MAX_SETTLE = 300.0
"""Seconds that `gate` may wait: LeakCanary looks five seconds after a screen was closed, and dumps the heap then."""


class Found:
    """What one session's app has told. `told` is its last full list, as hashes."""

    def __init__(self) -> None:
        self.told: list[int] = []
        self.history = History[Leak](KEPT, KEPT_BYTES)

    def take(self, told: Sequence[Leak]) -> None:
        """A full list."""
        for leak in fresh(self.told, told):
            self.history.add(leak, leak.size)
        self.told = [hash(leak) for leak in told]


class LeakCanary(Plugin):
    """The memory leaks that LeakCanary finds in Android apps.

    `app.state` is the app's Found.
    """

    id = "LeakCanary"

    def on_connect(self, app: App) -> None:
        app.state = Found()

    def on_disconnect(self, app: App) -> None:
        _found(app).history.close()

    @event("reportLeak")
    def report_leak(self, app: App, params: dict[str, Any]) -> None:
        _found(app).take(old_reports(params))

    @event("reportLeak2")
    def report_leak_2(self, app: App, params: dict[str, Any]) -> None:
        _found(app).take(new_reports(params))

    @method("list")
    async def leaks(self, app: App, after: int = 0, details: bool = True, client: str = "") -> dict[str, object]:
        """Leaks with a number above `after`, oldest first; `newest` is the number to go on from. `details` False
        leaves the full texts out."""
        history = _found(await app.reach(client, "list")).history
        return {
            "leaks": [shown(number, leak, details=details) for number, leak in history.items(after)],
            "newest": history.newest,
            "dropped": history.dropped,
        }

    @method("follow")
    async def follow(self, app: App, after: int = 0, client: str = "") -> AsyncIterator[dict[str, object]]:
        """Leaks with a number above `after`, and each one as it comes."""
        async for number, leak in _found(await app.reach(client, "follow")).history.follow(after):
            yield shown(number, leak)

    @method("gate", deadline=None)
    async def gate(
        self, app: App, allow: list[str] | None = None, after: int = 0, settle: float = 0.0, client: str = ""
    ) -> dict[str, object]:
        """Raises ApplicationError, naming them, when there are leaks with a number above `after` whose title holds
        none of the texts in `allow`. `settle` seconds are waited before looking."""
        if not 0 <= settle <= MAX_SETTLE:
            raise Invalid(f"settle: wanted 0 to {MAX_SETTLE:g} seconds.")
        history = _found(await app.reach(client, "gate")).history
        await asyncio.sleep(settle)
        found = history.items(after)
        wrong = [leak for _, leak in found if not any(one and one in leak.title for one in allow or ())]
        if wrong:
            titles = list(dict.fromkeys(leak.title for leak in wrong))
            more = f" and {len(titles) - 10} more" if len(titles) > 10 else ""
            raise ApplicationError(f"{len(wrong)} new in the app's memory: {'; '.join(titles[:10])}{more}")
        return {"allowed": len(found), "newest": history.newest}

    @method("clear")
    async def clear(self, app: App, client: str = "") -> dict[str, object]:
        """Empty the app's list, and ours. The app never answers this, and does not report a leak of the same kind
        again as long as its process lives."""
        target = await app.reach(client, "clear")
        await target.send("clear")
        found = _found(target)
        found.history.clear()
        found.told.clear()
        return {"newest": found.history.newest}


def _found(app: App) -> Found:
    found: Found = app.state
    return found


def shown(number: int, leak: Leak, *, details: bool = True) -> dict[str, object]:
    """A leak as JSON."""
    about = {"number": number, **leak._asdict(), "path": [element._asdict() for element in leak.path]}
    if not details:
        del about["details"]
    return about
