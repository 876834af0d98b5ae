"""Runs a plugin with no broker, for the tests of plugin authors.

    async def test_sum() -> None:
        async with running(Counter) as bench:
            client = await bench.connect(answers={"getAll": {"items": []}})
            assert await client.request("add", {"a": 1, "b": 2}) == {"sum": 3}
            await client.event("clicked", {"x": 4})
            assert client.received == [("getAll", {})]

Parameters are checked, deadlines run and answers are written as JSON just as in a broker. Unlike there, whatever a
handler raises comes out as it is, with its traceback, where a client would read "internal error".
"""

import asyncio
import inspect
import itertools
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Mapping,
)
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from rsocket_broker.errors import ApplicationError, Canceled, Rejected
from rsocket_broker.identity import Identity, Principal, Proof
from rsocket_broker.jsontext import parse
from rsocket_broker.payload import Payload
from rsocket_broker.plugin_api.app import CALL_TIMEOUT, App
from rsocket_broker.plugin_api.configuration import apply_settings
from rsocket_broker.plugin_api.device import Device
from rsocket_broker.plugin_api.handlers import Handler, Model, Routes, encode_json
from rsocket_broker.plugin_api.inspection import read_plugin
from rsocket_broker.plugin_api.plugin import Plugin, supervise

Answers = Mapping[str, object]
"""What the app's side answers, by method: a JSON value, an exception to raise, or a function of the parameters (plain
or a coroutine) that gives either. For `App.stream` and `App.channel`: an iterable of values."""

NO_END = datetime(9999, 12, 31, tzinfo=UTC)


def fake_identity(
    app_id: str = "com.example.app", device_id: str = "device-1", proof: Proof = Proof.FILESYSTEM
) -> Identity:
    """An identity as a certificate would give it."""
    return Identity(Principal(app_id, device_id, proof), "client", 1, "00" * 32, 1, NO_END)


class FakeApp(App):
    """The `App` that the plugin under test is handed. Answers from a table, and remembers what was asked."""

    def __init__(self, number: int, identity: Identity, answers: Answers, labels: Mapping[str, str]) -> None:
        super().__init__()
        self.answers: dict[str, object] = dict(answers)
        self.received: list[tuple[str, object]] = []
        """What the plugin called or sent, in order: (method, parameters as JSON)."""
        self._number = number
        self._identity = identity
        self._labels = labels
        self.others: dict[str, FakeApp] = {}
        """Whom `reach` finds, by the names that it may be given."""
        self.hardware: Device | None = None
        """What `device_access` gives; without one it says that there is none."""
        self.awake = False
        """Whether `wake` has started the app's side; a test may put it to sleep again."""
        self.going = False
        """What `leaving` says."""

    @property
    def id(self) -> str:
        return f"test{self._number}"

    @property
    def identity(self) -> Identity:
        return self._identity

    @property
    def name(self) -> str:
        return self._labels.get("name") or self._identity.app_id

    @property
    def os(self) -> str:
        return self._labels.get("os", "")

    @property
    def device(self) -> str:
        return self._labels.get("device", "")

    @property
    def data_mime(self) -> str:
        return self._labels.get("data_mime", "application/json")

    async def call(self, method: str, params: object = None, *, timeout: float | None = CALL_TIMEOUT) -> Any:
        self._note(method, params)
        try:
            async with asyncio.timeout(timeout):
                return await self._answer(method, params)
        except TimeoutError:
            raise Canceled(f"The app did not answer {method} within {timeout:g} s.") from None

    async def send(self, method: str, params: object = None) -> None:
        self._note(method, params)

    async def push(self, method: str) -> None:
        self._note(method, None)

    async def stream(self, method: str, params: object = None) -> AsyncGenerator[Any, None]:
        self._note(method, params)
        for value in await self._answer(method, params):
            yield _as_json(value)

    async def channel(self, method: str, values: AsyncIterable[object]) -> AsyncGenerator[Any, None]:
        async for value in values:
            self._note(method, value)
        for value in await self._answer(method, None):
            yield _as_json(value)

    async def supports(self, method: str) -> bool:
        return method in self.answers

    async def reach(self, client: str, method: str) -> App:
        if client and client not in self.others:
            raise Rejected(f'No client "{client}" is connected that this client may reach.')
        return self.others[client] if client else self

    @property
    def leaving(self) -> bool:
        return self.going

    async def wake(self) -> bool:
        started = not self.awake
        self.awake = True
        if started and "init" in self.answers:
            await self._answer("init", {})
        return started

    async def device_access(self) -> Device:
        return await super().device_access() if self.hardware is None else self.hardware

    def _note(self, method: str, params: object) -> None:
        self.received.append((method, _as_json({} if params is None else params)))

    async def _answer(self, method: str, params: object) -> Any:
        if method not in self.answers:
            raise ApplicationError(f"Receiver {method} not found.")
        answer = self.answers[method]
        if callable(answer):
            answer = answer({} if params is None else _as_json(params))
            answer = await answer if inspect.isawaitable(answer) else answer
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, Iterable) and not isinstance(answer, str | dict) else _as_json(answer)


