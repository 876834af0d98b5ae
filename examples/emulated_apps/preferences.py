"""The app's half of `Preferences`: Android's shared preferences, or iOS's user defaults."""

import struct
import time
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeAlias

from .plugin import NO_REPLY, AppPlugin, Params, Platform, Receiver, failed

STANDARD = "Standard UserDefaults"
SUITE = "App Suite UserDefaults"

Values: TypeAlias = dict[str, Any]


class Preferences(AppPlugin):
    """`files`: by file name, on iOS by STANDARD and, with a suite, SUITE; more cannot be added later.

    On Android a value is bool, int, float, str or a set of str, and keeps its type; on iOS it is any JSON value.
    """

    id: ClassVar[str] = "Preferences"

    def __init__(
        self,
        files: Mapping[str, Mapping[str, Any]],
        platform: Platform = Platform.ANDROID,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(platform)
        self.files: dict[str, Values] = {name: dict(values) for name, values in files.items()}
        self._clock = clock

    def receivers(self) -> Mapping[str, Receiver]:
        common: dict[str, Receiver] = {
            "getAllSharedPreferences": lambda params: {name: self._shown(name) for name in self.files},
            "setSharedPreference": self._set,
            "deleteSharedPreference": self._delete,
        }
        return common | ({"getSharedPreferences": self._get} if self.platform is Platform.ANDROID else {})

    # What the app itself does.

    def put(self, file: str, key: str, value: Any) -> None:
        """The app writes a value; an unchanged one is no change."""
        before = self.files[file].get(key)
        if type(before) is type(value) and before == value:
            return
        self.files[file][key] = value
        self._changed(file, key, deleted=False)

    def remove(self, file: str, key: str) -> None:
        """The app deletes a key."""
        if key in self.files[file]:
            del self.files[file][key]
            self._changed(file, key, deleted=True)

    def clear(self, file: str) -> None:
        """The app empties a file: Android tells that with no key in the event."""
        self.files[file].clear()
        self._changed(file, None, deleted=True)

    # What a server asks.

    def _get(self, params: Params) -> object:
        name = params.get("name")
        return NO_REPLY if name is None else self._shown(self._known(str(name), "getSharedPreferences"))

    def _set(self, params: Params) -> object:
        file = self._known(params["sharedPreferencesName"], "setSharedPreference")
        key, value = params["preferenceName"], params.get("preferenceValue")
        if self.platform is Platform.ANDROID:
            value = as_before(self.files[file].get(key), value)
        self.put(file, key, value)
        return self._shown(file)

    def _delete(self, params: Params) -> object:
        file = self._known(params["sharedPreferencesName"], "deleteSharedPreference")
        self.remove(file, params["preferenceName"])
        return self._shown(file)

    def _known(self, file: str, method: str) -> str:
        """iOS takes every unknown name for the standard defaults."""
        if file in self.files:
            return file
        if self.platform is Platform.IOS:
            return STANDARD
        raise failed(method, f"Unknown sharedpreferences file: {file}")

    def _shown(self, file: str) -> dict[str, object]:
        return {key: self._written(value) for key, value in self.files[file].items() if value is not None}

    def _written(self, value: Any) -> object:
        """A set becomes text, and a float shows that it has 32 bits."""
        if self.platform is Platform.IOS:
            return value
        if isinstance(value, set | frozenset):
            return f"[{', '.join(sorted(value))}]"
        return struct.unpack("f", struct.pack("f", value))[0] if isinstance(value, float) else value

    def _changed(self, file: str, key: str | None, *, deleted: bool) -> None:
        now = self._clock()
        values: dict[str, object]
        if self.platform is Platform.IOS:
            values = {"preferences": file, "name": key, "time": f"{now * 1000:.6f}"}
            values |= {"deleted": "YES"} if deleted else {"value": self.files[file][str(key)]}
        else:
            value = None if deleted else self._written(self.files[file][str(key)])
            moment = round(now * 1000)
            values = self.fields(preferences=file, name=key, deleted=deleted, time=moment, value=value)
        self.emit("sharedPreferencesChange", values)


def as_before(old: object, value: Any) -> Any:
    """`value` as the type that the key has already. The reader is lenient: what cannot be read is 0, false or ""."""
    if isinstance(old, bool):
        return value in (True, "true")
    if isinstance(old, int | float):
        try:
            return type(old)(value)
        except (TypeError, ValueError):
            return type(old)(0)
    if isinstance(old, str):
        return "" if value is None else str(value)
    kind = "null" if old is None else "java.util.HashSet"
    raise failed("setSharedPreference", f"Type not supported: {kind}")
