"""The shapes of Preferences, on both systems."""

from typing import Any

import pytest

from emulated_apps import NO_REPLY, Platform, Preferences, ReceiverError
from emulated_apps.preferences import STANDARD, SUITE
from tests.emulated_apps.heard import listen

FILE = "org.example.app_preferences"


def android(**values: Any) -> Preferences:
    return Preferences({FILE: values}, clock=lambda: 1718000000.0)


def change(preferences: Preferences, key: str, value: object, file: str = FILE) -> object:
    params = {"sharedPreferencesName": file, "preferenceName": key, "preferenceValue": value}
    return preferences.call("setSharedPreference", params)


def test_android_shows_its_types() -> None:
    preferences = android(on=True, n=3, ratio=0.1, name="x", tags={"b", "a"})
    shown = {"on": True, "n": 3, "ratio": 0.10000000149011612, "name": "x", "tags": "[a, b]"}
    assert preferences.call("getAllSharedPreferences", {}) == {FILE: shown}
    assert preferences.call("getSharedPreferences", {"name": FILE}) == shown
    assert preferences.call("getSharedPreferences", {}) is NO_REPLY


@pytest.mark.parametrize(
    ("before", "given", "after"),
    [(True, "false", False), (3, "4", 4), (3, "x", 0), (1.5, 2, 2.0), ("a", 7, "7")],
)
def test_android_keeps_the_type(before: object, given: object, after: object) -> None:
    preferences = android(key=before)
    events = listen(preferences)
    answer = change(preferences, "key", given)
    assert answer == {"key": after}
    event = {"preferences": FILE, "name": "key", "deleted": False, "time": 1718000000000, "value": after}
    assert events == [("sharedPreferencesChange", event)]
    change(preferences, "key", given)
    assert len(events) == 1


def test_android_refuses_new_keys_sets_and_unknown_files() -> None:
    preferences = android(tags={"a"})
    for key, file in (("new", FILE), ("tags", FILE), ("new", "other")):
        with pytest.raises(ReceiverError, match="Receiver setSharedPreference failed with error"):
            change(preferences, key, "x", file)


def test_what_android_takes_out_is_told_as_deleted() -> None:
    preferences = android(a=1, b=2, c=3)
    events = listen(preferences)
    params = {"sharedPreferencesName": FILE, "preferenceName": "a"}
    assert preferences.call("deleteSharedPreference", params) == {"b": 2, "c": 3}
    preferences.remove(FILE, "a")
    preferences.remove(FILE, "b")
    preferences.clear(FILE)
    told = [params for _, params in events]
    assert [one.get("name") for one in told] == ["a", "b", None]
    assert all(one["deleted"] is True and "value" not in one for one in told)


def test_ios_takes_any_json_and_tells_in_its_own_way() -> None:
    preferences = Preferences({STANDARD: {"a": 1}, SUITE: {}}, Platform.IOS, clock=lambda: 1718000000.5)
    events = listen(preferences)
    assert "getSharedPreferences" not in preferences.receivers()
    assert change(preferences, "new", {"any": [None]}, SUITE) == {"new": {"any": [None]}}
    assert change(preferences, "b", 2, "no such file") == {"a": 1, "b": 2}
    preferences.remove(STANDARD, "b")
    assert events[0][1]["time"] == "1718000000500.000000"
    assert events[2][1]["deleted"] == "YES"
    assert "value" not in events[2][1]
