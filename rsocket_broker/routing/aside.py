"""Where large messages are read and written: beside the event loop, in one thread, one after the other.

Python runs one thread at a time, so a thread helps only because `jsonpieces` gives way every few milliseconds, and the
interpreter by itself in what plugins have written in Python (their checks). Three things would hold everybody up all
the same, and are dealt with here: the full collections of Python's collector, which look through every object of a
value with a million of them; the end of such a value, which frees them all at once; and a second large message.
"""

import asyncio
import gc
import logging
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from rsocket_broker.jsonpieces import Read, Turn, let_go
from rsocket_broker.protocol.limits import KIB

logger = logging.getLogger(__name__)

LARGE: Final = 256 * KIB
"""Bytes of a message from which on it is read here: what is shorter is parsed within some milliseconds."""
BRIEF: Final = 32 * KIB
"""Bytes up to which a message is never read here, whatever it holds."""
DENSE: Final = 16_000
"""Arrays and objects from which on a message between the two is: some ten milliseconds. What holds fewer is faster
parsed than handed over."""
SHARE: Final = 0.001
"""Seconds of work after which others get a turn."""
SWITCH: Final = 0.0005
"""Seconds after which the interpreter changes threads while a job runs, where Python would take ten times as long: for
what a job does in Python without giving way, such as the checks that plugins have written."""
LOOKED: Final = 0.5
"""Seconds between two looks at values that were handed out, for those that nobody has any more."""
KEPT: Final = 60.0
"""Seconds after which a value is its plugin's own affair. It is taken out of what full collections look through, with
all that lives at that moment: cycles that die later than that, and in that moment only, are never found."""
FEW: Final = 1000
"""Members of an object that are looked through for arguments: as many as handlers have by far."""
NO_FULL_COLLECTION: Final = 1_000_000
"""Collections of young objects before a full one, while a large message is read. Young ones go on as always."""

T = TypeVar("T")


def is_large(data: bytes | bytearray) -> bool:
    """Of a message that is not brief: whether it is to be read here. What stands in strings is counted too."""
    return len(data) > LARGE or data.count(b"[") + data.count(b"{") > DENSE


class Aside:
    """Of one broker. Nothing of it exists until the first large message."""

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None
        self._stopped = False
        self._jobs = 0
        """Jobs, and values that were handed out."""
        self._running = 0
        self._usual_switch = 0.0
        self._thresholds: tuple[int, int, int] | None = None
        self._handed_out: list[_HandedOut] = []
        self._freeing: set[asyncio.Task[None]] = set()
        self._looking: asyncio.TimerHandle | None = None
        self.done = 0
        """Jobs that have ended."""

    async def run(self, job: Callable[[Turn], T]) -> T:
        """The result of `job`, which calls what it is given every few milliseconds. Raises what it raises.

        One that nobody waits for any more ends at its next turn.
        """
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, "large messages")
        turns = _Turns(self, asyncio.get_running_loop())
        self._enter()
        if not self._running:
            self._usual_switch = sys.getswitchinterval()
            sys.setswitchinterval(SWITCH)
        self._running += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, job, turns.give_way)
        finally:
            turns.over = True
            self.done += 1
            self._leave()
            self._running -= 1
            if not self._running:
                sys.setswitchinterval(self._usual_switch)

    def hand_out(self, read: Read, *others: object) -> None:
        """Free the value, and others that were made of it, bit by bit as soon as nobody else has them."""
        if read.spine and not self._stopped:
            self._enter()
            self._handed_out.append(_HandedOut(read, others, time.monotonic()))
            self._look_later()

    def stop(self) -> None:
        """The broker ends; what is being read never is."""
        self._stopped = True
        if self._looking is not None:
            self._looking.cancel()
        for _ in self._handed_out:
            self._leave()
        self._handed_out.clear()
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)

    @property
    def stopped(self) -> bool:
        return self._stopped

    def _enter(self) -> None:
        if not self._jobs:
            self._thresholds = gc.get_threshold()
            gc.set_threshold(*self._thresholds[:2], NO_FULL_COLLECTION)
        self._jobs += 1

    def _leave(self) -> None:
        self._jobs -= 1
        if not self._jobs and self._thresholds is not None:
            gc.set_threshold(*self._thresholds)

    def _look_later(self) -> None:
        if self._looking is None and not self._stopped:
            self._looking = asyncio.get_running_loop().call_later(LOOKED, self._look)

    def _look(self) -> None:
        self._looking = None
        free = [one for one in self._handed_out if one.is_free()]
        late = time.monotonic() - KEPT
        kept = [one for one in self._handed_out if one not in free and one.since < late]
        self._handed_out = [one for one in self._handed_out if one not in free and one not in kept]
        if kept:
            gc.freeze()
        for _ in kept:
            self._leave()
        for one in free:
            task = asyncio.get_running_loop().create_task(self._free(one))
            self._freeing.add(task)
            task.add_done_callback(self._freeing.discard)
        if self._handed_out:
            self._look_later()

    async def _free(self, one: "_HandedOut") -> None:
        try:
            await self.run(lambda turn: let_go(one.box, one.spine, turn))
        except (RuntimeError, Abandoned):
            logger.debug("the broker has ended before a large value was freed")
        finally:
            self._leave()


_OURS: Final = 2
"""What `sys.getrefcount` says of an object that only a box has."""


class _HandedOut:
    """A value that somebody works with."""

    def __init__(self, read: Read, others: tuple[object, ...], since: float) -> None:
        self.since = since
        root = read.value
        others = tuple(one for one in others if one is not root)
        inside = [id(one) for one in root.values()] if type(root) is dict and len(root) <= FEW else []
        self.box = [*others, root]
        self.spine = read.spine
        self._most = [*(_OURS + inside.count(id(one)) for one in others), _OURS]
        """References to each of them that are no sign of anybody else."""

    def is_free(self) -> bool:
        box = self.box
        return all(sys.getrefcount(box[at]) <= most for at, most in enumerate(self._most))


class _Turns:
    """One job's way to give way: it stands still until the loop has gone through all that was ready.

    Merely to let go of the interpreter would not do: the loop gives it back at each of its calls to OpenSSL, and would
    have to wait for it anew each time.
    """

    def __init__(self, aside: Aside, loop: asyncio.AbstractEventLoop) -> None:
        self._aside = aside
        self._loop = loop
        self._since = time.perf_counter()
        self._turned = threading.Lock()
        self._turned.acquire()
        self.over = False
        """Whether nobody waits for its result any more."""

    def give_way(self) -> None:
        if self.over or self._aside.stopped:
            raise Abandoned
        if time.perf_counter() - self._since < SHARE:
            return
        try:
            self._loop.call_soon_threadsafe(self._turned.release)
        except RuntimeError:
            raise Abandoned from None
        while not self._turned.acquire(timeout=LOOKED):
            if self.over or self._aside.stopped:  # the loop may never turn again
                raise Abandoned
        self._since = time.perf_counter()


class Abandoned(Exception):
    """Ends a job that nobody waits for."""
