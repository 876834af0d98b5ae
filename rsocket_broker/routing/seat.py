"""A plugin as one session uses it: runs its handlers so that whatever they do stays theirs: errors, time, and how many
there are at once.

A seat goes through these states; nothing but `on_connect` runs before CONNECTED:

    NEW -> CONNECTING -> CONNECTED -> CLOSED
                      -> FAILED    -> CLOSED          on_connect raised: the plugin does not serve this session
"""

import asyncio
import enum
import inspect
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager
from functools import partial
from typing import Any, Final

from rsocket_broker.errors import Canceled, Invalid, RequestFailed, request_error
from rsocket_broker.jsonpieces import is_heavy
from rsocket_broker.jsontext import SHORT, parse_bytes, skim
from rsocket_broker.payload import Payload
from rsocket_broker.plugin_api.app import App
from rsocket_broker.plugin_api.direct import StartSkimmed
from rsocket_broker.plugin_api.handlers import Handler, Model, Shape, encode, encode_data
from rsocket_broker.plugin_api.plugin import Kind, Plugin
from rsocket_broker.protocol.runs import Shortcut
from rsocket_broker.routing.apart import Arguments, arguments_of_payload, encoded, fits, parses, steps_of
from rsocket_broker.routing.aside import LARGE
from rsocket_broker.routing.deadline import DeadlinePassed, limited
from rsocket_broker.routing.event_queue import EventQueue
from rsocket_broker.routing.plugin_host import PluginHost
from rsocket_broker.routing.restarts import GREETING
from rsocket_broker.routing.tasks import Tasks

logger = logging.getLogger(__name__)

HOOK_DEADLINE = 30.0
"""Seconds for on_connect and on_disconnect: they may call the app, which has as long to answer."""

Answer = Callable[[Payload], Payload | Awaitable[Payload]]

Follow = Callable[[Callable[[App, Any], Any]], Callable[[App, Any], Any]]
"""Puts something around the call of a handler: a span."""

_MAY_BE_HEAVY: Final = frozenset({dict, list, tuple, str})
_FAILURES = (Exception, SystemExit, asyncio.CancelledError)
"""What a plain handler may raise at us: sys.exit() in a plugin ends that request, not the broker."""


class State(enum.Enum):
    """Where a seat is in its life."""

    NEW = "new"
    CONNECTING = "connecting"
    CONNECTED = "connected"
    FAILED = "failed"
    CLOSED = "closed"


UNVERIFIED: Final = "unverified"
"""Stands for all of them; no session's id."""
UNVERIFIED_EVENTS: Final = 2 * 1024 * 1024
"""Bytes of text of the events that wait for one plugin from one client that has proved nothing."""


