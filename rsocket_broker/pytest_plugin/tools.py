"""What a test holds in its hands: the bundled plugins of the broker, each about one app, as plain calls that wait.

Each call runs the plugin's method of the same name on the broker's loop; the pages of the plugins say what comes back.
All raise ApplicationError, Canceled and the other RequestFailed errors with words that a test's reader understands.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from rsocket_broker.plugins.crash_reporter import CrashReporter
from rsocket_broker.plugins.databases import Databases as DatabasesPlugin
from rsocket_broker.plugins.images import Images as ImagesPlugin
from rsocket_broker.plugins.layout.base import LayoutPlugin
from rsocket_broker.plugins.layout.facade import generation
from rsocket_broker.plugins.leak_canary import LeakCanary
from rsocket_broker.plugins.logs import DeviceLogs
from rsocket_broker.plugins.navigation import Navigation as NavigationPlugin
from rsocket_broker.plugins.network import Network as NetworkPlugin
from rsocket_broker.plugins.preferences import Preferences as PreferencesPlugin
from rsocket_broker.pytest_plugin.app import CALL_S, AppUnderTest

Json = dict[str, Any]


class Tool:
    """One plugin of the broker and one app. What has happened before is not the test's: `since` is where it begins."""

    plugin: ClassVar[str]

    def __init__(self, app: AppUnderTest) -> None:
        self._app = app
        self.since = self._newest()

    def _newest(self) -> int:
        """The number of the newest thing that the plugin has kept of the app; 0 for plugins that keep nothing."""
        return 0

    def _ask(self, method: str, /, *arguments: object, within: float = CALL_S, **named: object) -> Any:
        """What the plugin's method gives, which may take `within` seconds."""

        async def work(plugin: Any, app: Any) -> Any:
            return await getattr(plugin, method)(app, *arguments, **named)

        return self._app.ask(self.plugin, work, within)


class Network(Tool):
    """What the app asks of its servers."""

    plugin = NetworkPlugin.id

    def _newest(self) -> int:
        return int(self._ask("exchanges", limit=0)["newest"])

    def exchanges(self, method: str = "", url: str = "", status: str | int = "") -> list[Json]:
        """Those since the test began, in a line each: `method`, `url`, `status`, `state`, sizes and times."""
        found = self._ask("exchanges", method, url, status, after=self.since, limit=10_000)
        return list(found["exchanges"])

    def wait(self, method: str = "", url: str = "", status: str | int = "", timeout: float = CALL_S) -> Json:
        """The first exchange since the test began that fits, with headers and bodies, as an entry of a HAR.

        `url` is a part of the URL, or with a star in it a pattern of all of it; `status` is 200, 2xx, 200-299. Raises
        Canceled after `timeout` seconds; its text tells what came instead.
        """
        named = {"method": method, "url": url, "status": status, "after": self.since, "secrets": True}
        found: Json = self._ask("wait", **named, timeout=timeout, within=timeout + CALL_S)
        return found

    def har(self, *, secrets: bool = False) -> Json:
        """What came since the test began, as HAR 1.2; without secrets unless they are asked for."""
        found: Json = self._ask("har", after=self.since, secrets=secrets)
        return found

    @contextlib.contextmanager
    def mocked(
        self,
        url: str,
        body: str = "",
        *,
        method: str = "GET",
        status: int = 200,
        headers: Mapping[str, str] | None = None,
    ) -> Iterator[None]:
        """Inside of it the app itself answers requests whose URL contains `url`; only apps that can mock do."""
        self._ask("mock", url, method, body, status, dict(headers or {}))
        try:
            yield
        finally:
            self._ask("unmock", url, method)


class Databases(Tool):
    """The app's SQL databases. `database` may be left out where there is only one."""

    plugin = DatabasesPlugin.id

    def tables(self) -> dict[str, list[str]]:
        """The names of the tables, by database."""
        return {each["name"]: list(each["tables"]) for each in self._ask("databases")["databases"]}

    def query(self, sql: str, database: str = "", timeout: float = CALL_S) -> list[Json]:
        """The rows of a SELECT, PRAGMA or EXPLAIN, each by its columns. Raises Invalid for what changes something."""
        found = self._ask("query", sql, database, within=timeout)
        return [dict(zip(found["columns"], row, strict=True)) for row in found["rows"]]

    def execute(self, sql: str, database: str = "", timeout: float = CALL_S) -> Json:
        """Any statement; what it changed."""
        found: Json = self._ask("execute", sql, database, within=timeout)
        return found


