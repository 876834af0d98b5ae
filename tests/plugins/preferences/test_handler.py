"""The plugin with apps of both systems."""

import asyncio
from contextlib import aclosing
from typing import Any

import pytest

from emulated_apps import Platform, Preferences
from emulated_apps.bench import on_bench
from rsocket_broker.plugin_api import ApplicationError, Canceled, Invalid
from rsocket_broker.plugin_api.testing import running
from rsocket_broker.plugins.preferences import Preferences as Plugin
from rsocket_broker.plugins.preferences import handler, plugin
from tests.routing.line import Line, until

FILES = {
    "settings": {"dark": False, "count": 5, "ratio": 0.1, "name": "n", "tags": {"a", "b"}},
    "other": {"dark": True, "only": 1},
}
STANDARD, SUITE = "Standard UserDefaults", "App Suite UserDefaults"
IOS_FILES: dict[str, dict[str, Any]] = {STANDARD: {"dark": False, "list": [1]}, SUITE: {"dark": True}}


def android() -> Preferences:
    return Preferences(FILES)


def ios() -> Preferences:
    return Preferences(IOS_FILES, Platform.IOS)


async def test_preferences_are_read_whole_by_file_and_by_key() -> None:
    async with running(plugin) as bench, on_bench(bench, android()) as app:
        get = app.client.request
        assert (await get("files"))["files"] == [{"name": "settings", "keys": 5}, {"name": "other", "keys": 2}]
        assert (await get("get"))["files"]["settings"]["tags"] == "[a, b]"
        assert (await get("get", {"file": "other"}))["values"] == {"dark": True, "only": 1}
        assert await get("get", {"key": "only"}) == {"file": "other", "key": "only", "value": 1}
        assert (await get("get", {"key": "dark", "file": "other"}))["value"] is True
        with pytest.raises(Invalid, match='"dark" is in 2 files; name one: settings, other'):
            await get("get", {"key": "dark"})
        for about in ({"key": "none"}, {"key": "only", "file": "settings"}):
            with pytest.raises(ApplicationError, match="is not in"):
                await get("get", about)
        with pytest.raises(ApplicationError, match='no file "missing"; it has settings, other'):
            await get("get", {"file": "missing"})


async def test_an_android_app_changes_what_is_there_and_keeps_its_types() -> None:
    preferences = android()
    async with running(plugin) as bench, on_bench(bench, preferences) as app:
        set_ = {"file": "settings", "key": "count", "value": 7}
        assert await app.client.request("set", set_) == {"file": "settings", "key": "count", "before": 5, "value": 7}
        assert preferences.files["settings"]["count"] == 7
        done = await app.client.request("set", {"key": "ratio", "value": 0.3})
        assert done["value"] == pytest.approx(0.3)
        for key, value, words in (
            ("count", "many", "is a whole number, and stays one"),
            ("name", 5, "is a text, and stays one"),
            ("new", 1, "make none"),
        ):
            with pytest.raises(Invalid, match=words):
                await app.client.request("set", {"file": "settings", "key": key, "value": value})
        with pytest.raises(ApplicationError, match="Android apps write no sets of texts"):
            await app.client.request("set", {"key": "tags", "value": "[c]"})
        done = await app.client.request("delete", {"key": "name"})
        assert (done["before"], "name" in preferences.files["settings"]) == ("n", False)


async def test_an_ios_app_takes_any_json_and_new_keys() -> None:
    preferences = ios()
    async with running(plugin) as bench, on_bench(bench, preferences) as app:
        done = await app.client.request("set", {"key": "new", "value": {"a": [1, None]}})
        assert (done["file"], done["before"]) == (STANDARD, None)
        assert preferences.files[STANDARD]["new"] == {"a": [1, None]}
        await app.client.request("set", {"file": SUITE, "key": "dark", "value": "now text"})
        assert preferences.files[SUITE]["dark"] == "now text"
        with pytest.raises(ApplicationError, match='no file "Suite"'):  # which the app would take for the standard one
            await app.client.request("set", {"file": "Suite", "key": "dark", "value": 1})


async def test_changes_of_both_shapes_are_kept_followed_and_waited_for() -> None:
    for preferences, file in ((android(), "settings"), (ios(), STANDARD)):
        async with running(plugin) as bench, on_bench(bench, preferences) as app:
            preferences.put(file, "dark", True)
            preferences.remove(file, "dark")
            await app.deliver()
            found = await app.client.request("changes")
            assert [(one["key"], one["deleted"], one["value"]) for one in found["changes"]] == [
                ("dark", False, True),
                ("dark", True, None),
            ]
            assert (found["newest"], found["dropped"]) == (2, 0)
            assert [one["number"] for one in (await app.client.request("changes", {"after": 1}))["changes"]] == [2]
            async with aclosing(app.client.stream("follow", {"after": 1})) as items:
                assert (await anext(items))["number"] == 2
            waiting = asyncio.ensure_future(app.client.request("wait", {"key": "dark", "after": 2}))
            await asyncio.sleep(0)
            preferences.put(file, "other", 1)
            preferences.put(file, "dark", False)
            await app.deliver()
            assert (await waiting)["value"] is False
            with pytest.raises(Canceled, match='no change of "x"'):
                await app.client.request("wait", {"key": "x", "timeout": 0.01})


