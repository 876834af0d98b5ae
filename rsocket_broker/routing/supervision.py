"""The life of one plugin in this broker: started, stopped when it fails over and over, and started anew, alone.

    NEW -> STARTING -> UP -> DOWN -> STARTING -> ...     NEW: nothing to start, and as good as up, until it fails
                    -> DOWN               -> STOPPED     DOWN: until the next try, which comes later each time

What it cannot do: take the event loop from a handler that blocks it. `observability.blocking` names that one.
"""

import asyncio
import enum
import inspect
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Hashable
from typing import Any, Final, Protocol

from rsocket_broker.errors import Canceled, RequestFailed, Unavailable
from rsocket_broker.plugin_api.plugin import MAX_SPAWNED, Plugin, Restart, supervise
from rsocket_broker.routing.restarts import Backoff, FailureRun
from rsocket_broker.routing.tasks import in_turns

logger = logging.getLogger(__name__)

HOOK_DEADLINE: Final = 30.0
"""Seconds for on_start and for on_stop."""
FAREWELLS: Final = 10.0
"""Seconds that a plugin which is restarted has for the on_disconnect of its clients."""


class Phase(enum.Enum):
    """Where a plugin is in its life."""

    NEW = "new"
    STARTING = "starting"
    UP = "up"
    DOWN = "down"
    STOPPED = "stopped"


_UP: Final = frozenset({Phase.NEW, Phase.UP})


class Supervised(Protocol):
    """The plugin, as its supervisor knows it."""

    id: str
    plugin: Plugin

    def renew(self) -> None:
        """Another instance, where one can be made. Raises whatever its author's code raises."""

    async def vacate(self, error: RequestFailed) -> None:
        """No client has it any more; requests that it serves end with `error`."""

    async def gone(self, timeout: float) -> None:
        """Until every client's farewell is over."""

    async def reoccupy(self) -> None:
        """Whoever has lost it, and who has come since, gets it, unless it fails meanwhile."""


