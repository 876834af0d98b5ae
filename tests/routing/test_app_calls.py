"""What plugins ask of an app: how long it may take, and what becomes of it when the session ends."""

import asyncio
import sys
from typing import Any

import pytest

from rsocket_broker.errors import Canceled, ConnectionClosed, Invalid
from rsocket_broker.plugin_api import Plugin
from tests.routing.line import FLIPPER_CLAIMS, Line, until


class Bare(Plugin):
    id = "P"


async def test_a_call_waits_until_the_app_has_started_up_but_not_for_ever() -> None:
    let_go = asyncio.Event()

    async def get_plugins(params: object) -> Any:
        await let_go.wait()
        return {"success": {"plugins": ["P"]}}

    answers = {"getPlugins": get_plugins, "getBackgroundPlugins": {"success": {"plugins": []}}}
    async with Line(Bare) as line:
        app = await line.connect(claims=FLIPPER_CLAIMS, answers={**answers, "P.m": {"success": 7}})
        with pytest.raises(Canceled, match=r"did not answer P\.m within 0\.01 s"):
            await app.session.to_app.call("P", "m", timeout=0.01)
        call = asyncio.ensure_future(app.session.to_app.call("P", "m"))
        await app.settled()
        assert not call.done()
        let_go.set()
        assert await call == 7


async def test_time_limits_go_by_the_clock_of_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under uvloop it has left `time.monotonic` behind after each sleep of a Mac, and every call was out of time."""

    async def slow(params: object) -> Any:
        await asyncio.sleep(0.02)
        return {"success": "done"}

    loop = asyncio.get_running_loop()
    time = loop.time
    async with Line(Bare) as line:
        app = await line.app(["P"], answers={"P.slow": slow})
        monkeypatch.setattr(loop, "time", lambda: time() + 3600)
        assert await app.session.to_app.call("P", "slow", timeout=30.0) == "done"
        monkeypatch.undo()


async def test_the_end_of_a_session_ends_its_calls() -> None:
    async def never(params: object) -> Any:
        await asyncio.sleep(60)

    async with Line(Bare) as line:
        app = await line.app(["P"], answers={"P.never": never})
        session = app.session
        call = asyncio.ensure_future(session.to_app.call("P", "never", timeout=None))
        await until(lambda: app.side.messages[-1]["method"] == "execute")
        app.served.abort()
        with pytest.raises(ConnectionClosed):
            await call
        with pytest.raises(ConnectionClosed):
            await session.to_app.call("P", "never")
        assert len(line.sessions) == 0


async def test_parameters_that_are_no_json_never_leave() -> None:
    async with Line(Bare) as line:
        app = await line.app(["P"])
        with pytest.raises(Invalid, match="The parameters cannot be written as JSON"):
            await app.session.to_app.call("P", "m", {"x": object()})


async def test_to_call_again_takes_few_steps_until_it_waits() -> None:
    async with Line(Bare) as line:
        client = await line.app(["P"], answers={"P.m": {"success": 7}})
        app = (await client.session.plugins.seat_of("P")).app
        assert await app.call("m", {"n": 1}) == 7
        steps: list[str] = []

        def count(frame: Any, what: str, argument: object) -> None:
            if what == "call" and "rsocket_broker" in frame.f_code.co_filename:
                steps.append(frame.f_code.co_name)

        sys.setprofile(count)
        try:
            call: Any = app.call("m", {"n": 2})
            call.send(None)
        finally:
            sys.setprofile(None)
        call.close()
        assert steps == ["call", "call", "question", "ask", "ask", "_flush_soon"]
        assert not client.session.to_app.waiting
