"""The app that a recording stands for: speaks Flipper's JSON as that app did, from its own words. Time is passed in.

It has the plugins that the app had. What the app told a plugin comes at the same distance from the beginning, or at
once when the plugin is started later than that: apps, too, keep what nobody has asked for yet. What the app answered is
answered again to the same question, each time with the next of its answers and at last always with the last one.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from rsocket_broker.jsontext import JsonError, dump, parse_object
from rsocket_broker.recording.entries import Entry, Header

ANSWERS: Final = frozenset({"answer", "error"})
EVENT: Final = "event"

Question = tuple[str, str, bytes]
"""Plugin, method, and parameters as text in which equal values look the same."""


class RecordedApp:
    """One run of a recording. `begin` once; after that messages go in, and come out when they are due."""

    def __init__(self, header: Header, entries: Iterable[Entry], speed: float = 1.0) -> None:
        """`speed` 2 is twice as fast, 0 without any pause."""
        self._header = header
        self._speed = speed
        self._began = 0.0
        self._started: set[str] = set()
        self._events: deque[Entry] = deque()
        self._held: dict[str, deque[Entry]] = {}
        """What has been due for a plugin that was not started."""
        self._answers: dict[Question, deque[dict[str, Any]]] = {}
        self._methods: set[tuple[str, str]] = set()
        for entry in entries:
            self._take(entry)

    def _take(self, entry: Entry) -> None:
        if not entry.incoming:
            return
        if entry.kind == EVENT:
            self._events.append(entry)
        elif entry.kind in ANSWERS and isinstance(entry.content, dict):
            question = _question(entry.plugin, entry.method, entry.content.get("params"))
            self._answers.setdefault(question, deque()).append(entry.content)
            self._methods.add((entry.plugin, entry.method))

    @property
    def over(self) -> bool:
        """Everything that the app told has been told again, but for plugins that nobody started."""
        return not self._events

    def begin(self, now: float) -> None:
        self._began = now

    def due(self) -> float | None:
        """When the next message is to be taken from `messages`; None when there is none."""
        if not self._events:
            return None
        return self._began + (self._events[0].at / self._speed if self._speed else 0.0)

    def messages(self, now: float) -> Iterator[bytes]:
        """What the app says by itself up to now."""
        while (due := self.due()) is not None and due <= now:
            entry = self._events.popleft()
            if entry.plugin in self._started:
                yield _event(entry)
            else:
                self._held.setdefault(entry.plugin, deque()).append(entry)

    def receive(self, text: bytes) -> Iterator[bytes]:
        """What the app says to a message of the broker. What it would not understand it leaves unanswered."""
        try:
            message = parse_object(text)
        except JsonError:
            return
        method, params = message.get("method"), message.get("params")
        about: Mapping[str, Any] = params if isinstance(params, dict) else {}
        if method == "init":
            yield from self._start(about.get("plugin"))
        elif method == "deinit":
            self._started.discard(str(about.get("plugin")))
        elif "id" in message:
            yield dump({"id": message["id"], **self._answer(method, about)})

    def _start(self, plugin: object) -> Iterator[bytes]:
        if not isinstance(plugin, str) or plugin not in self._header.plugins:
            return
        self._started.add(plugin)
        for entry in self._held.pop(plugin, ()):
            yield _event(entry)

    def _answer(self, method: object, about: Mapping[str, Any]) -> dict[str, Any]:
        if method == "getPlugins":
            return {"success": {"plugins": list(self._header.plugins)}}
        if method == "getBackgroundPlugins":
            return {"success": {"plugins": list(self._header.background)}}
        if method == "isMethodSupported":
            return {"success": {"isSupported": (about.get("api"), about.get("method")) in self._methods}}
        if method == "execute":
            return self._recorded(str(about.get("api")), str(about.get("method")), about.get("params"))
        return _failure(f"Received unknown method: {method}")

    def _recorded(self, plugin: str, method: str, params: object) -> dict[str, Any]:
        answers = self._answers.get(_question(plugin, method, params))
        if not answers:
            return _failure(f"The recording has no answer of {plugin}.{method} to these parameters.")
        found = answers.popleft() if len(answers) > 1 else answers[0]
        return _failure(str(found["error"])) if "error" in found else {"success": found.get("success")}


def _event(entry: Entry) -> bytes:
    about = {"api": entry.plugin, "method": entry.method, "params": entry.content}
    return dump({"method": "execute", "params": about})


def _failure(text: str) -> dict[str, Any]:
    return {"error": {"message": text, "name": "Recording"}}


def _question(plugin: str, method: str, params: object) -> Question:
    return plugin, method, dump(_sorted({} if params is None else params))


def _sorted(value: object) -> object:
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return [_sorted(each) for each in value] if isinstance(value, list) else value
