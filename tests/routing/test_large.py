"""Large messages in Flipper's JSON: they mean what small ones mean, in the order in which they came."""

import asyncio
import json
import threading
from functools import partial

import pytest

from rsocket_broker.routing.aside import BRIEF, DENSE, LARGE
from tests.policy.making import policy
from tests.routing.big import LONG, MANY, Big, jobs, plugin_of
from tests.routing.line import Line, until

PATIENCE = 20.0
"""Seconds after which a test that waits for itself gives up."""


async def test_a_large_question_in_flippers_words_has_its_answer_whatever_the_order_of_its_keys() -> None:
    async with Line(Big) as line:
        app = await line.app(["big"])
        inner = {"api": "big", "method": "count", "params": {"rows": MANY}}
        for message in (
            {"id": 1, "method": "execute", "params": inner},
            {"params": dict(reversed(inner.items())), "method": "execute", "id": 3},
            {"id": 2, "params": {"params": inner["params"], "api": "big", "method": "count"}, "method": "execute"},
            {"extra": [{"params": 1}], "method": "execute", "params": inner},
        ):
            assert await app.ask_json(message) == {"success": {"rows": 8000, "sum": 31996000}}
        wrong = {**inner, "params": {"rows": [*MANY, 1]}}
        answer = await app.ask_json({"id": 1, "method": "execute", "params": wrong})
        assert answer["error"]["name"] == "Invalid"
        answer = await app.ask_json({"id": 1, "method": "execute", "params": {**inner, "method": "whole"}})
        assert answer == {"success": {"rows": MANY}}


@pytest.mark.row("A-39")
async def test_events_keep_their_order_around_a_large_one() -> None:
    async with Line(Big) as line:
        app, other = await line.app(["big"]), await line.connect(b"com.demo|dev2|adb|7")
        for n in range(200):
            app.event("big", "note", {"n": n, "text": LONG if n % 50 == 7 else ""})
            assert n % 20 or await other.json("big.count", {"rows": []}) == {"rows": 0, "sum": 0}
        await until(lambda: len(plugin_of(line).seen) == 200)
        assert plugin_of(line).seen == [(n, len(LONG) if n % 50 == 7 else 0) for n in range(200)]


async def test_a_handler_of_raw_messages_gets_the_text_and_only_json() -> None:
    async with Line(Big) as line:
        app = await line.app(["big"])
        app.event("big", "raw", {"text": LONG})
        text = json.dumps({"method": "execute", "params": {"api": "big", "method": "raw", "params": {"t": LONG}}})
        app.tell(text.replace("xx", "x\n", 1).encode())
        app.event("big", "note", {"n": 1})
        await until(lambda: (1, 0) in plugin_of(line).seen)
        assert plugin_of(line).seen == [("raw", len(json.dumps({"text": LONG}))), (1, 0)]


async def test_nothing_is_parsed_for_a_plugin_that_is_not_here_or_not_allowed() -> None:
    async with Line(Big) as line:
        app = await line.app(["big"])
        app.event("missing", "note", {"text": LONG})
        answer = await app.ask_json(
            {"id": 1, "method": "execute", "params": {"api": "no", "method": "m", "params": LONG}}
        )
        assert answer["error"]["message"] == 'There is no plugin "no" here.'
        assert jobs(line) == 0


async def test_a_session_that_ends_meanwhile_leaves_nothing_behind() -> None:
    async with Line(Big) as line:
        app = await line.app(["big"])
        app.event("big", "note", {"n": 1, "text": LONG})
        await app.connection.close()
        await asyncio.wait([asyncio.ensure_future(app.served.wait_closed())])
        other = await line.connect(b"com.demo|dev2|adb|7")
        assert await other.json("big.count", {"rows": MANY}) == {"rows": 8000, "sum": 31996000}