def _as_json(value: object) -> object:
    """`value` as the other side would read it; fails for what cannot be sent."""
    return parse(encode_json(value))


class Client:
    """A client of the plugin under test: what the plugin sees of it is `app`."""

    def __init__(self, routes: Routes, app: FakeApp) -> None:
        self._routes = routes
        self.app = app

    @property
    def received(self) -> list[tuple[str, object]]:
        """What the plugin called or sent, in order: (method, parameters)."""
        return self.app.received

    async def event(self, name: str, params: object = None) -> None:
        """Push an event, as an app does; returns when the plugin has handled it."""
        await self.fire(name, _json_payload(params))

    async def request(self, name: str, params: object = None) -> Any:
        """Call the route `<plugin>.<name>` with JSON; the answer as JSON."""
        answer = await self.request_payload(name, _json_payload(params))
        return parse(answer.data or b"null")

    async def fire(self, name: str, payload: Payload) -> None:
        """A raw fire-and-forget; returns when the plugin has handled it."""
        await self._run(self._routes.find(name, Model.FIRE), payload)

    async def request_payload(self, name: str, payload: Payload) -> Payload:
        """A raw request-response."""
        handler = self._routes.find(name, Model.RESPONSE)
        return handler.finish(await self._run(handler, payload))

    async def stream(self, name: str, params: object = None) -> AsyncGenerator[Any, None]:
        """The JSON values that the route streams; closing the generator cancels the stream."""
        async with aclosing(self.stream_payloads(name, _json_payload(params))) as payloads:
            async for payload in payloads:
                yield parse(payload.data or b"null")

    async def stream_payloads(self, name: str, payload: Payload) -> AsyncGenerator[Payload, None]:
        """A raw request-stream. Each value is asked for when the one before it has been taken."""
        handler = self._routes.find(name, Model.STREAM)
        assert handler.start is not None
        async with aclosing(_many(handler, handler.start(self.app, payload))) as payloads:
            async for one in payloads:
                yield one

    async def channel(self, name: str, values: Iterable[object]) -> AsyncGenerator[Any, None]:
        """The JSON values that come back while `values` (at least one) go there."""
        payloads = (_json_payload(value) for value in values)
        async with aclosing(self.channel_payloads(name, payloads)) as answers:
            async for payload in answers:
                yield parse(payload.data or b"null")

    async def channel_payloads(self, name: str, payloads: Iterable[Payload]) -> AsyncGenerator[Payload, None]:
        """A raw request-channel of `payloads`, at least one."""
        handler = self._routes.find(name, Model.CHANNEL)
        assert handler.start_channel is not None
        first, *rest = payloads
        result = handler.start_channel(self.app, first, _in_turn(rest))
        async with aclosing(_many(handler, result)) as answers:
            async for one in answers:
                yield one

    async def _run(self, handler: Handler, payload: Payload) -> Any:
        assert handler.start is not None
        result = handler.start(self.app, payload)
        if not inspect.isawaitable(result):
            return result
        try:
            async with asyncio.timeout(handler.deadline):
                return await result
        except TimeoutError:
            raise Canceled(f"{handler.route} was stopped after {handler.deadline:g} s.") from None


