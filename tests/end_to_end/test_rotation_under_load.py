"""A whole rotation while everybody is at work: nobody who should be served is refused for one moment."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.end_to_end.conftest import StartBroker
from tests.end_to_end.fleet import Fleet, app_id, handshakes
from tests.end_to_end.processes import BrokerProcess
from tests.foreign.conftest import run_js_app
from tests.foreign.sdk_folder import make_folder

ROOMY = ("--max-sessions", "20000", "--enrollments-per-minute", "100000", "--http-port", "0")
A_STEP = 300.0
"""Seconds that one command of a rotation may take on a busy machine."""


async def ca(broker: BrokerProcess, *arguments: str, refused: bool = False) -> str:
    """What `ca ARGUMENTS` says, on stderr when it is to be refused."""
    done = await asyncio.to_thread(broker.command, "ca", *arguments, timeout=A_STEP)
    assert done.returncode == (1 if refused else 0), (done.stdout, done.stderr)
    return done.stderr if refused else done.stdout


async def all_hold_the_new(broker: BrokerProcess) -> None:
    """Who has come back is brought along soon, and not before its first call."""
    async with asyncio.timeout(A_STEP):
        while json.loads(await ca(broker, "rotate", "status", "--json"))["left"]:
            await asyncio.sleep(0.1)


def names(kind: str, many: int) -> list[str]:
    return [f"{kind}{number}" for number in range(many)]


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.row("A-14", "A-16", "A-17", "D-1")
async def test_nobody_notices_a_rotation_but_those_who_sleep(
    start: StartBroker, tmp_path: Path, portion: Callable[[int], list[int]], node_path: Path
) -> None:
    callers = names("caller", len(portion(200)))
    visitors = names("visitor", len(portion(50)))
    asleep = names("sleeper", 10)
    broker = start(*ROOMY)
    js = make_folder(tmp_path / "js", app_id("js"))
    async with (
        Fleet(broker, tmp_path) as fleet,
        run_js_app(broker, node_path, js, app_id("js")) as foreign,
    ):
        await foreign.heard("asked", method="getPlugins")
        await fleet.sleepers(*asleep)
        await fleet.call_all_the_time(*callers)
        await fleet.visit_all_the_time(*visitors)

        await ca(broker, "rotate", "prepare")
        await fleet.more(calls=len(callers), visits=len(visitors))
        await ca(broker, "rotate", "switch")
        await fleet.more(calls=len(callers), visits=len(visitors))

        refusal = await ca(broker, "rotate", "finish", refused=True)
        assert all(app_id(name) in refusal for name in asleep), refusal
        assert not any(app_id(name) in refusal for name in [*callers, *visitors, "js"]), refusal

        await fleet.wake(*asleep)
        await fleet.more(calls=2 * len(callers), visits=len(visitors))
        await all_hold_the_new(broker)
        await ca(broker, "rotate", "finish")
        await fleet.more(calls=2 * len(callers), visits=2 * len(visitors))

        assert fleet.trouble == []
        assert {result for (_, result), count in handshakes(broker).items() if count} == {"ok"}
        assert not any(one.get("error") for one in foreign.told if one["happened"] == "transport")
    assert "steady" in await ca(broker, "rotate", "status")
    await ca(broker, "verify")
    assert "Traceback" not in broker.log.read_text()
