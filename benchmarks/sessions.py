"""New sessions a second, memory of idle ones, and the time from start to ready."""

import contextlib
import functools
import gc
import os
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator

from helpers import crowd
from load import client_context
from measures import Figures, Limit, Outdo, Reach, Result, Scale, Workshop, result, take_turns
from servers import Contestant, CpuMeter, broker_command, resident, running
from wire import GREETING, GREETING_ANSWER, setup

FIRST_BYTES = setup() + GREETING
ANSWERED_WITHIN = 30.0
WORKERS = 8
"""Sessions that are opened at once where it is only about having many."""

MANY = ("--max-sessions-per-identity", "10000")
"""All sessions of a benchmark have one certificate, hence one identity, for which 32 are the default limit."""
MANY_NOTE = "serve " + " ".join(MANY)


def open_session(server: Contestant, context: ssl.SSLContext, ticket: ssl.SSLSession | None = None) -> ssl.SSLSocket:
    """Connect, let each side show its certificate, send SETUP and one call, and check its answer."""
    raw = socket.create_connection(("127.0.0.1", server.port), ANSWERED_WITHIN)
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    line = context.wrap_socket(raw, server_hostname="127.0.0.1", session=ticket)
    line.sendall(FIRST_BYTES)
    answer = b""
    while len(answer) < len(GREETING_ANSWER):
        more = line.recv(4096)
        assert more, f"{server.name} closed a new session"
        answer += more
    assert answer == GREETING_ANSWER, answer
    return line


def in_threads(count: int, work: Callable[[], None]) -> None:
    """`work` in so many threads at once; the first failure is raised. OpenSSL's own work runs side by side."""
    failures: list[BaseException] = []

    def guarded() -> None:
        try:
            work()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


# --- new sessions ----------------------------------------------------------------------------------------------------

FULL_REACHES: tuple[Reach, ...] = (Outdo(1.1, "node", ("rate",)), Limit("cpu", 1.15, against="floor"))
RESUMED_REACHES: tuple[Reach, ...] = (Outdo(0.9, "node", ("rate",)),)


def new_sessions(server: Contestant, at_once: int, total: int, tickets: bool) -> Figures:
    """`total` sessions, opened and closed by `at_once` clients. With `tickets` each resumes its own last session."""
    context = client_context(server)
    turns = iter(range(total))
    resumed: list[bool] = []

    def client() -> None:
        ticket = None
        if tickets:
            with open_session(server, context) as line:
                ticket = line.session
        barrier.wait()
        while next(turns, None) is not None:
            with open_session(server, context, ticket) as line:
                resumed.append(bool(line.session_reused))
                ticket = line.session if tickets else None

    clock: list[tuple[CpuMeter, float]] = []
    barrier = threading.Barrier(at_once, lambda: clock.append((CpuMeter(server.pid), time.perf_counter())))
    in_threads(at_once, client)
    meter, started = clock[0]
    elapsed, used = time.perf_counter() - started, meter.seconds()
    assert len(resumed) == total
    return {"rate": total / elapsed, "cpu": used / total * 1e6, "resumed": sum(resumed) / total}


def measure_handshakes(workshop: Workshop, scale: Scale) -> Iterator[Result]:
    contestants = workshop.contestants("broker", "node", "floor")
    for tickets in (False, True):
        for at_once in (1, 4):
            name = f"new sessions, {at_once} at a time, tickets {'on' if tickets else 'off'}"
            if not scale.wants(name):
                continue
            total = scale.amount(300 * (2 if tickets else 1))
            job = functools.partial(new_sessions, at_once=at_once, total=total, tickets=tickets)
            rounds = take_turns(contestants, scale, job)
            reaches = RESUMED_REACHES if tickets else FULL_REACHES if at_once == 4 else ()
            yield result(name, rounds, reaches)


# --- memory ----------------------------------------------------------------------------------------------------------

SETTLES = 1.0
"""Seconds until what the handshakes needed has been given back."""
MEMORY_REACHES = (Limit("kib", 56, "KiB"), Limit("mb", 60, "MB"))


@contextlib.contextmanager
def idle_sockets(server: Contestant, count: int) -> Iterator[None]:
    """`count` sessions that do nothing, each after one call. They end with the block.

    The client keeps only the sockets, so that ten thousand sessions cost the generator nothing to speak of.
    """
    context, turns, sockets = client_context(server), iter(range(count)), []

    def client() -> None:
        while next(turns, None) is not None:
            with open_session(server, context) as line:
                sockets.append(socket.socket(fileno=os.dup(line.fileno())))

    try:
        in_threads(min(WORKERS, count), client)
        gc.collect()
        yield
    finally:
        for one in sockets:
            one.close()


def idle(server: Contestant, count: int, settle: float) -> Figures:
    """Memory of `count` sessions that do nothing."""
    base = resident(server.pid)
    with crowd(server, count):
        time.sleep(settle)
        return {"kib": (resident(server.pid) - base) / count / 1024, "mb": base / 1e6}


def measure_memory(workshop: Workshop, scale: Scale) -> Iterator[Result]:
    """Each figure from a server of its own: memory that was given back is not always seen outside."""
    for count in (1_000, 10_000) if scale.full else (1_000,):
        name = f"memory of {count:,} idle sessions, each, and base"
        if not scale.wants(name):
            continue
        amount = scale.amount(count, least=20)
        found: dict[str, list[Figures]] = {}
        for _ in range(scale.rounds):
            for contestant in ("broker", "node", "floor"):
                with workshop.fresh(contestant, MANY) as server:
                    found.setdefault(contestant, []).append(idle(server, amount, SETTLES if scale.warm else 0))
        yield result(name, found, MEMORY_REACHES, MANY_NOTE)


# --- start -----------------------------------------------------------------------------------------------------------


def start(command: list[str], env: dict[str, str] | None = None) -> Figures:
    started = time.perf_counter()
    with running(command, env):
        return {"seconds": time.perf_counter() - started}


def measure_start(workshop: Workshop, scale: Scale) -> Iterator[Result]:
    """A cold home has no authority yet: it is made on the way. A warm one has everything."""
    serve = ("serve", "--adb", "off", "--insecure-port", "0", "--secure-port", "0")
    cold, warm, python = [], [], []
    for number in range(scale.rounds):
        home = workshop.folder / f"cold-{number}"
        for found in (cold, warm):
            found.append(start(broker_command("--home", str(home), *serve)))
        python.append(start([sys.executable, "-c", "import asyncio, ssl; print()"]))
    yield result("start to ready, cold home", {"broker": cold, "bare Python": python}, (Limit("seconds", 1, "s"),))
    yield result("start to ready, warm home", {"broker": warm, "bare Python": python}, (Limit("seconds", 0.4, "s"),))