class Seat:
    """One plugin as one session uses it. `tasks` are the session's."""

    def __init__(self, host: PluginHost, app: App, tasks: Tasks) -> None:
        self._host = host
        self.app = app
        self._tasks = tasks
        self.state = State.NEW
        self._refusal: RequestFailed | None = None
        self._settled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.running: dict[asyncio.Task[Any], str] = {}
        """Requests that are being served, or wait for that: the task of each, and its handler's name."""
        certified = app.identity.principal.certified
        self._owner = app.id if certified else UNVERIFIED
        """For whom places of the plugin are taken. Those who have proved nothing are one, and leave room for others."""
        most = None if certified else UNVERIFIED_EVENTS
        self._events = EventQueue(f"{host.id} from {app.id}", self._handle_event, tasks, host.lost, most)
        host.seats += 1

    @property
    def ready(self) -> bool:
        """Whether what `answers` gives may be kept."""
        return self.state is State.CONNECTED

    @property
    def events_waiting(self) -> tuple[int, int]:
        """Events, and their bytes."""
        return self._events.load

    def connect(self) -> None:
        """Run on_connect, unless that has begun already. What arrives meanwhile waits for it."""
        if self.state is not State.NEW:
            return
        if not self._host.greets():
            self._connected(None)
            return
        self.state = State.CONNECTING
        self._tasks.spawn(self._connect())

    async def _connect(self) -> None:
        what = f"{self._host.id}.on_connect"
        try:
            await self._hook(self._host.plugin.on_connect, what, GREETING)
        except RequestFailed as refusal:
            self._connected(refusal)
        except asyncio.CancelledError:
            self._connected(Canceled(f"{what} was stopped: the session has ended."))
            raise
        else:
            self._host.greeted()
            self._connected(None)

    def _connected(self, refusal: RequestFailed | None) -> None:
        if self.state is not State.CLOSED:
            self.state = State.CONNECTED if refusal is None else State.FAILED
        self._refusal = refusal
        if not self._settled.done():
            self._settled.set_result(None)
        self._events.open(refusal is None)

    async def _hook(self, hook: Callable[[App], Awaitable[None] | None], what: str, weight: int = 1) -> None:
        """Run a hook for the app; a failure counts for `weight`. Raises RequestFailed for whatever goes wrong."""
        try:
            async with asyncio.timeout(HOOK_DEADLINE):
                result = hook(self.app)
                if inspect.isawaitable(result):
                    await result
        except (Exception, SystemExit) as error:
            raise self._host.failed(what, error, self.app.identity, weight) from error

    async def told(self, text: str, stack: str) -> None:
        """The app reports an error outside any request. Raises RequestFailed for whatever goes wrong here."""
        await self.greeted()
        plugin = self._host.plugin
        await self._hook(lambda app: plugin.on_app_error(app, text, stack), f"{self._host.id}.on_app_error")

    def close(self) -> None:
        """The session has ended, or the app has dropped the plugin: say goodbye, if the greeting went well."""
        was, self.state = self.state, State.CLOSED
        if was is State.CLOSED:
            return
        self._host.seats -= 1
        self._events.close()
        if not self._settled.done():
            self._refusal = self._refusal or Canceled("The session has ended.")
            self._settled.set_result(None)
        if was is State.CONNECTED and type(self._host.plugin).on_disconnect is not Plugin.on_disconnect:
            self._host.tasks.spawn(self._farewell(self._host.plugin), self._host.id)

    async def _farewell(self, plugin: Plugin) -> None:
        try:
            await self._hook(plugin.on_disconnect, f"{self._host.id}.on_disconnect")
        except RequestFailed as error:
            logger.debug("%s.on_disconnect ended early: %s", self._host.id, error.public)

    async def greeted(self) -> None:
        """Wait for on_connect. Raises RequestFailed when the plugin does not serve this session."""
        await asyncio.shield(self._settled)
        if self._refusal is not None:  # a fresh one for each: an exception raised twice grows a tangled traceback
            raise request_error(self._refusal.code, self._refusal.public)

    # --- requests ----------------------------------------------------------------------------------------------------

    def answers(self, name: str) -> Answer:
        """What answers `<plugin>.<name>`, to be kept and used again while the seat is CONNECTED. Raises Invalid."""
        handler = self._host.routes.find(name, Model.RESPONSE)
        if self.state is not State.CONNECTED:
            return lambda payload: self._answer_when_ready(handler, payload)
        small: Answer = lambda payload: self._run(handler, handler.start, payload)  # noqa: E731
        if handler.shape is Shape.PLAIN:
            small = self._plain(handler)
        if not parses(handler):
            return small
        return lambda payload: small(payload) if fits(payload) else self.answer_apart(handler, payload)

    def is_method(self, name: str) -> bool:
        """Whether `<plugin>.<name>` answers those who ask; False for what apps push."""
        found = (handler for handler in self._host.routes.handlers() if handler.name == name)
        return all(handler.kind is Kind.METHOD for handler in found)

    def answer_json(self, name: str, value: object) -> Awaitable[Payload]:
        """The answer of `<plugin>.<name>` to parameters that are parsed already. Raises Invalid."""
        return self._answer_json(self.json_handler(name, Model.RESPONSE), value)

    def json_handler(self, name: str, model: Model) -> Handler:
        handler = self._host.routes.find(name, model)
        if handler.start_json is None:
            raise Invalid(f"{handler.route[:100]} takes messages as they are, not Flipper's JSON: use its route.")
        return handler

    async def _answer_json(self, handler: Handler, value: object) -> Payload:
        with self._noted(handler):
            await self.greeted()
        return await self._run(handler, handler.start_json, value)

    async def answer_apart(self, handler: Handler, payload: Payload) -> Payload:
        """Of a large request with a route, for a handler that takes JSON."""
        with self._noted(handler):
            await self.greeted()
            arguments = await arguments_of_payload(self._host.aside, handler, payload)
        return await self._run(handler, steps_of(handler).call, arguments)

    async def answer_ready(self, handler: Handler, arguments: Arguments) -> Payload:
        """The same, where the arguments are there already."""
        with self._noted(handler):
            await self.greeted()
        return await self._run(handler, steps_of(handler).call, arguments)

    def event_ready(self, handler: Handler, arguments: Arguments, size: int, follow: Follow | None = None) -> None:
        """Deliver an event whose arguments are there already; `size` is that of its text."""
        self._deliver(handler, steps_of(handler).call, arguments, size, follow)

    def handler(self, name: str, model: Model) -> Handler:
        """What serves the name. Raises Invalid."""
        return self._host.routes.find(name, model)

    async def _answer_when_ready(self, handler: Handler, payload: Payload) -> Payload:
        if parses(handler) and not fits(payload):
            return await self.answer_apart(handler, payload)
        with self._noted(handler):
            await self.greeted()
        return await self._run(handler, handler.start, payload)

    @contextmanager
    def _noted(self, handler: Handler) -> Iterator[None]:
        """While something is done for a request, it is known what: a policy that changes may end it."""
        task = asyncio.current_task()
        assert task is not None
        self.running[task] = handler.name
        try:
            yield
        finally:
            del self.running[task]

    def _plain(self, handler: Handler) -> Answer:
        """The short way: no task, no future, no place taken; it is done before anything else can begin."""
        start, finish, app, failed, route = handler.start, handler.finish, self.app, self._host.failed, handler.route
        calls = self._host.calls
        assert start is not None

        def answer(payload: Payload) -> Payload:
            try:
                result = start(app, payload)
                if type(result) is not Payload:
                    result = finish(result)
            except RequestFailed as error:
                calls.fail(error)
                raise
            except _FAILURES as error:
                calls.fail(error)
                raise failed(route, error, self.app.identity) from error
            calls.untimed += 1
            return result

        return answer

    def shortcut(self, name: str, metadata: bytes) -> Shortcut:
        """As `answers`, from the data of requests that all have this metadata to their answers' data. Raises Invalid.

        What it gives is the data, or what else came of it: a payload, an error, or an awaitable of a payload.
        """
        handler = self._host.routes.find(name, Model.RESPONSE)
        if handler.shape is not Shape.PLAIN:
            return self._in_a_task(handler, metadata)
        if handler.start_skimmed is not None and handler.finish is encode:
            return self._json_in_json_out(handler, handler.start_skimmed)
        if parses(handler):
            return self._parsed(handler, metadata)
        return self._unparsed(handler, metadata)

    def _in_a_task(self, handler: Handler, metadata: bytes) -> Shortcut:
        parsed = parses(handler)

        def shortcut(data: bytes) -> object:
            payload = Payload(data, metadata)
            if parsed and len(data) > LARGE:
                return self.answer_apart(handler, payload)
            return self._run(handler, handler.start, payload)

        return shortcut

    def _parsed(self, handler: Handler, metadata: bytes) -> Shortcut:
        small = self._unparsed(handler, metadata)
        return lambda data: small(data) if len(data) <= LARGE else self.answer_apart(handler, Payload(data, metadata))

    def _unparsed(self, handler: Handler, metadata: bytes) -> Shortcut:
        start, failed, route = self._for_data(handler, metadata), self._host.failed, handler.route
        calls = self._host.calls
        finish: Callable[[Any], bytes | Payload] = encode_data if handler.finish is encode else handler.finish

        def shortcut(data: bytes) -> object:
            try:
                result = start(data)
                answer = result if type(result) is Payload else finish(result)
            except RequestFailed as error:
                calls.fail(error)
                return error
            except _FAILURES as error:
                calls.fail(error)
                return failed(route, error, self.app.identity)
            calls.untimed += 1
            return answer if type(answer) is bytes else _data_alone(answer)

        return shortcut

    def _json_in_json_out(self, handler: Handler, start: StartSkimmed) -> Shortcut:
        """The shortcut of most handlers, written for the number of steps."""
        app, calls, failed, route = self.app, self._host.calls, self._host.failed, handler.route

        def shortcut(data: bytes) -> object:
            if len(data) > LARGE:
                return self.answer_apart(handler, Payload(data, None))
            try:
                value = skim(data) if len(data) <= SHORT else None
            except ValueError:
                value = None  # which no parameters are: they are looked at again, and thoroughly
            try:
                answer = encode_data(start(app, value, data))
            except RequestFailed as error:
                calls.fail(error)
                return error
            except _FAILURES as error:
                calls.fail(error)
                return failed(route, error, self.app.identity)
            calls.untimed += 1
            return answer if type(answer) is bytes else _data_alone(answer)

        return shortcut

    def _for_data(self, handler: Handler, metadata: bytes) -> Callable[[bytes], Any]:
        app, start, start_data = self.app, handler.start, handler.start_data
        if start_data is not None:
            return partial(start_data, app)
        assert start is not None

        return lambda data: start(app, Payload(data, metadata))

    def skims(self, name: str) -> bool:
        """Whether the shortcut for a method takes parameters as text, and looks at nothing else. Raises Invalid."""
        handler = self._host.routes.find(name, Model.RESPONSE)
        return handler.shape is Shape.PLAIN and handler.start_skimmed is not None and handler.finish is encode

    def json_shortcut(self, name: str) -> Callable[[object], bytes | Payload] | None:
        """As `answer_json`, to be kept and used again while the seat is CONNECTED; None where that takes a task.

        What it gives is JSON as bytes, or the payload of a handler that makes its own. It raises RequestFailed.
        """
        handler = self._host.routes.find(name, Model.RESPONSE)
        start, finish, app, route = handler.start_json, handler.finish, self.app, handler.route
        calls, failed = self._host.calls, self._host.failed
        if handler.shape is not Shape.PLAIN or start is None:
            return None
        encoded: Callable[[Any], bytes | Payload] = encode_data if finish is encode else finish

        def shortcut(value: object) -> bytes | Payload:
            try:
                answer = encoded(start(app, value))
            except RequestFailed as error:
                calls.fail(error)
                raise
            except _FAILURES as error:
                calls.fail(error)
                raise failed(route, error, self.app.identity) from error
            calls.untimed += 1
            return answer

        return shortcut

    async def _run(self, handler: Handler, start: Callable[[App, Any], Any] | None, argument: Any) -> Payload:
        assert start is not None
        if handler.shape is Shape.PLAIN:
            answer: Payload = self._guarded(handler, lambda app: handler.finish(start(app, argument)))
            self._host.calls.untimed += 1
            return answer
        began, calls = time.monotonic(), self._host.calls
        try:
            answer = await self._run_in_place(handler, start, argument)
        except BaseException as error:
            calls.fail(error)
            if isinstance(error, asyncio.CancelledError) and not _being_cancelled():
                raise Canceled(f"{handler.route} has cancelled itself.") from None
            if isinstance(error, RequestFailed) or not isinstance(error, Exception | SystemExit):
                raise
            raise self._host.failed(handler.route, error, self.app.identity) from error
        calls.seconds.observe(time.monotonic() - began)
        return answer

    async def _run_in_place(self, handler: Handler, start: Callable[[App, Any], Any], argument: Any) -> Payload:
        """Waits for a place of the plugin and takes it for as long as the handler runs."""
        gate, owner, task = self._host.gate, self._owner, asyncio.current_task()
        assert task is not None
        self.running[task] = handler.name
        try:
            if not gate.try_enter(owner):
                await gate.enter(owner)
            try:
                result = await self._limited(handler, start, argument)
                if type(result) in _MAY_BE_HEAVY and handler.finish is encode and is_heavy(result):
                    return await encoded(self._host.aside, result)
                return handler.finish(result)
            finally:
                gate.leave(owner)
        finally:
            del self.running[task]

    def _guarded(self, handler: Handler, start: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return start(self.app, *arguments)
        except RequestFailed as error:
            self._host.calls.fail(error)
            raise
        except _FAILURES as error:
            self._host.calls.fail(error)
            raise self._host.failed(handler.route, error, self.app.identity) from error

    async def _limited(self, handler: Handler, start: Callable[[App, Any], Any], argument: Any) -> Any:
        work = start(self.app, argument)
        if not inspect.iscoroutine(work):  # a decorator of the author's may give a task or a future
            work = _awaited(work)
        try:
            return await limited(work, handler.deadline)
        except DeadlinePassed:
            raise self._late(handler) from None

    def _late(self, handler: Handler) -> Canceled:
        text = f"{handler.route} was stopped: it took longer than its deadline of {handler.deadline:g} s."
        self._host.log.write(logging.WARNING, f"{handler.route} deadline", text)
        return Canceled(text)

    # --- streams -----------------------------------------------------------------------------------------------------

    def streams(self, name: str, payload: Payload) -> AsyncIterator[Payload] | Iterator[Payload | bytes]:
        """What `<plugin>.<name>` streams. Raises RequestFailed, now or when it is read."""
        handler = self._host.routes.find(name, Model.STREAM)
        start = handler.start
        assert start is not None
        if parses(handler) and not fits(payload):
            return self._each_apart(handler, payload)
        if self.state is State.CONNECTED and handler.shape is Shape.GENERATOR:
            return self._each_now(handler, self._guarded(handler, start, payload))
        return self._each(handler, lambda: start(self.app, payload))

    def channels(self, name: str, payload: Payload, incoming: AsyncIterator[Payload]) -> AsyncGenerator[Payload, None]:
        """What `<plugin>.<name>` gives for a channel. Raises RequestFailed, now or when it is read."""
        handler = self._host.routes.find(name, Model.CHANNEL)
        start = handler.start_channel
        assert start is not None
        return self._each(handler, lambda: start(self.app, payload, incoming))

    async def _each_apart(self, handler: Handler, payload: Payload) -> AsyncGenerator[Payload, None]:
        with self._noted(handler):
            arguments = await arguments_of_payload(self._host.aside, handler, payload)
        call = steps_of(handler).call
        async with aclosing(self._each(handler, lambda: call(self.app, arguments))) as payloads:
            async for one in payloads:
                yield one

    def _each_now(self, handler: Handler, values: Any) -> Iterator[Payload | bytes]:
        """A plain generator, driven by request-n without a task."""
        gate, owner = self._host.gate, self._owner
        finish: Callable[[Any], Payload | bytes] = encode_data if handler.finish is encode else handler.finish
        gate.enter_now(owner)
        task = asyncio.current_task()
        assert task is not None
        self.running[task] = handler.name
        ends = None if handler.deadline is None else asyncio.get_running_loop().time() + handler.deadline
        try:
            for value in values:
                if ends is not None and asyncio.get_running_loop().time() > ends:
                    raise self._late(handler)
                yield value if type(value) is Payload else finish(value)
            self._host.calls.untimed += 1
        except RequestFailed as error:
            self._host.calls.fail(error)
            raise
        except _FAILURES as error:
            self._host.calls.fail(error)
            raise self._host.failed(handler.route, error, self.app.identity) from error
        finally:
            self.running.pop(task, None)
            gate.leave(owner)
            if hasattr(values, "close"):
                values.close()

    async def _each(self, handler: Handler, start: Callable[[], Any]) -> AsyncGenerator[Payload, None]:
        task = asyncio.current_task()
        assert task is not None
        self.running[task] = handler.name
        try:
            await self.greeted()
            await self._host.gate.enter(self._owner)
        except BaseException:
            self.running.pop(task, None)
            raise
        loop = asyncio.get_running_loop()
        ends = None if handler.deadline is None else loop.time() + handler.deadline
        try:
            async with aclosing(_as_async(start())) as values:
                while True:
                    left = None if ends is None else max(0.0, ends - loop.time())
                    try:
                        value = await limited(_next(values), left)
                    except StopAsyncIteration:
                        self._host.calls.untimed += 1
                        return
                    except DeadlinePassed:
                        raise self._late(handler) from None
                    yield value if type(value) is Payload else handler.finish(value)
        except RequestFailed as error:
            self._host.calls.fail(error)
            raise
        except (Exception, SystemExit) as error:
            self._host.calls.fail(error)
            raise self._host.failed(handler.route, error, self.app.identity) from error
        finally:
            self.running.pop(task, None)
            self._host.gate.leave(self._owner)

    # --- events ------------------------------------------------------------------------------------------------------

    def fire(self, name: str, payload: Payload, model: Model = Model.FIRE, follow: Follow | None = None) -> None:
        """Deliver a raw message, in its turn. Raises Invalid."""
        handler = self._host.routes.find(name, model)
        size = len(payload.data or b"") + len(payload.metadata or b"")
        self._deliver(handler, handler.start, payload, size, follow)

    def event(self, name: str, value: object, size: int, follow: Follow | None = None) -> None:
        """Deliver an event whose parameters are parsed already; `size` is that of its text. Raises Invalid."""
        handler = self.json_handler(name, Model.FIRE)
        self._deliver(handler, handler.start_json, value, size, follow)

    def fire_shortcut(self, name: str, metadata: bytes, large: Callable[[bytes], object]) -> Shortcut:
        """As `fire`, for the data of messages that all have this metadata; `large` takes those not for here."""
        handler = self._host.routes.find(name, Model.FIRE)
        start, more = handler.start, len(metadata)
        if handler.start_data is not None:
            deliver_data, parsed = self._delivery(handler, handler.start_data), parses(handler)
            return lambda data: large(data) if parsed and len(data) > LARGE else deliver_data(data, len(data) + more)
        assert start is not None
        deliver = self._delivery(handler, start)
        return lambda data: deliver(Payload(data, metadata), len(data) + more)

    def event_shortcut(self, name: str) -> Callable[[object, int], None] | None:
        """As `event`, to be kept and used again while the seat is CONNECTED; None where that takes a task."""
        handler = self._host.routes.find(name, Model.FIRE)
        if handler.shape is not Shape.PLAIN or handler.start_json is None:
            return None
        return self._delivery(handler, handler.start_json)

    def skimmed_shortcut(self, name: str) -> Callable[[object, bytes, int], None] | None:
        """The same for parameters that were parsed by `skim`, given with their text and the size of the whole."""
        handler = self._host.routes.find(name, Model.FIRE)
        start, thorough = handler.start_skimmed, handler.start_json
        if handler.shape is not Shape.PLAIN or start is None or thorough is None:
            return None
        app, queue, connected, calls = self.app, self._events, State.CONNECTED, self._host.calls

        def deliver(value: object, text: bytes, size: int) -> None:
            if self.state is not connected or not queue.idle:
                self._deliver(handler, thorough, parse_bytes(text), size, None)
                return
            try:
                start(app, value, text)
            except _FAILURES as error:
                self._event_failed(handler, error)
            else:
                calls.untimed += 1

        return deliver

    def _delivery(self, handler: Handler, start: Callable[[App, Any], Any]) -> Callable[[Any, int], None]:
        if handler.shape is not Shape.PLAIN:
            return lambda argument, size: self._deliver(handler, start, argument, size, None)
        app, queue, connected, calls = self.app, self._events, State.CONNECTED, self._host.calls

        def deliver(argument: Any, size: int) -> None:
            if self.state is not connected or not queue.idle:
                self._deliver(handler, start, argument, size, None)
                return
            try:
                start(app, argument)
            except _FAILURES as error:
                self._event_failed(handler, error)
            else:
                calls.untimed += 1

        return deliver

    def _event_failed(self, handler: Handler, error: BaseException) -> None:
        self._host.calls.fail(error)
        self._dropped(handler, self._host.failed(handler.route, error, self.app.identity))

    def _deliver(
        self,
        handler: Handler,
        start: Callable[[App, Any], Any] | None,
        argument: object,
        size: int,
        follow: Follow | None,
    ) -> None:
        assert start is not None
        if follow is not None:
            start = follow(start)
        if handler.shape is Shape.PLAIN and self.state is State.CONNECTED and self._events.idle:
            try:
                self._guarded(handler, start, argument)
                self._host.calls.untimed += 1
            except RequestFailed as error:
                self._dropped(handler, error)
            return
        self._events.put((handler, start, argument), size)

    async def _handle_event(self, item: tuple[Handler, Callable[[App, Any], Any], Any]) -> None:
        handler, start, argument = item
        try:
            if handler.shape is Shape.PLAIN:
                self._guarded(handler, start, argument)
                self._host.calls.untimed += 1
                return
            await self._host.gate.enter(self._owner, patient=True)
            began = time.monotonic()
            try:
                await self._limited(handler, start, argument)
                self._host.calls.seconds.observe(time.monotonic() - began)
            except BaseException as error:
                self._host.calls.fail(error)
                raise
            finally:
                self._host.gate.leave(self._owner)
        except asyncio.CancelledError:
            if _being_cancelled():
                raise
            self._dropped(handler, Canceled("it has cancelled itself."))
        except (Exception, SystemExit) as error:  # noqa: BLE001 - `failed` logs it; the next event is served
            self._dropped(handler, self._host.failed(handler.route, error, self.app.identity))

    def _dropped(self, handler: Handler, error: RequestFailed) -> None:
        """Nobody waits for an answer to an event, so what its sender did wrong is said here."""
        self._host.log.write(
            logging.WARNING, f"{handler.route} event", "an event of %s was not handled: %s", self.app.id, error.public
        )


def _data_alone(answer: Any) -> object:
    """A payload's data, where there is nothing else."""
    return answer.data if type(answer) is Payload and answer.metadata is None else answer


def _being_cancelled() -> bool:
    """Whether someone cancels the task that we are in, as against a handler that raises CancelledError itself."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def _awaited(work: Awaitable[Any]) -> Any:
    return await work


async def _next(values: AsyncGenerator[Any, None]) -> Any:
    return await anext(values)


async def _as_async(result: Any) -> AsyncGenerator[Any, None]:
    """An async iterator, an iterator, or a coroutine with one value (None: no value), as an async generator."""
    if inspect.isawaitable(result):
        value = await result
        if value is not None:
            yield value
        return
    try:
        if hasattr(result, "__anext__") or hasattr(result, "__aiter__"):
            async for value in result:
                yield value
        else:
            for value in result:
                yield value
    finally:
        if hasattr(result, "aclose"):
            await result.aclose()
        elif hasattr(result, "close"):
            result.close()
