"""A plugin for the tests: sources that never end, as fast as they are asked."""

from collections.abc import AsyncGenerator, Iterator

from rsocket_broker.plugin_api import App, Plugin, method


class Flow(Plugin):
    id = "Flow"

    def __init__(self) -> None:
        self.made = 0

    @method("numbers")
    def numbers(self, app: App) -> Iterator[dict[str, object]]:
        """About 1 KiB each."""
        while True:
            self.made += 1
            yield {"n": self.made, "fill": "x" * 1000}

    @method("made")
    def told(self, app: App) -> int:
        """How many `numbers` has made."""
        return self.made

    @method("through")
    async def through(self, app: App) -> AsyncGenerator[object, None]:
        """What the caller's own side of this plugin streams, and back to it."""
        async for value in app.stream("numbers"):
            yield value


plugin = Flow()
