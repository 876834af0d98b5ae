"""The plugin `Preferences`: asks apps for their preferences, changes them, and tells of changes."""

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from rsocket_broker.plugin_api import App, ApplicationError, Canceled, Invalid, Plugin, RequestFailed, event, method
from rsocket_broker.plugin_api.history import History
from rsocket_broker.plugins.preferences import values
from rsocket_broker.plugins.preferences.values import Change, File, Files

CHANGES = 1000
SIZE = 4 * 1024 * 1024
"""Changes of one app that are kept, and their bytes together."""
MAX_RESTORED = 10_000
"""Keys of one snapshot: each that differs is a question of its own to the app."""
APPLE = frozenset({"ios", "ipados", "tvos", "macos"})
"""Systems whose apps keep user defaults. All others are held to Android's rules, which are the stricter ones."""
STANDARD = "Standard UserDefaults"
"""The file that every iOS app has."""


class Preferences(Plugin):
    """The shared preferences of Android apps, and the user defaults of iOS apps.

    `app.state` has the app's changes.
    """

    id = "Preferences"

    def on_connect(self, app: App) -> None:
        app.state = History[Change](CHANGES, SIZE)

    def on_disconnect(self, app: App) -> None:
        self._changes(app).close()

    def _changes(self, app: App) -> History[Change]:
        found: History[Change] = app.state
        return found

    @event("sharedPreferencesChange")
    def changed(self, app: App, params: dict[str, Any]) -> None:
        found = values.change(params)
        self._changes(app).add(found, found.size)

    # --- reading -----------------------------------------------------------------------------------------------------

    @method("files")
    async def files(self, app: App, client: str = "") -> dict[str, Any]:
        """The files of an app, and how many keys each has."""
        found = await _all(await app.reach(client, "files"))
        return {"files": [{"name": name, "keys": len(content)} for name, content in found.items()]}

    @method("get")
    async def get(self, app: App, file: str = "", key: str = "", client: str = "") -> dict[str, Any]:
        """All `files`; or the `values` of one; or the `value` of one key, whose file need not be named where one file
        alone has it. Raises ApplicationError for what is not there."""
        app = await app.reach(client, "get")
        if not key:
            return {"file": file, "values": await _one(app, file)} if file else {"files": await _all(app)}
        name, content = await self._holding(app, file, key)
        return {"file": name, "key": key, "value": content[key]}

    @method("changes")
    async def changes(self, app: App, after: int = 0, client: str = "") -> dict[str, Any]:
        """The changes that the app has told of, oldest first, and the number of the newest, for the next `after`."""
        history = self._changes(await app.reach(client, "changes"))
        shown = [change.shown(number) for number, change in history.items(after)]
        return {"changes": shown, "dropped": history.dropped, "newest": history.newest}

    @method("follow")
    async def follow(self, app: App, after: int = -1, client: str = "") -> AsyncGenerator[dict[str, Any], None]:
        """Each change as it comes; with `after` also those kept with a higher number."""
        history = self._changes(await app.reach(client, "follow"))
        start = history.newest if after < 0 else after
        async with aclosing(history.follow(start)) as items:
            async for number, change in items:
                yield change.shown(number)

    @method("wait", deadline=None)
    async def wait(
        self, app: App, key: str = "", file: str = "", after: int = 0, timeout: float = 10.0, client: str = ""
    ) -> dict[str, Any]:
        """The first change that fits with a number above `after`, be it there or to come. Raises Canceled after
        `timeout` seconds."""
        history = self._changes(await app.reach(client, "wait"))

        def fits(change: Change) -> bool:
            return key in ("", change.key) and file in ("", change.file)

        number, found = await history.wait(fits, after, timeout, f'change of "{key or file or "any key"}"')
        return found.shown(number)

    # --- writing -----------------------------------------------------------------------------------------------------

    @method("set")
    async def set(self, app: App, key: str, value: object, file: str = "", client: str = "") -> dict[str, Any]:
        """Gives a key another value; `before` is what it had. Android apps keep the type that a key has, and make no
        new keys; iOS apps take any JSON. Raises Invalid for what the app would not or not rightly do, ApplicationError
        with its own words, and where it has another value afterwards."""
        app = await app.reach(client, "set")
        name, content = await self._to_write(app, file, key)
        if not _is_apple(app):
            values.check_android(name, content, key, value)
        after = await _write(app, name, key, value)
        return {"file": name, "key": key, "before": content.get(key), "value": after.get(key)}

    @method("delete")
    async def delete(self, app: App, key: str, file: str = "", client: str = "") -> dict[str, Any]:
        """Takes a key out; `before` is what it had."""
        app = await app.reach(client, "delete")
        name, content = await self._holding(app, file, key)
        await _erase(app, name, key)
        return {"file": name, "key": key, "before": content[key]}

    @method("snapshot")
    async def snapshot(self, app: App, client: str = "") -> dict[str, Any]:
        """All preferences, for `restore`."""
        app = await app.reach(client, "snapshot")
        about = {"app_id": app.identity.app_id, "os": app.os, "taken": round(time.time() * 1000)}
        return {**about, "preferences": await _all(app)}

    @method("restore", deadline=None)
    async def restore(
        self, app: App, preferences: dict[str, dict[str, Any]], delete: bool = True, client: str = ""
    ) -> dict[str, Any]:
        """Puts preferences back to what a snapshot has: changed keys get their values, and new ones go, unless `delete`
        is false. What the app will not do is in `failed`, with the reason; the rest is done all the same."""
        app = await app.reach(client, "restore")
        if sum(map(len, preferences.values())) > MAX_RESTORED:
            raise Invalid(f"A snapshot has up to {MAX_RESTORED} keys.")
        now = await _all(app)
        work = _Restoring(app)
        for name, wished in preferences.items():
            await work.file(name, now.get(name), wished, delete=delete)
        return {"set": work.set, "deleted": work.deleted, "failed": work.failed}

    async def _to_write(self, app: App, file: str, key: str) -> tuple[str, File]:
        """The file that is meant: the one that is named or has the key; on iOS, for a new key, the standard one."""
        if file:
            return file, await _one(app, file)
        try:
            return await self._holding(app, file, key)
        except ApplicationError:
            if not _is_apple(app):
                raise
        return STANDARD, await _one(app, STANDARD)

    async def _holding(self, app: App, file: str, key: str) -> tuple[str, File]:
        """The file that has a key. Raises ApplicationError for none, Invalid for several."""
        found = {file: await _one(app, file)} if file else await _all(app)
        having = [(name, content) for name, content in found.items() if key in content]
        if not having:
            raise ApplicationError(f'"{key[:100]}" is not in {file[:100] or "any file of the app"}.')
        if len(having) > 1:
            names = ", ".join(name for name, _ in having[:10])
            raise Invalid(f'"{key[:100]}" is in {len(having)} files; name one: {names}.')
        return having[0]


