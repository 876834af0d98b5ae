"""FlipperCore: what the SDK of every system answers, whatever the wire."""

import inspect
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

from .plugin import NO_REPLY, AppPlugin, ReceiverError

Message: TypeAlias = Mapping[str, Any]
Answer: TypeAlias = dict[str, object]
Send: TypeAlias = Callable[[Message], object]

SILENT_ON_SUCCESS = frozenset({"init", "deinit"})
"""Methods that nothing answers when they work; a request-response gets an empty object all the same."""


class FlipperCore:
    """The plugins of one app, and the state of one connection after the other. Everything in one event loop."""

    def __init__(self, plugins: Iterable[AppPlugin] = ()) -> None:
        self.plugins = {plugin.id: plugin for plugin in plugins}
        self.asked: list[Message] = []
        """Every message of the server in this session, in order."""
        self._send: Send | None = None

    @property
    def connected(self) -> bool:
        return self._send is not None

    def opened(self, send: Send) -> None:
        """There is a session; `send` writes one message to it."""
        self._send = send
        self.asked.clear()

    def closed(self) -> None:
        """It is lost: every plugin is told, and must be initialised again by the next one."""
        self._send = None
        for plugin in self.plugins.values():
            plugin.attach(None)

    def add(self, plugin: AppPlugin) -> None:
        """The app has one plugin more from now on."""
        self.plugins[plugin.id] = plugin
        self.send({"method": "refreshPlugins"})

    def remove(self, name: str) -> None:
        """The app has one plugin less."""
        self.plugins.pop(name).attach(None)
        self.send({"method": "refreshPlugins"})

    def report(self, message: str, stacktrace: str = "") -> None:
        """An error that belongs to no request."""
        self.send({"error": {"message": message, "stacktrace": stacktrace}})

    def send(self, message: Message) -> None:
        if self._send is not None:
            self._send(message)

    async def answer(self, message: Message) -> Answer | None:
        """`{"success": …}`, `{"error": …}`, or None where nothing is ever answered."""
        self.asked.append(message)
        try:
            value = self._dispatch(str(message.get("method")), message.get("params") or {})
            value = await value if inspect.isawaitable(value) else value
        except ReceiverError as error:
            return {"error": error.error}
        return None if value is NO_REPLY else {"success": value}

    def _dispatch(self, method: str, params: Message) -> object:
        if method == "getPlugins":
            return {"plugins": list(self.plugins)}
        if method == "getBackgroundPlugins":
            return {"plugins": [name for name, plugin in self.plugins.items() if plugin.background]}
        if method in SILENT_ON_SUCCESS:
            plugin = self.plugins.get(str(params.get("plugin")))
            if plugin is None:
                text = f"Plugin {params.get('plugin')} not found for method {method}"
                raise ReceiverError({"message": text, "name": "PluginNotFound"})
            plugin.attach(self._emitter(plugin.id) if method == "init" else None)
            return NO_REPLY
        if method == "execute":
            return self._active(params, method).call(str(params.get("method")), params.get("params") or {})
        if method == "isMethodSupported":
            return {"isSupported": params.get("method") in self._active(params, method).receivers()}
        raise ReceiverError({"message": f"Received unknown method: {method}"})

    def _active(self, params: Message, method: str) -> AppPlugin:
        plugin = self.plugins.get(str(params.get("api")))
        if plugin is None or not plugin.active:
            text = f"Connection {params.get('api')} not found for method {method}"
            raise ReceiverError({"message": text, "name": "ConnectionNotFound"})
        return plugin

    def _emitter(self, name: str) -> Callable[[str, object], None]:
        def emit(event: str, params: object) -> None:
            self.send({"method": "execute", "params": {"api": name, "method": event, "params": params}})

        return emit


def dump(message: Message) -> str:
    """As the SDKs write it: compact, and with every character as it is."""
    return json.dumps(message, ensure_ascii=False, separators=(",", ":"))
