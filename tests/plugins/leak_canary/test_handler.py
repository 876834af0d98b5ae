"""The plugin on the bench: new leaks are told from old ones, and stop a test."""

import pytest

from rsocket_broker.plugin_api import ApplicationError, Invalid
from rsocket_broker.plugin_api.testing import running
from rsocket_broker.plugins.leak_canary import plugin
from tests.plugins.leak_canary.test_leaks import OLD, new


async def test_leaks_are_numbered_as_they_are_found() -> None:
    async with running(plugin) as bench:
        client = await bench.connect()
        await client.event("reportLeak2", {"leaks": []})
        await client.event("reportLeak2", {"leaks": [new("a")]})
        await client.event("reportLeak2", {"leaks": [new("a", "pq"), new("b")]})
        listed = await client.request("list")
        assert [(one["number"], one["title"]) for one in listed["leaks"]] == [(1, "a"), (2, "b")]
        assert listed["leaks"][0]["path"][1] == {"name": "Cart", "leaking": "Y", "retaining": "120 bytes (3 objects)"}
        assert (listed["newest"], listed["dropped"]) == (2, 0)
        brief = await client.request("list", {"after": 1, "details": False})
        assert [sorted(one) for one in brief["leaks"]] == [["number", "path", "retained", "title", "version"]]
        assert (await anext(client.stream("follow")))["title"] == "a"


async def test_the_gate_lets_known_ones_through() -> None:
    async with running(plugin) as bench:
        client = await bench.connect()
        assert await client.request("gate") == {"allowed": 0, "newest": 0}
        await client.event("reportLeak", {"leaks": [OLD]})
        with pytest.raises(ApplicationError, match=r"1 new in the app's memory: .*CartActivity"):
            await client.request("gate")
        assert await client.request("gate", {"allow": ["CartActivity"]}) == {"allowed": 1, "newest": 1}
        assert await client.request("gate", {"after": 1}) == {"allowed": 0, "newest": 1}
        with pytest.raises(ApplicationError):
            await client.request("gate", {"allow": ["", "Other"]})
        with pytest.raises(Invalid, match="settle"):
            await client.request("gate", {"settle": -1})


async def test_clear_is_sent_one_way_and_a_leak_that_comes_again_is_new() -> None:
    async with running(plugin) as bench:
        client = await bench.connect()
        await client.event("reportLeak", {"leaks": [OLD]})
        assert await client.request("clear") == {"newest": 1}
        assert client.received == [("clear", {})], "by send: an app never answers it"
        assert (await client.request("list"))["leaks"] == []
        await client.event("reportLeak", {"leaks": [OLD]})
        assert [one["number"] for one in (await client.request("list"))["leaks"]] == [2]


@pytest.mark.row("M-7")
async def test_malformed_reports_are_refused_and_the_next_one_is_taken() -> None:
    async with running(plugin) as bench:
        client = await bench.connect()
        for params in ([], {"leaks": 7}, {"leaks": [{}]}, "x"):
            with pytest.raises(Invalid):
                await client.event("reportLeak2", params)
        await client.event("reportLeak2", {"leaks": [new()]})
        assert (await client.request("list"))["newest"] == 1
