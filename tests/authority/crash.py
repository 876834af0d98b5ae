"""Kills a process at one chosen step of its work: at the n-th file it opens, renames or removes, or SQL statement; or
after a time.

The work runs in a forked child, so that a step costs milliseconds and not the start of an interpreter.
"""

import contextlib
import os
import signal
import sqlite3
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from rsocket_broker.state import State

FILE_EVENTS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "os.truncate"}


def run_and_kill(work: Callable[[], bytes], folder: Path, step: int) -> tuple[bool, bytes]:
    """Run `work` in a child that is killed (SIGKILL) right before its `step`-th step inside `folder`, counted from 1.

    Returns whether it was killed, and what `work` returned if it had come to its end.
    """
    return _end(*_begin(work, folder, step))


def run_and_kill_after(work: Callable[[], bytes], seconds: float) -> tuple[bool, bytes]:
    """Like `run_and_kill`, at whatever the child does that long after its start."""
    child, reader = _begin(work, None, 0)
    timer = threading.Timer(seconds, os.kill, (child, signal.SIGKILL))
    timer.start()
    try:
        answer = _read(reader)  # the child is not reaped yet, so its number is nobody else's
    finally:
        timer.cancel()
        timer.join()
    return _ended(child), answer


def in_background(work: Callable[[], bytes]) -> Callable[[], bytes]:
    """Run `work` in a child of its own; what it returns waits for the answer (empty when the work failed)."""
    child, reader = _begin(work, None, 0)

    def wait() -> bytes:
        answer = _read(reader)
        os.waitpid(child, 0)
        return answer

    return wait


def count_steps(work: Callable[[], bytes], folder: Path) -> int:
    """How many steps `work` has inside `folder`; it is done to its end, in a child."""

    def count() -> bytes:
        steps = _arm(str(folder), 0)
        work()
        return str(steps()).encode()

    killed, answer = _end(*_begin(count, None, 0))
    assert not killed
    return int(answer)


def _begin(work: Callable[[], bytes], folder: Path | None, step: int) -> tuple[int, int]:
    """The child, and the pipe with its answer."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            if folder is not None:
                _arm(str(folder), step)
            os.write(writer, work())
            os._exit(0)
        os._exit(1)
    os.close(writer)
    return child, reader


def _end(child: int, reader: int) -> tuple[bool, bytes]:
    answer = _read(reader)
    return _ended(child), answer


def _read(reader: int) -> bytes:
    with os.fdopen(reader, "rb") as pipe:
        return pipe.read()


def _ended(child: int) -> bool:
    """Whether it was killed."""
    _, status = os.waitpid(child, 0)
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    assert killed or os.WEXITSTATUS(status) == 0, "the work failed by itself"
    return killed


def _arm(folder: str, step: int) -> Callable[[], int]:
    """Have this process killed at `step`; what it returns says how many there were so far."""
    steps = 0

    def count() -> None:
        nonlocal steps
        steps += 1
        if steps == step:
            os.kill(os.getpid(), signal.SIGKILL)

    def watch_files(event: str, arguments: tuple[object, ...]) -> None:
        # Mode changes go by descriptor, so they name no file.
        inside = any(isinstance(argument, int) or folder in str(argument) for argument in arguments[:1])
        if event in FILE_EVENTS and inside:
            count()

    connect = State._connect

    def connect_and_watch(state: State) -> sqlite3.Connection:
        connection = connect(state)
        connection.set_trace_callback(lambda _: count())
        return connection

    State._connect = connect_and_watch  # type: ignore[method-assign]
    sys.addaudithook(watch_files)
    return lambda: steps
