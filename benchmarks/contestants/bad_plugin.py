"""A plugin that does what it must not: fills memory, never ends, fails."""

import asyncio

from rsocket_broker.plugin_api import App, Plugin, Restart, method


class Bad(Plugin):
    id = "bad"
    restart = Restart(failures=15, first=0.2, most=1.0)

    def __init__(self) -> None:
        self.kept: list[bytes] = []

    @method("leak")
    def leak(self, app: App) -> int:
        self.kept.append(bytes(100_000))
        self.spawn(asyncio.sleep(3600))
        return len(self.kept)

    @method("hang", deadline=None)
    async def hang(self, app: App) -> None:
        await asyncio.get_running_loop().create_future()

    @method("crash")
    def crash(self, app: App) -> None:
        raise RuntimeError("on purpose")


plugin = Bad
