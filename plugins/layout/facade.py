"""One layout API over both generations, for Python, and which of the two an app has.

layout = Layout(broker.plugin("Inspector"), app)
await layout.find(text="Buy")
"""

from collections.abc import Collection
from typing import Any, Final

from rsocket_broker.plugin_api import App, ApplicationError
from rsocket_broker.plugins.layout.base import LayoutPlugin

GENERATIONS: Final = ("ui-debugger", "Inspector")
"""Ids of the plugins that can be asked for an app's layout, the better one first."""


def generation(announced: Collection[str]) -> str:
    """Which of GENERATIONS to ask, of those that an app has. Raises ApplicationError when it has none."""
    for name in GENERATIONS:
        if name in announced:
            return name
    raise ApplicationError(f"The app has no layout inspector: neither {' nor '.join(GENERATIONS)}.")


class Layout:
    """What one app shows: the methods of `LayoutPlugin`, without saying each time which plugin and which app."""

    def __init__(self, plugin: LayoutPlugin, app: App) -> None:
        """`app` as `plugin` sees it."""
        self._plugin = plugin
        self._app = app

    async def tree(self, *, attributes: bool = False) -> dict[str, object]:
        """As `LayoutPlugin.tree`."""
        return await self._plugin.tree(self._app, attributes)

    async def find(self, **query: Any) -> list[dict[str, object]]:
        """The views that match: `text`, `resource`, `kind`, `exact`, `hidden`."""
        found: Any = await self._plugin.find(self._app, **query)
        return list(found["views"])

    async def wait(self, **query: Any) -> dict[str, object]:
        """As `LayoutPlugin.wait`."""
        return await self._plugin.wait(self._app, **query)

    async def xml(self) -> str:
        """The tree as XML."""
        return str((await self._plugin.dump(self._app, "xml"))["text"])

    async def snapshot(self, node_id: str = "") -> bytes:
        """A picture of a view, or of the whole, as PNG."""
        return (await self._plugin.picture(self._app, node_id))[1]

    async def set(self, node_id: str, path: list[str], value: object) -> None:
        """Set an attribute of a view."""
        await self._plugin.edit(self._app, node_id, path, value)
