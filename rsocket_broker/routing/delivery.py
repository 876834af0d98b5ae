"""How a plugin gets the events of one session: at once where it takes no time, else in their order, one by one."""

import asyncio
import logging
import time
from collections.abc import Callable, Sized
from typing import Any, Final

from rsocket_broker.errors import Canceled, RequestFailed
from rsocket_broker.jsontext import SHORT, skim
from rsocket_broker.payload import Payload
from rsocket_broker.plugin_api.app import App
from rsocket_broker.plugin_api.handlers import Handler, Model, Shape
from rsocket_broker.protocol.runs import Shortcut
from rsocket_broker.quota import Holding
from rsocket_broker.routing import cost
from rsocket_broker.routing.apart import Arguments, parses, steps_of
from rsocket_broker.routing.aside import BRIEF, LARGE, is_large
from rsocket_broker.routing.event_queue import EventQueue
from rsocket_broker.routing.greeting import State
from rsocket_broker.routing.handling import FAILURES, Handling, Start, being_cancelled
from rsocket_broker.routing.tasks import Tasks

UNVERIFIED_EVENTS: Final = 2 * 1024 * 1024
"""Bytes of the events that wait for one plugin from one client that has proved nothing."""

Follow = Callable[[Start], Start]
"""Puts something around the call of a handler: a span."""