async def test_a_file_that_is_emptied_is_one_change_without_a_key() -> None:
    preferences = android()
    async with running(plugin) as bench, on_bench(bench, preferences) as app:
        preferences.clear("settings")
        await app.deliver()
        (found,) = (await app.client.request("changes"))["changes"]
        assert (found["key"], found["deleted"]) == (None, True)


async def test_a_snapshot_is_put_back() -> None:
    preferences = android()
    async with running(plugin) as bench, on_bench(bench, preferences) as app:
        taken = await app.client.request("snapshot")
        assert (taken["app_id"], taken["os"]) == ("com.example.app", "Android")
        before = await app.client.request("get")
        preferences.put("settings", "dark", True)
        preferences.put("settings", "added", "x")
        preferences.put("other", "only", 2)
        done = await app.client.request("restore", {"preferences": taken["preferences"]})
        assert done == {
            "set": [{"file": "settings", "key": "dark"}, {"file": "other", "key": "only"}],
            "deleted": [{"file": "settings", "key": "added"}],
            "failed": [],
        }
        assert await app.client.request("get") == before


async def test_what_cannot_be_put_back_is_told_and_the_rest_is_done() -> None:
    preferences = android()
    async with running(plugin) as bench, on_bench(bench, preferences) as app:
        taken = (await app.client.request("snapshot"))["preferences"]
        preferences.put("settings", "count", 9)
        preferences.put("settings", "tags", {"c"})
        preferences.put("settings", "new", 1)
        preferences.remove("settings", "name")
        about = {"preferences": {**taken, "missing": {"a": 1}}, "delete": False}
        done = await app.client.request("restore", about)
        assert done["set"] == [{"file": "settings", "key": "count"}]
        assert done["deleted"] == []
        reasons = {(one["file"], one["key"]): one["reason"] for one in done["failed"]}
        assert set(reasons) == {("settings", "tags"), ("settings", "name"), ("missing", "")}
        assert "make none" in reasons["settings", "name"]
        assert preferences.files["settings"]["new"] == 1


async def test_a_snapshot_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handler, "MAX_RESTORED", 1)
    async with running(Plugin) as bench, on_bench(bench, android()) as app:
        with pytest.raises(Invalid, match="up to 1 keys"):
            await app.client.request("restore", {"preferences": {"a": {"b": 1, "c": 2}}})


async def test_an_app_that_does_not_do_what_it_says_is_found_out() -> None:
    files = {"F": {"k": 1}}
    answers = {
        "getAllSharedPreferences": lambda params: files,
        "setSharedPreference": lambda params: files["F"],
        "deleteSharedPreference": lambda params: files["F"],
    }
    async with running(Plugin) as bench:
        client = await bench.connect(answers=answers)
        with pytest.raises(ApplicationError, match="has another one all the same"):
            await client.request("set", {"key": "k", "value": 2})
        with pytest.raises(ApplicationError, match="is there still"):
            await client.request("delete", {"key": "k"})
        done = await client.request("restore", {"preferences": {"F": {}}})
        assert "is there still" in done["failed"][0]["reason"]


async def test_an_app_that_answers_nothing_is_told_apart_from_one_that_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(Plugin) as bench:
        client = await bench.connect(answers={"getAllSharedPreferences": Canceled("no answer")}, os="iOS")
        with pytest.raises(Canceled, match="no answer iOS apps answer nothing where a value is no JSON"):
            await client.request("get")


@pytest.mark.row("M-7")
async def test_malformed_changes_are_dropped_and_nothing_else_suffers(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    async with Line(Plugin) as line:
        client = await line.app(["Preferences"])
        for params in ({}, [], "x", {"preferences": []}, {"preferences": "F", "name": {}}) * 10:
            client.event("Preferences", "sharedPreferencesChange", params)
        client.event("Preferences", "sharedPreferencesChange", {"preferences": "F", "name": "k", "value": 1})
        app = (await client.session.plugins.seat_of("Preferences")).app
        await until(lambda: app.state.newest)
        assert (await Plugin().changes(app))["changes"][0]["key"] == "k"
        assert client.connection.closing is None
    dropped = [record for record in caplog.records if "was not handled" in record.message]
    assert 0 < len(dropped) <= 10


async def test_a_caller_asks_about_another_client() -> None:
    async with running(plugin) as bench, on_bench(bench, android()) as app:
        caller = await bench.connect()
        about = {"client": app.client.app.id}
        assert (await caller.request("get", {"key": "only", **about}))["value"] == 1
        assert (await caller.request("set", {"key": "only", "value": 3, **about}))["value"] == 3
        assert (await caller.request("changes", about))["changes"] == []
