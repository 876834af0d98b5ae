"""The app at the other end of a session, as each plugin is handed it."""

from collections.abc import AsyncGenerator, AsyncIterable, Coroutine
from typing import TYPE_CHECKING, Any

from rsocket_broker.identity import Identity
from rsocket_broker.plugin_api.app import CALL_TIMEOUT, App
from rsocket_broker.plugin_api.device import Device
from rsocket_broker.plugin_api.handlers import Model
from rsocket_broker.tracing import Tracing

if TYPE_CHECKING:
    from rsocket_broker.routing.session import Session


class SessionApp(App):
    """The session, as the plugin `plugin_id` sees it. Where the session is traced, what is asked here is a span."""

    def __init__(self, session: "Session", plugin_id: str) -> None:
        super().__init__()
        self._session = session
        self._to_app = session.to_app
        self._plugin = plugin_id

    @property
    def id(self) -> str:
        return self._session.id

    @property
    def identity(self) -> Identity:
        return self._session.identity

    @property
    def name(self) -> str:
        return self._session.claims.app or self.identity.app_id

    @property
    def os(self) -> str:
        return self._session.claims.os

    @property
    def device(self) -> str:
        return self._session.claims.device

    @property
    def kind(self) -> str:
        return self._session.node.kind.value

    @property
    def user(self) -> str:
        return self._session.node.user

    @property
    def data_mime(self) -> str:
        return self._session.connection.data_mime

    def call(
        self, method: str, params: object = None, *, timeout: float | None = CALL_TIMEOUT
    ) -> Coroutine[Any, Any, Any]:
        tracing = self._session.tracing
        if tracing is None:
            return self._to_app.call(self._plugin, method, params, timeout)
        return self._traced_call(tracing, method, params, timeout)

    async def _traced_call(self, tracing: Tracing, method: str, params: object, timeout: float | None) -> Any:
        with tracing.calling(self._plugin, method, Model.RESPONSE.value):
            return await self._to_app.call(self._plugin, method, params, timeout)

    async def send(self, method: str, params: object = None) -> None:
        tracing = self._session.tracing
        if tracing is None:
            await self._to_app.send(self._plugin, method, params)
            return
        with tracing.calling(self._plugin, method, Model.FIRE.value):
            await self._to_app.send(self._plugin, method, params)

    async def push(self, method: str) -> None:
        await self._to_app.push(self._plugin, method)

    def stream(self, method: str, params: object = None) -> AsyncGenerator[Any, None]:
        return self._traced(method, Model.STREAM, self._to_app.stream(self._plugin, method, params))

    def channel(self, method: str, values: AsyncIterable[object]) -> AsyncGenerator[Any, None]:
        return self._traced(method, Model.CHANNEL, self._to_app.channel(self._plugin, method, values))

    def _traced(self, method: str, model: Model, values: AsyncGenerator[Any, None]) -> AsyncGenerator[Any, None]:
        tracing = self._session.tracing
        return values if tracing is None else tracing.streamed(self._plugin, method, model.value, values)

    async def supports(self, method: str) -> bool:
        return await self._to_app.supports(self._plugin, method)

    async def reach(self, client: str, method: str) -> App:
        return await self._session.reach(self._plugin, client, method) if client else self

    @property
    def leaving(self) -> bool:
        return self._session.leaving

    async def wake(self) -> bool:
        return await self._session.plugins.wake(self._plugin)

    async def device_access(self) -> Device:
        return await self._session.device_access()

    def __repr__(self) -> str:
        return f"<App {self.id} {self.identity.principal} of {self._plugin}>"