class Delivery:
    """Of one plugin for one session. Nobody waits for an answer to an event, so what goes wrong is logged here."""

    __slots__ = ("_handling", "_queue")

    def __init__(self, handling: Handling, tasks: Tasks, holding: Holding | None = None) -> None:
        """`tasks` are the session's, `holding` is that of its line."""
        host, app = handling.host, handling.app
        self._handling = handling
        most = None if handling.certified else UNVERIFIED_EVENTS
        label = f"{host.id} from {app.id}"
        self._queue = EventQueue(label, self._handle, tasks, host.lost, most, holding=holding)

    @property
    def waiting(self) -> tuple[int, int]:
        """Events, and their bytes."""
        return self._queue.load

    def open(self, served: bool) -> None:
        """The plugin has greeted the session; when not `served`, it takes nothing, and what waits is let go."""
        self._queue.open(served)

    def close(self) -> None:
        """Drop what waits."""
        self._queue.close()

    # --- the long way ------------------------------------------------------------------------------------------------

    def fire(self, name: str, payload: Payload, model: Model = Model.FIRE, follow: Follow | None = None) -> None:
        """Deliver a raw message, in its turn. Raises Invalid."""
        handler = self._handling.host.routes.find(name, model)
        size = len(payload.data or b"") + len(payload.metadata or b"")
        self._deliver(handler, handler.start, payload, size, follow)

    def event(self, name: str, value: object, size: int, follow: Follow | None = None) -> None:
        """Deliver an event whose parameters are parsed already; `size` is that of its text. Raises Invalid."""
        handler = self._handling.host.json_handler(name, Model.FIRE)
        self._deliver(handler, handler.start_json, value, size, follow)

    def arguments(self, handler: Handler, arguments: Arguments, size: int, follow: Follow | None = None) -> None:
        """Deliver an event whose arguments are there already; `size` is what they take in memory."""
        self._deliver(handler, steps_of(handler).call, arguments, size, follow)

    def _deliver(
        self, handler: Handler, start: Start | None, argument: object, size: int, follow: Follow | None
    ) -> None:
        assert start is not None
        handling = self._handling
        if follow is not None:
            start = follow(start)
        if handler.shape is Shape.PLAIN and handling.greeting.state is State.CONNECTED and self._queue.idle:
            try:
                handling.guarded(handler, start, argument)
                handling.host.calls.untimed += 1
            except RequestFailed as error:
                self._dropped(handler, error)
            return
        self._queue.put((handler, start, argument), _weight(argument, size))

    async def _handle(self, item: tuple[Handler, Start, Any]) -> None:
        handler, start, argument = item
        handling, calls = self._handling, self._handling.host.calls
        try:
            if handler.shape is Shape.PLAIN:
                handling.guarded(handler, start, argument)
                calls.untimed += 1
                return
            await handling.host.gate.enter(handling.owner, patient=True)
            began = time.monotonic()
            try:
                await handling.limited(handler, start, argument)
                calls.seconds.observe(time.monotonic() - began)
            except BaseException as error:
                calls.fail(error)
                raise
            finally:
                handling.host.gate.leave(handling.owner)
        except asyncio.CancelledError:
            if being_cancelled():
                raise
            self._dropped(handler, Canceled("it has cancelled itself."))
        except (Exception, SystemExit) as error:  # noqa: BLE001 - `failed` logs it; the next event is served
            self._dropped(handler, handling.host.failed(handler.route, error, handling.app.identity))

    def _dropped(self, handler: Handler, error: RequestFailed) -> None:
        """What the sender of an event did wrong is said here."""
        words = "an event of %s was not handled: %s"
        host, app = self._handling.host, self._handling.app
        host.log.write(logging.WARNING, f"{handler.route} event", words, app.id, error.public)

    # --- shortcuts ---------------------------------------------------------------------------------------------------

    def fire_shortcut(self, name: str, metadata: bytes, large: Callable[[bytes], object]) -> Shortcut:
        """As `fire`, for the data of messages that all have this metadata; `large` takes those not for here."""
        handler = self._handling.host.routes.find(name, Model.FIRE)
        start, more = handler.start, len(metadata)
        if handler.start_data is not None:
            deliver_data, parsed = self._at_once(handler, handler.start_data), parses(handler)
            return lambda data: (
                large(data) if parsed and len(data) > BRIEF and is_large(data) else deliver_data(data, len(data) + more)
            )
        assert start is not None
        deliver = self._at_once(handler, start)
        return lambda data: deliver(Payload(data, metadata), len(data) + more)

    def event_shortcut(self, name: str) -> Callable[[object, int], None] | None:
        """As `event`; None where that takes a task."""
        handler = self._handling.host.routes.find(name, Model.FIRE)
        if handler.shape is not Shape.PLAIN or handler.start_json is None:
            return None
        return self._at_once(handler, handler.start_json)

    def envelope_shortcut(
        self, name: str, text: bytes, kept: Sized, others: Shortcut, careful: Shortcut
    ) -> Shortcut | None:
        """As `event`, for messages of Flipper's that begin with `text` up to their parameters, behind which two braces
        are all that follows; None where their types do not say enough. Written for the number of steps.

        `others` takes those that begin otherwise, and all once nothing is `kept`; `careful` those that are not so
        plain, or have to wait.
        """
        handling, queue, connected = self._handling, self._queue, State.CONNECTED
        handler = handling.host.routes.find(name, Model.FIRE)
        start, begin = handler.start_skimmed, len(text)
        if handler.shape is not Shape.PLAIN or start is None:
            return None
        app, greeting, calls = handling.app, handling.greeting, handling.host.calls

        def take(data: bytes) -> None:
            if not kept or not data.startswith(text):
                others(data)
                return
            params, value = data[begin:-2], None
            if data.endswith(b"}}") and len(data) <= SHORT and greeting.state is connected and queue.idle:
                try:
                    value = skim(params)
                except ValueError:
                    value = None  # which no parameters are: they are looked at again, and thoroughly
            if value is None:
                careful(data)
                return
            try:
                start(app, value, params)
            except FAILURES as error:
                self._dropped(handler, handling.failed(handler, error))
            else:
                calls.untimed += 1

        return take

    def _at_once(self, handler: Handler, start: Callable[[App, Any], Any]) -> Callable[[Any, int], None]:
        """Delivers to a plain handler without a step more than that takes, while nothing else waits for it."""
        if handler.shape is not Shape.PLAIN:
            return lambda argument, size: self._deliver(handler, start, argument, size, None)
        handling, queue, connected = self._handling, self._queue, State.CONNECTED
        app, greeting, calls = handling.app, handling.greeting, handling.host.calls

        def deliver(argument: Any, size: int) -> None:
            if greeting.state is not connected or not queue.idle:
                self._deliver(handler, start, argument, size, None)
                return
            try:
                start(app, argument)
            except FAILURES as error:
                self._dropped(handler, handling.failed(handler, error))
            else:
                calls.untimed += 1

        return deliver


def _weight(argument: object, size: int) -> int:
    """Bytes that an event takes in memory while it waits. Of a large one that is known already: it is the `size`."""
    return size if size > LARGE else max(size, cost.of_value(argument, size))
