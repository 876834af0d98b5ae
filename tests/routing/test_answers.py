"""The ways of a request to its answer."""

import asyncio
import functools
import sys
from typing import Any

from rsocket_broker.payload import Payload
from rsocket_broker.plugin_api import App, Plugin, method
from tests.routing.seats import ask, ready_seat


async def test_a_handler_whose_decorator_makes_a_task_of_it() -> None:
    def as_task(function: Any) -> Any:
        @functools.wraps(function)
        def wrapper(*arguments: Any) -> Any:
            return asyncio.ensure_future(function(*arguments))

        return wrapper

    class Decorated(Plugin):
        id = "decorated"

        @method("name")
        @as_task
        async def name(self, app: App) -> str:
            await asyncio.sleep(0)
            return app.id

    assert (await ask(ready_seat(Decorated()), "name")).data == b'"test1"'


async def test_a_raw_answer_costs_no_task_and_few_calls() -> None:
    class Echo(Plugin):
        id = "echo"

        @method("request")
        def request(self, app: App, payload: Payload) -> Payload:
            return payload

    answer = ready_seat(Echo()).answers.to("request")
    calls: list[str] = []

    def count(frame: Any, what: str, argument: object) -> None:
        if what == "call":
            calls.append(frame.f_code.co_name)

    payload = Payload(b"x", b"y")
    sys.setprofile(count)
    try:
        result = answer(payload)
    finally:
        sys.setprofile(None)
    assert result is payload
    assert calls == ["answer", "request"]
