"""What a session at 1,000 calls a second feels of others: of huge messages, of floods, of a plugin that misbehaves."""

import json
import statistics
import threading
import time
from collections.abc import Iterator

from helpers import helper
from latency import AHEAD, alone, figures
from measures import Figures, Limit, Result, Scale, Workshop, result, take_turns
from servers import CONTESTANTS, Contestant

GIANT = 60_000_000
"""Bytes of a huge message: RSocket on the secure port takes 64 MiB."""
FLOOD = 10_000
"""Events a second of one app."""
MISUSE = 200
"""Calls a second of a plugin that leaks, hangs and fails in turn."""
SECONDS = 4.0
BAD = ("--plugin", str(CONTESTANTS / "bad_plugin.py"))


def beside_giants(server: Contestant, size: int, idle: float) -> Figures:
    """The longest wait of a call that was due while such a message was on its way, until it was handled."""
    samples: list[list[float]] = []
    told: list[str] = []
    with helper("giants", server, size) as maker:
        maker.tell()
        reader = threading.Thread(target=lambda: told.append(maker.line()))
        reader.start()
        while reader.is_alive():
            with helper("probe", server, 1.0) as probe:
                samples += json.loads(probe.line())
        maker.end()
    took: dict[str, list[float]] = json.loads(told[0])
    waits = {
        name: [delay * 1e3 for due, delay in samples if begin <= due <= end] for name, (begin, end) in took.items()
    }
    longest = max((max(delays, default=0.0) for delays in waits.values()), default=0.0)
    slowest = max(end - begin for begin, end in took.values())
    count = float(sum(map(len, waits.values())))
    return {"longest": longest, "times": longest / idle, "seconds": slowest, "samples": count} | {
        f"longest, {name}": max(delays, default=0.0) for name, delays in waits.items()
    }


def beside(role: str, server: Contestant, amount: float, seconds: float, usual: float) -> Figures:
    with helper(role, server, amount) as maker:
        time.sleep(AHEAD)
        found = alone(server, seconds)
        maker.end()
        return {**found, "times": found["p99"] / usual, "made": float(maker.line())}


def longest_alone(server: Contestant, seconds: float) -> Figures:
    with helper("probe", server, seconds) as probe:
        samples = json.loads(probe.line())
    return {**figures(samples), "longest": max(delay for _, delay in samples) * 1e3}


def measure(workshop: Workshop, scale: Scale) -> Iterator[Result]:
    seconds = max(0.4, SECONDS * min(1.0, scale.size * 2))
    size = scale.amount(GIANT, least=400_000)
    (server,) = workshop.contestants("broker", options=BAD)
    idle = take_turns([server], scale, lambda one: longest_alone(one, seconds))
    yield result("a bystander at 1,000 calls/s, alone", idle)
    longest = statistics.median(one["longest"] for one in idle["broker"])
    usual = statistics.median(one["p99"] for one in idle["broker"])

    name = "a bystander while messages of 60 MB come"
    found = take_turns([server], scale, lambda one: beside_giants(one, size, longest))
    yield result(name, found, (Limit("longest", 100, "ms"),), f"{size:,} bytes; times: of its longest wait alone")
    name = "a bystander while one app sends 10,000 events/s"
    found = take_turns([server], scale, lambda one: beside("flood", one, FLOOD, seconds, usual))
    yield result(name, found, (Limit("times", 2, "x its p99 alone"),), "made: events, all handled")
    name = "a bystander while a plugin leaks, hangs and fails"
    found = take_turns([server], scale, lambda one: beside("misuse", one, MISUSE, seconds, usual))
    yield result(name, found, (Limit("times", 1.1, "x its p99 alone"),), "made: calls that the plugin did not answer")
