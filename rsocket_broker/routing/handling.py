"""How the handlers of one plugin are run for one session, so that whatever they do stays theirs: errors, time, and how
many there are at once."""

import asyncio
import inspect
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from rsocket_broker.errors import Canceled, RequestFailed
from rsocket_broker.jsonpieces import is_heavy
from rsocket_broker.payload import Payload
from rsocket_broker.plugin_api.app import App
from rsocket_broker.plugin_api.handlers import Handler, Shape, encode
from rsocket_broker.routing.apart import encoded
from rsocket_broker.routing.deadline import DeadlinePassed, limited
from rsocket_broker.routing.greeting import Greeting

UNVERIFIED: Final = "unverified"
"""Stands for all of them; no session's id."""

FAILURES: Final = (Exception, SystemExit, asyncio.CancelledError)
"""What a plain handler may raise at us: sys.exit() in a plugin ends that request, not the broker."""

Start = Callable[[App, Any], Any]
"""Begins a handler: it is given the app and what has come for the handler."""

_MAY_BE_HEAVY: Final = frozenset({dict, list, tuple, str})


class Handling:
    """Of one plugin for one session, once it has greeted it."""

    __slots__ = ("app", "certified", "greeting", "host", "owner", "running")

    def __init__(self, greeting: Greeting) -> None:
        self.greeting = greeting
        self.host = greeting.host
        self.app = greeting.app
        self.running: dict[asyncio.Task[Any], str] = {}
        """Requests that are being served, or wait for that: the task of each, and its handler's name."""
        self.certified = self.app.identity.principal.certified
        self.owner = self.app.id if self.certified else UNVERIFIED
        """For whom places of the plugin are taken. Those who have proved nothing are one, and leave room for others."""

    @contextmanager
    def noted(self, handler: Handler) -> Iterator[None]:
        """While something is done for a request, it is known what: a policy that changes may end it."""
        task = asyncio.current_task()
        assert task is not None
        self.running[task] = handler.name
        try:
            yield
        finally:
            del self.running[task]

    async def run(self, handler: Handler, start: Start | None, argument: object) -> Payload:
        """The answer of a handler, a coroutine's too. Raises RequestFailed."""
        assert start is not None
        if handler.shape is Shape.PLAIN:
            answer: Payload = self.guarded(handler, lambda app: handler.finish(start(app, argument)))
            self.host.calls.untimed += 1
            return answer
        began, calls = time.monotonic(), self.host.calls
        try:
            answer = await self._run_in_place(handler, start, argument)
        except BaseException as error:
            calls.fail(error)
            if isinstance(error, asyncio.CancelledError) and not being_cancelled():
                raise Canceled(f"{handler.route} has cancelled itself.") from None
            if isinstance(error, RequestFailed) or not isinstance(error, Exception | SystemExit):
                raise
            raise self.host.failed(handler.route, error, self.app.identity) from error
        calls.seconds.observe(time.monotonic() - began)
        return answer

    async def _run_in_place(self, handler: Handler, start: Start, argument: object) -> Payload:
        """Waits for a place of the plugin and takes it for as long as the handler runs."""
        gate, owner, task = self.host.gate, self.owner, asyncio.current_task()
        assert task is not None
        self.running[task] = handler.name
        try:
            if not gate.try_enter(owner):
                await gate.enter(owner)
            try:
                result = await self.limited(handler, start, argument)
                if type(result) in _MAY_BE_HEAVY and handler.finish is encode and is_heavy(result):
                    return await encoded(self.host.aside, result)
                return handler.finish(result)
            finally:
                gate.leave(owner)
        finally:
            del self.running[task]

    def guarded(self, handler: Handler, start: Callable[..., Any], *arguments: object) -> Any:
        """What a plain function of the plugin gives, called with the app and `arguments`. Raises RequestFailed."""
        try:
            return start(self.app, *arguments)
        except RequestFailed as error:
            self.host.calls.fail(error)
            raise
        except FAILURES as error:
            raise self.failed(handler, error) from error

    def failed(self, handler: Handler, error: BaseException) -> RequestFailed:
        """Counts and logs what a handler has raised; the error for whoever asked."""
        self.host.calls.fail(error)
        return self.host.failed(handler.route, error, self.app.identity)

    async def limited(self, handler: Handler, start: Start, argument: object) -> Any:
        """What a handler gives within its deadline. Raises Canceled after that, and whatever the handler raises."""
        work = start(self.app, argument)
        if not inspect.iscoroutine(work):  # a decorator of the author's may give a task or a future
            work = _awaited(work)
        try:
            return await limited(work, handler.deadline)
        except DeadlinePassed:
            raise self.late(handler) from None

    def late(self, handler: Handler) -> Canceled:
        """Says that a handler has taken longer than it may."""
        text = f"{handler.route} was stopped: it took longer than its deadline of {handler.deadline:g} s."
        self.host.log.write(logging.WARNING, f"{handler.route} deadline", text)
        return Canceled(text)


def being_cancelled() -> bool:
    """Whether someone cancels the task that we are in, as against a handler that raises CancelledError itself."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def _awaited(work: Awaitable[Any]) -> Any:
    return await work
