"""The files that `plugins new` writes: a plugin that does one thing of each kind, and a test that passes as it is."""

import re
from pathlib import Path
from string import Template

import attrs

from rsocket_broker.errors import ConfigurationError

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,62}[A-Za-z0-9]|[A-Za-z]")
"""A plugin id that also makes a good class and file name; the broker itself takes more."""

PLUGIN = Template('''\
"""The $id plugin: what an app pushes is kept for its session, and can be asked for."""

from typing import Any

from rsocket_broker.plugin_api import App, ApplicationError, Plugin, event, method

MAX_EVENTS = 1000


class $cls(Plugin):
    """One instance serves every app; what belongs to one app's session is kept in `app.state`."""

    id = "$id"

    async def on_connect(self, app: App) -> None:
        """An app has connected, and can be called from now on."""
        app.state.events = []

    @event("newEvent")
    def new_event(self, app: App, params: dict[str, Any]) -> None:
        """Pushed by the app, as JSON."""
        if len(app.state.events) == MAX_EVENTS:
            raise ApplicationError(f"Only {MAX_EVENTS} events are kept.")
        app.state.events.append(params)

    @method("events")
    def events(self, app: App, first: int = 0) -> dict[str, Any]:
        """The route $id.events. Parameters are checked against the annotations before this is called."""
        return {"events": app.state.events[first:]}

    @method("describe")
    async def describe(self, app: App) -> dict[str, Any]:
        """The route $id.describe. Calls the app's own side of this plugin."""
        return {"app": app.identity.app_id, "details": await app.call("getDetails", {})}


plugin = $cls
''')

TEST = Template('''\
"""Runs $cls with no broker. Run it with: pytest"""

import asyncio

import pytest
from $module import $cls

from rsocket_broker.plugin_api import Invalid
from rsocket_broker.plugin_api.testing import running


def test_events_are_kept_in_order() -> None:
    async def story() -> None:
        async with running($cls) as bench:
            client = await bench.connect()
            await client.event("newEvent", {"n": 1})
            await client.event("newEvent", {"n": 2})
            assert await client.request("events", {"first": 1}) == {"events": [{"n": 2}]}

    asyncio.run(story())


def test_the_app_is_asked_for_its_details() -> None:
    async def story() -> None:
        async with running($cls) as bench:
            client = await bench.connect(answers={"getDetails": {"version": 3}})
            assert (await client.request("describe"))["details"] == {"version": 3}
            assert client.received == [("getDetails", {})]

    asyncio.run(story())


def test_a_bad_parameter_never_reaches_the_handler() -> None:
    async def story() -> None:
        async with running($cls) as bench:
            client = await bench.connect()
            with pytest.raises(Invalid):
                await client.request("events", {"first": "one"})

    asyncio.run(story())
''')


@attrs.frozen(slots=True)
class Scaffold:
    """What to write for the plugin `id`: `module` is the file's name without its ending."""

    id: str
    cls: str
    module: str

    @classmethod
    def named(cls, name: str) -> "Scaffold":
        """Raises ConfigurationError for a name that makes no class."""
        if not NAME.fullmatch(name):
            raise ConfigurationError(
                f'"{name}" makes no plugin name: use letters, digits, "-" and "_", beginning with a letter.'
            )
        words = [word for word in re.split(r"[-_]+|(?<=[a-z0-9])(?=[A-Z])", name) if word]
        camel = "".join(word[0].upper() + word[1:] for word in words)
        # The ending keeps a plugin called `Json` from hiding the standard module of that name from its own test.
        return cls(name, camel, "_".join(word.lower() for word in words) + "_plugin")

    def write(self, folder: Path) -> tuple[Path, Path]:
        """The plugin and its test, new in `folder`. Raises ConfigurationError rather than overwrite a file."""
        texts = {f"{self.module}.py": PLUGIN, f"test_{self.module}.py": TEST}
        folder.mkdir(parents=True, exist_ok=True)
        paths = [folder / name for name in texts]
        for path in paths:
            if path.exists():
                raise ConfigurationError(f"{path} exists already. Choose another name, or another folder with --into.")
        for path, text in zip(paths, texts.values(), strict=True):
            path.write_text(text.substitute(id=self.id, cls=self.cls, module=self.module), encoding="utf-8")
        return paths[0], paths[1]
