"""The app's half of the Flipper JSON protocol: which message wants what, and the answer to it.

Works on parsed messages and gives back parsed answers; who carries them, and in which frames, is not its business.
The names in error answers (`PluginNotFound`, `ConnectionNotFound`) are those that servers know.
"""

import asyncio
import inspect
import logging
from collections.abc import Mapping

import attrs

from rsocket_broker.client.app_plugin import AppPlugin, Line
from rsocket_broker.errors import BrokerError
from rsocket_broker.jsontext import JsonError, dump

logger = logging.getLogger(__name__)

Message = Mapping[str, object]
Answer = dict[str, object]


class _Failed(Exception):
    """A message that is answered with an error object: its arguments are the name and the text."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(text)
        self.answer: Answer = {"error": {"name": name, "message": text}}


@attrs.define(slots=True)
class _Slot:
    """One plugin and its turn: messages for one plugin are taken in the order in which they came."""

    plugin: AppPlugin
    turn: asyncio.Lock = attrs.field(factory=asyncio.Lock)


class FlipperApp:
    """Answers a broker's messages for the plugins of one app, over one session after the other."""

    def __init__(self, plugins: Mapping[str, AppPlugin], line: Line) -> None:
        self._slots = {name: _Slot(plugin) for name, plugin in plugins.items()}
        self._line = line

    async def answer(self, message: Message) -> Answer:
        """`{"success": value}` or `{"error": {"name", "message"}}` for one message of the broker."""
        method = message.get("method")
        try:
            return {"success": await self._dispatch(method, message.get("params"))}
        except _Failed as failure:
            return failure.answer

    async def _dispatch(self, method: object, params: object) -> object:
        if method == "getPlugins":
            return {"plugins": list(self._slots)}
        if method == "getBackgroundPlugins":
            return {"plugins": [name for name, slot in self._slots.items() if slot.plugin.background]}
        values = params if isinstance(params, dict) else {}
        if method == "init":
            return await self._init(self._slot(values.get("plugin"), "init"))
        if method == "deinit":
            return await self._deinit(self._slot(values.get("plugin"), "deinit"))
        if method == "execute":
            return await self._execute(values)
        if method == "isMethodSupported":
            return await self._is_method_supported(values)
        raise _Failed("Unknown", f"Received unknown method: {method}")

    def _slot(self, name: object, method: str) -> _Slot:
        slot = self._slots.get(name) if isinstance(name, str) else None
        if slot is None:
            raise _Failed("PluginNotFound", f"Plugin {name} not found for method {method}")
        return slot

    async def _init(self, slot: _Slot) -> object:
        async with slot.turn:
            if slot.plugin.active:
                return {}
            slot.plugin.attach(self._line)
            try:
                await slot.plugin.on_init()
            except asyncio.CancelledError:  # the session was lost meanwhile
                slot.plugin.attach(None)
                raise
            except Exception as error:
                slot.plugin.attach(None)
                raise self._failed(slot.plugin, "on_init", error) from error
            return {}

    async def _deinit(self, slot: _Slot) -> object:
        async with slot.turn:
            if not slot.plugin.active:
                return {}
            slot.plugin.attach(None)
            try:
                await slot.plugin.on_deinit()
            except Exception as error:
                raise self._failed(slot.plugin, "on_deinit", error) from error
            return {}

    async def _active(self, params: Message, method: str) -> AppPlugin:
        name = params.get("api")
        slot = self._slots.get(name) if isinstance(name, str) else None
        if slot is not None:
            async with slot.turn:  # an `init` that came first has finished after this
                if slot.plugin.active:
                    return slot.plugin
        raise _Failed("ConnectionNotFound", f"Connection {name} not found for method {method}")

    async def _execute(self, params: Message) -> object:
        plugin = await self._active(params, "execute")
        name = params.get("method")
        method = plugin.methods.get(name) if isinstance(name, str) else None
        if method is None or method.streams:
            raise _Failed("Unknown", f"Receiver {name} not found.")
        try:
            value = method.call(plugin, params.get("params", {}))
            if inspect.isawaitable(value):
                value = await value
            dump(value)  # what cannot be sent is the plugin's fault, and is blamed on it here
        except Exception as error:
            raise self._failed(plugin, str(name), error) from error
        return {} if value is None else value  # no value is an empty object, as Android's SDK has it

    async def _is_method_supported(self, params: Message) -> object:
        plugin = await self._active(params, "isMethodSupported")
        method = plugin.methods.get(str(params.get("method")))
        return {"isSupported": method is not None and not method.streams}

    def _failed(self, plugin: AppPlugin, method: str, error: Exception) -> _Failed:
        """The answer for a plugin that raised. Its own words go out only when it meant them for the caller."""
        if isinstance(error, BrokerError):
            return _Failed(type(error).__name__, error.public)
        logger.error("app plugin %s: %s failed", plugin.id, method, exc_info=error)
        reason = "its answer is not JSON" if isinstance(error, JsonError) else type(error).__name__
        return _Failed(type(error).__name__, f"Receiver {method} failed with error. Error: '{reason}'.")

    async def disconnected(self) -> None:
        """The session is lost: every plugin in use is told, and must be started again by the next one."""
        for slot in self._slots.values():
            try:
                await self._deinit(slot)
            except _Failed as failure:
                logger.debug("app plugin %s: %s", slot.plugin.id, failure)
