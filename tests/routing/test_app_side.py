"""The two ways to talk to an app, where they differ from what the endpoint's tests see of them."""

import asyncio
import json
from typing import Any

import pytest

from rsocket_broker.errors import ApplicationError, Canceled, Invalid
from rsocket_broker.payload import Payload
from rsocket_broker.plugin_api import Plugin
from rsocket_broker.routing import app_side as module
from rsocket_broker.routing.app_side import RoutedSide, Sides
from tests.routing.line import FLIPPER_CLAIMS, Line, until


class Bare(Plugin):
    id = "P"


async def test_get_plugins_is_tried_again_with_growing_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LIST_TIMEOUT", 0.02)
    monkeypatch.setattr(module, "LIST_PAUSES", (0.001, 0.002, 0.004))
    tries = 0

    async def get_plugins(params: object) -> Any:
        nonlocal tries
        tries += 1
        if tries < 4:
            await asyncio.sleep(60)
        return {"success": {"plugins": ["P"]}}

    async with Line(Bare) as line:
        app = await line.connect(claims={**FLIPPER_CLAIMS, "sdk_version": 1}, answers={"getPlugins": get_plugins})
        await until(lambda: app.session.announced == ["P"])
        assert tries == 4


async def test_the_whole_start_up_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "START_LIMIT", 0.05)

    async def never(params: object) -> Any:
        await asyncio.sleep(60)

    async with Line(Bare) as line:
        app = await line.connect(claims=FLIPPER_CLAIMS, answers={"getPlugins": never})
        assert await app.session.to_app.call("any", "thing", [1]) == [1]  # by route


async def test_an_app_too_old_to_be_asked_is_taken_to_support_everything() -> None:
    async with Line(Bare) as line:
        app = await line.app(["P"], claims={"sdk_version": 1})
        assert await app.session.to_app.supports("P", "anything") is True
        routed = await line.connect()
        assert await routed.session.to_app.supports("P", "anything") is True


async def test_who_reads_no_routes_is_sent_none() -> None:
    async with Line(Bare) as line:
        client = await line.connect(metadata_mime="text/plain")
        side = RoutedSide(client.session.connection)
        assert not side.possible
        with pytest.raises(ApplicationError, match=r"cannot be sent P\.m: its SETUP does not declare"):
            side.question("P", "m", {})
        assert client.side.routed == []


async def test_a_routed_call_ends_in_time() -> None:
    async with Line(Bare) as line:
        client = await line.connect()

        async def never(payload: Payload) -> Payload:
            await asyncio.sleep(60)
            return payload

        client.side.request_response = never  # type: ignore[method-assign]
        with pytest.raises(Canceled, match=r"did not answer P\.m within 0\.01 s"):
            await client.session.to_app.call("P", "m", timeout=0.01)


def test_an_empty_answer_is_null_and_nonsense_an_error() -> None:
    assert RoutedSide.value(b"") is None
    assert RoutedSide.value(b"0") == 0
    with pytest.raises(ApplicationError, match="The app's answer is not JSON"):
        RoutedSide.value(b"{")


@pytest.mark.parametrize("names", [["P" * 100] * 3000, [[]] * 100_000])
async def test_a_list_longer_than_any_is_not_looked_into(names: list[object], monkeypatch: pytest.MonkeyPatch) -> None:
    async def get_plugins(params: object) -> Any:
        return {"success": {"plugins": names}}

    monkeypatch.setattr(module.flipper, "answer", lambda data: pytest.fail("it was parsed"))
    async with Line(Bare) as line:
        app = await line.connect(claims=FLIPPER_CLAIMS, answers={"getPlugins": get_plugins})
        assert await app.session.to_app.call("any", "thing", [1]) == [1]  # by route
        assert app.session.announced == []


@pytest.mark.parametrize("params", [None, {"n": None}, [1, "null"], {1: 2}, "\ud83d", 2**70])
async def test_a_question_says_what_it_is_given(params: object) -> None:
    async with Line(Bare) as line:
        app = await line.app(["P"])
        side = app.session._sides.flipper
        assert side is not None
        data, metadata = side.question("P", "m", params)
        asked = json.loads(data)["params"]["params"]
        assert asked == json.loads(json.dumps({} if params is None else params)) and metadata is None
        with pytest.raises(Invalid, match="JSON"):
            side.question("P", "m", {"n": float("nan")})


async def test_flippers_json_is_in_use_until_an_app_does_not_answer_in_it() -> None:
    async with Line(Bare) as line:
        connection = (await line.connect()).session.connection
        routed = Sides(connection, None)
        assert routed.are_known and routed.now is routed.routed and routed.spoken is None
        await routed.known()
        sides = Sides(connection, 4)
        assert not sides.are_known and sides.now is sides.spoken is sides.flipper
        with pytest.raises(Canceled, match=r"did not answer P\.m within 0\.001 s"):
            await sides.wait_known("P", "m", 0.001)
        sides.now = sides.routed
        sides.settle()
        await sides.wait_known("P", "m", None)
        assert sides.spoken is None