def _json_payload(params: object) -> Payload:
    return Payload(encode_json({} if params is None else params), None)


async def _in_turn(payloads: Iterable[Payload]) -> AsyncIterator[Payload]:
    for payload in payloads:
        yield payload


async def _many(handler: Handler, result: Any) -> AsyncGenerator[Payload, None]:
    """What a handler's result streams: an async iterator, an iterator, or the one value of a coroutine (a channel)."""
    if inspect.isawaitable(result):
        value = await result
        if value is not None:
            yield handler.finish(value)
        return
    try:
        if isinstance(result, AsyncIterator):
            async for value in result:
                yield handler.finish(value)
        else:
            for value in result:
                yield handler.finish(value)
    finally:
        if hasattr(result, "aclose"):
            await result.aclose()
        elif hasattr(result, "close"):
            result.close()


class Bench:
    """One plugin under test and the clients that talk to it."""

    def __init__(self, plugin: Plugin) -> None:
        self.plugin = plugin
        self._routes = read_plugin(plugin)
        self._numbers = itertools.count(1)
        self._clients: list[Client] = []
        self._spawned: list[asyncio.Task[Any]] = []

    async def connect(
        self,
        *,
        identity: Identity | None = None,
        answers: Answers | None = None,
        hardware: Device | None = None,
        **labels: str,
    ) -> Client:
        """A new client, for which `on_connect` has run. `labels`: `name`, `os`, `device`, `data_mime`.

        `hardware` is the device that it runs on. `answers` may hold `init`: called when `App.wake` starts its side.
        """
        app = FakeApp(next(self._numbers), identity or fake_identity(), answers or {}, labels)
        app.hardware = hardware
        await _settled(self.plugin.on_connect, app)
        client = Client(self._routes, app)
        for other in self._clients:  # all may reach each other, by their ids
            other.app.others[app.id] = app
            app.others[other.app.id] = other.app
        self._clients.append(client)
        return client

    async def app_error(self, client: Client, text: str, stack: str = "") -> None:
        """The client's SDK reports an error outside any request."""
        await _settled(lambda app: self.plugin.on_app_error(app, text, stack), client.app)

    async def disconnect(self, client: Client) -> None:
        """End the client's session: `on_disconnect` has run when this returns."""
        self._clients.remove(client)
        await _settled(self.plugin.on_disconnect, client.app)

    async def start(self) -> None:
        """Before the first client: `on_start` has run when this returns, and `spawn` works."""
        supervise(self.plugin, self._spawn)
        await _settled(self.plugin.on_start)

    async def close(self) -> None:
        """Disconnect whoever is left, end what was spawned, call `on_stop`. Raises what a spawned one has raised."""
        for client in tuple(self._clients):
            await self.disconnect(client)
        supervise(self.plugin, None)
        for task in self._spawned:
            task.cancel()
        ended = await asyncio.gather(*self._spawned, return_exceptions=True)
        await _settled(self.plugin.on_stop)
        for error in ended:
            if isinstance(error, Exception):
                raise error

    def _spawn(self, work: Coroutine[Any, Any, object]) -> "asyncio.Task[Any]":
        task = asyncio.get_running_loop().create_task(work)
        self._spawned.append(task)
        return task


async def _settled(hook: Callable[..., Awaitable[None] | None], *arguments: object) -> None:
    result = hook(*arguments)
    if inspect.isawaitable(result):
        await result


@asynccontextmanager
async def running(
    plugin: Plugin | type[Plugin], settings: Mapping[str, object] | None = None
) -> AsyncGenerator[Bench, None]:
    """A bench for `plugin`, an instance or a class, with `settings` as its table `[plugins.ID]` would give them."""
    instance = plugin() if isinstance(plugin, type) else plugin
    bench = Bench(instance)
    apply_settings(instance, settings)
    await bench.start()
    try:
        yield bench
    finally:
        await bench.close()
