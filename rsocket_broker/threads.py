"""Threads for what waits for a disk while the event loop goes on, and of which there is much.

A turn costs a tenth of the Python calls of `asyncio.to_thread`, and wakes one thread, the one that was at work last.
"""

import asyncio
import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

import attrs

P = ParamSpec("P")
T = TypeVar("T")


@attrs.frozen(slots=True, eq=False)
class _Job:
    loop: asyncio.AbstractEventLoop
    future: "asyncio.Future[Any]"
    work: Callable[..., Any]
    arguments: tuple[object, ...]
    named: Mapping[str, object]

    def do(self) -> None:
        """On a thread. A job for which nobody waits any more, and which has not begun, is spared."""
        if self.future.cancelled():
            return
        result, failure = None, None
        try:
            result = self.work(*self.arguments, **self.named)
        except BaseException as error:  # noqa: BLE001  it is told to whoever waits
            failure = error
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self.loop.call_soon_threadsafe(_tell, self.future, result, failure)


class _Rest:
    """Where one thread waits for its next job."""

    def __init__(self) -> None:
        self._bell = threading.Lock()
        self._bell.acquire()
        self._job: _Job | None = None

    def give(self, job: _Job) -> None:
        self._job = job
        self._bell.release()

    def wait(self) -> _Job:
        self._bell.acquire()
        job, self._job = self._job, None
        assert job is not None
        return job


RELIEF_S = 0.1
"""How long work waits for threads that are all busy before it gets one of the spare ones."""


class Threads:
    """Some threads, each started when there is work for it first; the rest of the work waits in turn.

    They wait for work as long as the process lives, and do not keep it alive. Any loop may use them.
    """

    def __init__(self, name: str, usual: int, spare: int = 0) -> None:
        """For a module to make once: it is never given up. `usual` many work side by side; `spare` ones begin only
        where work has waited for RELIEF_S, since the others may hang."""
        self._name = name
        self._usual = usual
        self._spare = spare
        self._begin()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._begin)  # a child has none of its parent's threads

    def _begin(self) -> None:
        self._to_start = self._usual
        self._to_relieve = self._spare
        self._lock = threading.Lock()
        self._resting: list[_Rest] = []
        self._jobs: deque[_Job] = deque()

    def run(self, work: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> "asyncio.Future[T]":
        """What `work` returns or raises on one of the threads; to be awaited on the loop that asks for it.

        Cancelling stops the waiting, and the work if it has not begun. Raises RuntimeError when the system gives no
        thread: whoever asks next may get one.
        """
        loop = asyncio.get_running_loop()
        job = _Job(loop, loop.create_future(), work, arguments, named)
        with self._lock:
            rest = self._resting.pop() if self._resting else None
            starts = rest is None and self._to_start > 0
            if starts:
                self._to_start -= 1
            elif rest is None:
                while self._jobs and self._jobs[0].future.cancelled():  # all threads hang, and what waits has given up
                    self._jobs.popleft()
                self._jobs.append(job)
        if rest is not None:
            rest.give(job)
        elif starts:
            try:
                self._start(job)
            except RuntimeError:
                with self._lock:
                    self._to_start += 1
                raise
        elif self._to_relieve:
            loop.call_later(RELIEF_S, self._relieve, job)
        return job.future

    def _start(self, job: _Job) -> None:
        threading.Thread(target=self._serve, args=(job,), name=self._name, daemon=True).start()

    def _relieve(self, job: _Job) -> None:
        """Have a spare thread do what still waits."""
        with self._lock:
            waits = self._to_relieve > 0 and not job.future.cancelled() and job in self._jobs
            if waits:
                self._to_relieve -= 1
                self._jobs.remove(job)
        if not waits:
            return
        try:
            self._start(job)
        except RuntimeError:  # the system gives no thread: one of the others does it
            with self._lock:
                self._to_relieve += 1
                rest = self._resting.pop() if self._resting else None
                if rest is None:
                    self._jobs.appendleft(job)
            if rest is not None:
                rest.give(job)

    def _serve(self, job: _Job) -> None:
        """A thread's life."""
        rest = _Rest()
        while True:
            job.do()
            with self._lock:
                if self._jobs:
                    job = self._jobs.popleft()
                    continue
                self._resting.append(rest)
            del job  # or what it was about would live on here until the next
            job = rest.wait()


def _tell(future: "asyncio.Future[Any]", result: object, failure: BaseException | None) -> None:
    if future.cancelled():
        return
    if failure is None:
        future.set_result(result)
    else:
        future.set_exception(failure)
