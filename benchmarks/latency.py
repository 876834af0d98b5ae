"""The latency of a session at 1,000 calls a second: alone, while others connect, and while others stream flat out."""

import json
import statistics
import time
from collections.abc import Iterator

from helpers import helper
from load import quantile
from measures import Figures, Limit, Result, Scale, Workshop, result, take_turns
from servers import Contestant
from sessions import MANY, MANY_NOTE

SECONDS = 3.0
"""Of one round, at full size."""
AHEAD = 0.2
"""Seconds that the probe runs before a storm breaks."""
REACHES = (Limit("p99", 5, "ms"), Limit("times", 12, "x its unloaded p99"))


def figures(samples: list[list[float]]) -> Figures:
    delays = [delay * 1e3 for _, delay in samples]
    return {"p50": quantile(delays, 0.5), "p99": quantile(delays, 0.99), "samples": float(len(delays))}


def alone(server: Contestant, seconds: float) -> Figures:
    with helper("probe", server, seconds) as probe:
        return figures(json.loads(probe.line()))


def while_connecting(server: Contestant, seconds: float, count: int) -> Figures:
    """Only calls that were due between the first connection and the last answer of the newcomers."""
    with helper("storm", server, count) as storm, helper("probe", server, seconds) as probe:
        time.sleep(AHEAD)
        storm.tell()
        begin, end = json.loads(storm.line())
        samples: list[list[float]] = json.loads(probe.line())
        storm.end()
    return {**figures([one for one in samples if begin <= one[0] <= end]), "seconds": end - begin}


def while_streaming(server: Contestant, seconds: float, count: int) -> Figures:
    with helper("streams", server, count) as streams:
        begun = time.perf_counter()
        found = alone(server, seconds)
        streams.end()
        items = int(streams.line())
        return {**found, "rate": items / (time.perf_counter() - begun)}


def measure(workshop: Workshop, scale: Scale) -> Iterator[Result]:
    seconds = max(0.4, SECONDS * min(1.0, scale.size * 2))
    connecting, streaming = scale.amount(500, least=20), scale.amount(50, least=5)
    contestants = workshop.contestants("broker", "node", "floor", options=MANY)
    found = take_turns(contestants, scale, lambda server: alone(server, seconds))
    yield result("a session at 1,000 calls/s, alone", found, note=MANY_NOTE)
    usual = {name: statistics.median(one["p99"] for one in all_) for name, all_ in found.items()}

    def compared(server: Contestant, loaded: Figures) -> Figures:
        return {**loaded, "times": loaded["p99"] / usual[server.name]}

    def stormed(server: Contestant) -> Figures:
        return compared(server, while_connecting(server, seconds, connecting))

    def streamed(server: Contestant) -> Figures:
        return compared(server, while_streaming(server, seconds, streaming))

    name = f"a session at 1,000 calls/s while {connecting} others connect"
    yield result(name, take_turns(contestants, scale, stormed), REACHES, "s: until all of them are served")
    name = f"a session at 1,000 calls/s while {streaming} stream flat out"
    streamers = [one for one in contestants if one.name != "floor"]
    yield result(name, take_turns(streamers, scale, streamed), REACHES, "rate: items of those streams")