@pytest.mark.row("A-24")
async def test_what_is_not_allowed_any_more_once_it_was_read_never_comes() -> None:
    """Another large message is before it, and takes its time; meanwhile the policy changes."""
    async with Line(Big) as line:
        app, other = await line.app(["big"]), await line.connect(b"com.demo|dev2|adb|7")
        aside, read_on = line.endpoint.router.aside, threading.Event()
        before = asyncio.ensure_future(aside.run(lambda turn: read_on.wait(PATIENCE)))
        inner = {"api": "big", "method": "count", "params": {"rows": MANY}}
        asked = asyncio.ensure_future(app.ask_json({"id": 1, "method": "execute", "params": inner}))
        reordered = {"params": {"params": {"text": LONG, "n": 1}, "api": "big", "method": "note"}, "x": [], "id": None}
        app.tell(json.dumps({"method": "execute", **reordered}).encode())
        other.fire("big.note", json.dumps({"n": 2, "text": LONG}).encode())
        await until(lambda: aside._running == 4)
        await line.change(policy("allow big.*\ndeny big.count\ndeny big.note"))
        read_on.set()
        assert (await asked)["error"]["name"] == "Rejected"
        await before
        await until(lambda: aside._running == 0)
        app.event("big", "raw", {})
        other.fire("big.raw", LONG.encode())
        await until(lambda: len(plugin_of(line).seen) >= 2)
        assert {one[0] for one in plugin_of(line).seen} == {"raw"}  # type: ignore[index]


DENSE_PARAMS = b'{"params":{"rows":[' + b",".join([b"[]"] * DENSE) + b"]}}"
"""Shorter than what is large by its length, and more than is read in one go."""


@pytest.mark.parametrize("routed", [False, True])
async def test_what_holds_many_arrays_is_read_beside_the_loop_though_it_is_short(routed: bool) -> None:
    assert BRIEF < len(DENSE_PARAMS) < LARGE
    async with Line(Big()) as line:
        client = await (line.connect() if routed else line.app(["big"]))
        for number in (1, 2):  # the second may take a shortcut
            if routed:
                assert json.loads(await client.ask("big.whole", DENSE_PARAMS)) == json.loads(DENSE_PARAMS)
                client.fire("big.note", b'{"n":1,"text":"%b"}' % (b"[" * (DENSE + 1) + b" " * BRIEF))
            else:
                value = json.loads(DENSE_PARAMS)
                params = {"api": "big", "method": "whole", "params": value}
                assert (await client.ask_json({"id": 1, "method": "execute", "params": params}))["success"] == value
                client.event("big", "note", {"n": 1, "text": "[" * (DENSE + 1) + " " * BRIEF})
            await until(partial(has_seen, line, number))
            assert jobs(line) >= 2 * number


@pytest.mark.row("A-39")
@pytest.mark.parametrize("routed", [False, True], ids=["json", "routed"])
async def test_small_events_do_not_overtake_one_that_is_read_beside_the_loop_and_came_with_them(routed: bool) -> None:
    dense = "[" * (DENSE + 1) + " " * BRIEF
    async with Line(Big()) as line:
        client = await (line.connect() if routed else line.app(["big"]))

        def send(n: int, text: str = "") -> None:
            if routed:
                client.fire("big.note", json.dumps({"n": n, "text": text}).encode())
            else:
                client.event("big", "note", {"n": n, "text": text})

        for n in (0, 1):  # from then on there is a shortcut
            send(n)
            await until(partial(has_seen, line, n + 1))
        send(2, dense)
        for n in (3, 4, 5):
            send(n)
        await until(partial(has_seen, line, 6))
        assert plugin_of(line).seen == [(n, len(dense) if n == 2 else 0) for n in range(6)]


def has_seen(line: Line, number: int) -> bool:
    return len(plugin_of(line).seen) == number


async def test_what_is_long_and_plain_is_read_at_once() -> None:
    async with Line(Big()) as line:
        client = await line.connect()
        for _ in range(2):
            client.fire("big.note", json.dumps({"n": 1, "text": "x" * (LARGE - 1000)}).encode())
        await until(lambda: len(plugin_of(line).seen) == 2)
        assert not jobs(line)