class Supervisor:
    """Of one plugin. `failed` is told of what its handlers raise."""

    def __init__(
        self, subject: Supervised, policy: Restart | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._subject = subject
        self._clock = clock
        self._run = FailureRun(policy)
        self._policy = policy
        self._backoff = Backoff(policy or Restart())
        self._work: set[asyncio.Task[Any]] = set()
        self._life: asyncio.Task[None] | None = None
        self._since = clock()
        self._next_try = 0.0
        self.phase = Phase.NEW
        self.restarts = 0
        """How often it was started anew."""
        self.last_error = ""
        """What failed last and how: type and place, never what the error said."""

        supervise(subject.plugin, self._spawn)

    @property
    def available(self) -> bool:
        """Whether clients may have it. One whose start is nothing but being there is NEW, and up, until it fails."""
        return self.phase in _UP

    @property
    def started(self) -> bool:
        """Whether there is anything to stop."""
        return (
            self.phase is not Phase.NEW or bool(self._work) or type(self._subject.plugin).on_stop is not Plugin.on_stop
        )

    @property
    def retry_after(self) -> float | None:
        """Seconds until it is tried again; None for a plugin that is not down."""
        return max(0.0, self._next_try - self._clock()) if self.phase is Phase.DOWN else None

    def refusal(self) -> Unavailable:
        """What a caller gets while it is not available."""
        after = self.retry_after or 0.0
        when = "is being started" if not after else f"is tried again in {after:.1f} s"
        return Unavailable(f'The plugin "{self._subject.id}" is down after failures, and {when}.', after)

    def describe(self) -> dict[str, object]:
        """Its state as JSON."""
        after = self.retry_after
        return {
            "state": "up" if self.available else self.phase.value,
            "restarts": self.restarts,
            "retry_after": None if after is None else round(after, 1),
            "last_error": self.last_error or None,
            "background": len(self._work),
        }

    # --- start and end -----------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """The first start. Never raises: what fails is down, and tried again."""
        if self.phase is Phase.NEW and not await self._try_start():
            self._life = asyncio.get_running_loop().create_task(self._come_back(0.0))

    async def stop(self) -> None:
        """The broker ends, and all clients are gone."""
        was, self.phase = self.phase, Phase.STOPPED
        if self._life is not None:
            self._life.cancel()
            await asyncio.wait([self._life])
        await self._end(hook=was in _UP)

    async def _try_start(self) -> bool:
        self.phase = Phase.STARTING
        plugin = self._subject.plugin
        supervise(plugin, self._spawn)
        try:
            await _called(plugin.on_start)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - an author's; it is logged, and tried again
            self._note("on_start", error)
            await self._end(hook=False)
            return False
        self.phase, self._since = Phase.UP, self._clock()
        return True

    async def _end(self, *, hook: bool) -> None:
        """What runs in the background ends, and on_stop is called."""
        plugin = self._subject.plugin
        supervise(plugin, None)
        work = tuple(self._work)
        async for some in in_turns(work):
            for task in some:
                task.cancel()
        if work:
            await asyncio.wait(work, timeout=HOOK_DEADLINE)
        if not hook:
            return
        try:
            await _called(plugin.on_stop)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - an author's, and the last that is asked of it
            self._note("on_stop", error)

    # --- failures ----------------------------------------------------------------------------------------------------

    def failed(
        self, what: str, error: BaseException, owner: Hashable, successes: int, served: int, weight: int = 1
    ) -> None:
        """A handler for the client `owner` has raised what it did not mean to."""
        self.last_error = told(what, error)
        if self.phase in _UP and self._run.fail(owner, successes, served, weight):
            self.fall(f"{what} and others failed over and over, the last time with {type(error).__name__}")

    def fall(self, reason: str) -> None:
        """It is to be restarted. Returns at once; what called may be the plugin itself."""
        if self.phase not in _UP or self._policy is None:
            return
        up_for = self._clock() - self._since
        self._go_down(up_for)
        logger.error('the plugin "%s" is restarted in %.1f s: %s', self._subject.id, self.retry_after, reason)
        self._life = asyncio.get_running_loop().create_task(self._restart())

    def _go_down(self, up_for: float) -> None:
        self.phase = Phase.DOWN
        self._next_try = self._clock() + self._backoff.next(up_for)
        self._run.clear()

    async def _restart(self) -> None:
        subject = self._subject
        await subject.vacate(
            Canceled(f'The plugin "{subject.id}" was stopped after failures, and will be started anew.')
        )
        await subject.gone(FAREWELLS)
        await self._end(hook=True)
        await self._come_back(None)

    async def _come_back(self, up_for: float | None) -> None:
        """Tries until it is up. `up_for` is that of a plugin which is not down yet."""
        if up_for is not None:
            self._go_down(up_for)
        while True:
            await asyncio.sleep(max(0.0, self._next_try - self._clock()))
            self.restarts += 1
            if self._renewed() and await self._try_start():
                break
            self._go_down(0.0)
        logger.warning('the plugin "%s" runs again, after %d restarts in all', self._subject.id, self.restarts)
        await self._subject.reoccupy()

    def _renewed(self) -> bool:
        try:
            self._subject.renew()
        except (Exception, SystemExit) as error:  # noqa: BLE001 - an author's; it is logged, and tried again
            self._note("its making", error)
            return False
        return True

    def _note(self, what: str, error: BaseException) -> None:
        label = f"{self._subject.id}.{what}"
        self.last_error = told(label, error)
        logger.error("%s failed", label, exc_info=error)

    # --- background work ---------------------------------------------------------------------------------------------

    def _spawn(self, work: Coroutine[Any, Any, object]) -> "asyncio.Task[Any]":
        if len(self._work) >= MAX_SPAWNED:
            work.close()
            raise RuntimeError(f"{self._subject.id} has {MAX_SPAWNED} background tasks already")
        task = asyncio.get_running_loop().create_task(work)
        self._work.add(task)
        task.add_done_callback(self._worked)
        return task

    def _worked(self, task: "asyncio.Task[Any]") -> None:
        self._work.discard(task)
        if task.cancelled() or (error := task.exception()) is None:
            return
        self._note(f"spawned {getattr(task.get_coro(), '__name__', 'work')}", error)
        self.fall(f"its background work failed with {type(error).__name__}")


async def _called(hook: Callable[[], Awaitable[None] | None]) -> None:
    async with asyncio.timeout(HOOK_DEADLINE):
        result = hook()
        if inspect.isawaitable(result):
            await result


def told(what: str, error: BaseException) -> str:
    """What failed, how and where; not what the error says, which may be anybody's data."""
    at = error.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    where = "" if at is None else f" at {at.tb_frame.f_code.co_filename}:{at.tb_lineno}"
    return f"{what}: {type(error).__name__}{where}"
