"""Calls of a plugin's handlers over mutual TLS: JSON and opaque bytes, by window and by number of sessions."""

import asyncio
import functools
from collections.abc import Iterator

import attrs
from load import FLIPPER_CALL, JSON_CALL, Batch, Call, calls, echo
from measures import Figures, Limit, Outdo, Reach, Result, Scale, Workshop, result, take_turns
from servers import Contestant

JSON_REACHES = (Outdo(1.25, "node"), Outdo(7, "rsocket-py"), Limit("cpu", 4.5, "us"))
LATENCY_REACHES = (Limit("p50", 1.2, against="node"), Limit("p50", 0.65, against="rsocket-py"))
OPAQUE_REACHES = (Outdo(1.3, "node"), Outdo(10, "rsocket-py"))


@attrs.frozen
class Plan:
    """One measure: `total` calls on each of `sessions` connections, `window` of them in flight on each."""

    name: str
    call: Call
    window: int
    total: int
    reaches: tuple[Reach, ...]
    sessions: int = 1
    floor: bool = True


PLANS = (
    Plan("JSON call, window 64", JSON_CALL, 64, 80_000, JSON_REACHES),
    Plan("JSON call, window 512", JSON_CALL, 512, 80_000, JSON_REACHES),
    Plan("JSON call, 16 sessions, window 16 each", JSON_CALL, 16, 5_000, JSON_REACHES, sessions=16),
    Plan("JSON call, window 1", JSON_CALL, 1, 6_000, LATENCY_REACHES),
    Plan("JSON call in Flipper's words, window 64", FLIPPER_CALL, 64, 80_000, JSON_REACHES, floor=False),
    Plan("routed call, 64 opaque bytes, window 64", echo(64), 64, 80_000, OPAQUE_REACHES),
    Plan("routed call, 16 KiB, window 64", echo(16 * 1024), 64, 6_000, OPAQUE_REACHES),
)


@functools.lru_cache(maxsize=4)
def batch(call: Call, total: int) -> Batch:
    """The bytes of a batch: contestants and rounds share them."""
    return Batch(call, total)


def measure(workshop: Workshop, scale: Scale) -> Iterator[Result]:
    contestants = workshop.contestants("broker", "node", "rsocket-py", "floor")
    for plan in filter(lambda plan: scale.wants(plan.name), PLANS):

        async def job(contestant: Contestant, plan: Plan = plan) -> Figures:
            total = scale.amount(plan.total, contestant.name)
            return await calls(contestant, batch(plan.call, total), plan.window, plan.sessions)

        those = [one for one in contestants if plan.floor or one.name != "floor"]
        yield result(plan.name, take_turns(those, scale, lambda server: asyncio.run(job(server))), plan.reaches)