class Preferences(Tool):
    """The app's preferences. `file` may be left out where there is only one."""

    plugin = PreferencesPlugin.id

    def all(self) -> dict[str, Json]:
        """Every key and value, by file."""
        found: dict[str, Json] = self._ask("get")["files"]
        return found

    def get(self, key: str, file: str = "") -> Any:
        return self._ask("get", file, key)["value"]

    def set(self, key: str, value: object, file: str = "") -> None:
        """Android keeps the type that the key has, and has no new keys."""
        self._ask("set", key, value, file)

    def delete(self, key: str, file: str = "") -> None:
        self._ask("delete", key, file)

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """At its end the preferences are what they were at its beginning."""
        before = self._ask("snapshot")
        try:
            yield
        finally:
            self._ask("restore", before["preferences"], within=3 * CALL_S)


class Navigation(Tool):
    """Which screen the app shows, by its own account."""

    plugin = NavigationPlugin.id

    def _newest(self) -> int:
        return int(self._ask("history")["newest"])

    def current(self) -> Json | None:
        """The last screen that the app told of; None for none."""
        found: Json | None = self._ask("current")["visit"]
        return found

    def history(self) -> list[Json]:
        """Those since the test began."""
        return list(self._ask("history", self.since)["visits"])

    def wait(self, uri: str = "", timeout: float = CALL_S) -> Json:
        """The first screen since the test began with that address, or of that class; of any for ""."""
        found: Json = self._ask("wait", uri, self.since, timeout, within=timeout + CALL_S)
        return found

    def open(self, uri: str, expect: str = "", timeout: float = CALL_S) -> Json:
        """Opens a deep link on the device, and waits for the screen that the app tells of then."""
        found: Json = self._ask("open", uri, expect=expect, timeout=timeout, within=timeout + CALL_S)
        return found


class Crashes(Tool):
    """What the app, or the log of its device, has reported as a crash."""

    plugin = CrashReporter.id

    def _newest(self) -> int:
        return int(self._ask("crashes")["newest"])

    def all(self) -> list[Json]:
        """Those since the test began: `name`, `reason`, `callstack`."""
        return list(self._ask("crashes", self.since)["crashes"])

    def none(self, settle: float = 0.0) -> None:
        """Raises ApplicationError that tells of the crashes since the test began, waiting `settle` seconds for one."""
        self._ask("none", self.since, settle, within=settle + CALL_S)


class Leaks(Tool):
    """Objects that the app's LeakCanary has found to be kept in memory."""

    plugin = LeakCanary.id

    def _newest(self) -> int:
        return int(self._ask("leaks", details=False)["newest"])

    def all(self) -> list[Json]:
        """Those found since the test began."""
        return list(self._ask("leaks", self.since)["leaks"])

    def none(self, allow: Sequence[str] = (), settle: float = 0.0) -> None:
        """Raises ApplicationError that names the leaks since the test began, but for titles in `allow`."""
        self._ask("gate", list(allow), self.since, settle, within=settle + CALL_S)


class Logs(Tool):
    """What the app writes into the log of its device."""

    plugin = DeviceLogs.id

    def recent(self, limit: int = 200, level: str = "unknown", contains: str = "") -> list[Json]:
        """The newest lines, oldest first."""
        return list(self._ask("recent", limit, level, None, contains)["lines"])

    def wait(self, contains: str, timeout: float = CALL_S) -> Json:
        """The first line from now on with that text."""
        found: Json = self._ask("wait", contains, timeout=timeout, within=timeout + CALL_S)
        return found


class Images(Tool):
    """The images in the app's caches."""

    plugin = ImagesPlugin.id

    def _newest(self) -> int:
        return int(self._ask("loads", fetch=False)["newest"])

    def levels(self, *, disk: bool = False) -> list[Json]:
        """The caches, and what each holds."""
        return list(self._ask("levels", disk)["levels"])

    def loads(self) -> list[Json]:
        """The images that were loaded since the test began."""
        return list(self._ask("loads", self.since)["loads"])


class Layout(Tool):
    """What the app shows, from whichever layout inspector it has."""

    def __init__(self, app: AppUnderTest) -> None:
        self.plugin = generation(app.plugins)  # type: ignore[misc]  # of this app, not of all
        super().__init__(app)

    def tree(self, *, attributes: bool = False) -> Json:
        """The views, each with its `children`."""
        found: Json = self._ask("tree", attributes)
        return found

    def find(self, **query: Any) -> list[Json]:
        """The views that match: `text`, `resource`, `kind`, `exact`, `hidden`."""
        return list(self._ask("find", **query)["views"])

    def wait(self, timeout: float = CALL_S, **query: Any) -> Json:
        """The first view that matches, as soon as it is there."""
        found: Json = self._ask("wait", timeout=timeout, within=timeout + CALL_S, **query)
        return found

    def snapshot(self, node_id: str = "") -> bytes:
        """A picture of a view, or of the whole, as PNG."""

        async def work(plugin: Any, app: Any) -> bytes:
            assert isinstance(plugin, LayoutPlugin)
            _, picture = await plugin.picture(app, node_id)
            return bytes(picture)

        return self._app.ask(self.plugin, work)
