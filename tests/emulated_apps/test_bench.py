"""An emulated app's plugin on the bench for plugin authors."""

from pathlib import Path
from typing import Any

import pytest

from emulated_apps import Databases, Network, Preferences
from emulated_apps.bench import on_bench
from rsocket_broker.plugin_api import App, ApplicationError, Canceled, Plugin, event, method
from rsocket_broker.plugin_api.testing import running


class Listener(Plugin):
    id = "Listener"

    def __init__(self) -> None:
        self.heard: list[object] = []

    @event("newRequest")
    async def asked(self, app: App, params: dict[str, object]) -> None:
        self.heard.append(params["url"])

    @method("lists")
    async def lists(self, app: App) -> object:
        return await app.call("databaseList")

    @method("one")
    async def one(self, app: App) -> object:
        return await app.call("getSharedPreferences", timeout=0.01)


async def test_events_of_before_and_of_now_are_delivered_in_order() -> None:
    network, plugin = Network(), Listener()
    network.request("GET", "before")
    async with running(plugin) as bench, on_bench(bench, network) as app:
        network.request("GET", "now")
        await app.deliver()
    assert plugin.heard == ["before", "now"]
    assert not network.active


async def test_answers_errors_and_silence(tmp_path: Path) -> None:
    databases = Databases(tmp_path)
    async with running(Listener) as bench, on_bench(bench, databases) as app:
        assert await app.client.request("lists") == []
        with pytest.raises(ApplicationError, match="Receiver getSharedPreferences not found"):
            await app.client.request("one")
    async with running(Listener) as bench, on_bench(bench, Preferences({})) as app:
        with pytest.raises(Canceled):
            await app.client.request("one")


async def test_the_example_in_the_docs_passes() -> None:
    page = (Path(__file__).parent.parent.parent / "docs" / "howto" / "try-with-an-emulated-app.md").read_text()
    names: dict[str, Any] = {}
    exec(page.partition("```python\n")[2].partition("```")[0], names)
    await names["test_an_ios_app_is_heard"]()