class _Restoring:
    """What has been done to put preferences back, and what could not be."""

    def __init__(self, app: App) -> None:
        self._app = app
        self.set: list[dict[str, str]] = []
        self.deleted: list[dict[str, str]] = []
        self.failed: list[dict[str, str]] = []

    async def file(self, name: str, now: File | None, wished: File, *, delete: bool) -> None:
        """Raises nothing that an app can be the cause of, but for the end of its session."""
        if now is None:
            self.failed.append({"file": name, "key": "", "reason": "The app has no such file."})
            return
        difference = values.difference(now, wished)
        for key, value in difference.set.items():
            try:
                if not _is_apple(self._app):
                    values.check_android(name, now, key, value)
                await _write(self._app, name, key, value)
            except RequestFailed as error:
                self.failed.append({"file": name, "key": key, "reason": error.public})
            else:
                self.set.append({"file": name, "key": key})
        for key in difference.delete if delete else ():
            try:
                await _erase(self._app, name, key)
            except RequestFailed as error:
                self.failed.append({"file": name, "key": key, "reason": error.public})
            else:
                self.deleted.append({"file": name, "key": key})


def _is_apple(app: App) -> bool:
    return app.os.lower() in APPLE


async def _all(app: App) -> Files:
    try:
        return values.files(await app.call("getAllSharedPreferences"))
    except Canceled as error:
        hint = " iOS apps answer nothing where a value is no JSON." if _is_apple(app) else ""
        raise Canceled(f"{error.public}{hint}") from error


async def _one(app: App, name: str) -> File:
    """One file. All are asked for: alone, an unknown one is another file on iOS, and one that iOS cannot ask for."""
    found = await _all(app)
    if name not in found:
        known = ", ".join(list(found)[:20]) or "none"
        raise ApplicationError(f'The app has no file "{name[:100]}"; it has {known}.')
    return found[name]


async def _write(app: App, name: str, key: str, value: object) -> File:
    about = {"sharedPreferencesName": name, "preferenceName": key, "preferenceValue": value}
    try:
        after = values.file(await app.call("setSharedPreference", about))
    except ApplicationError as error:
        if "Type not supported" not in error.public:
            raise
        raise ApplicationError(f"{error.public} Android apps write no sets of texts, and no new keys.") from error
    if not values.same(value, after.get(key)):
        raise ApplicationError(f'The app has taken the value for "{key[:100]}", and has another one all the same.')
    return after


async def _erase(app: App, name: str, key: str) -> None:
    about = {"sharedPreferencesName": name, "preferenceName": key}
    if key in values.file(await app.call("deleteSharedPreference", about)):
        raise ApplicationError(f'"{key[:100]}" is there still: it has a value by default, or from elsewhere.')
