"""The plugin on the bench, with an app that answers as Android's does, or not at all."""

import asyncio
import base64

import pytest

from rsocket_broker.plugin_api import ApplicationError, Invalid
from rsocket_broker.plugin_api.testing import running
from rsocket_broker.plugins.images import handler, plugin
from tests.plugins.images.test_pictures import LEVELS, WEBP, answer

LOAD = {"imageIds": ["1"], "attribution": ["Feed"], "startTime": 5, "endTime": 9, "source": "network"}


async def test_caches_images_and_loads() -> None:
    answers = {"listImages": LEVELS, "getImage": answer(), "getAllImageEventsInfo": {"events": [LOAD, LOAD]}}
    async with running(plugin) as bench:
        client = await bench.connect(answers=answers)
        found = await client.request("levels", {"disk": True})
        assert [one["images"] for one in found["levels"]] == [["1", "2"], []]
        image = await client.request("image", {"image_id": "1"})
        assert (image["kind"], base64.b64decode(image["data"])) == ("image/webp", WEBP)
        await client.event("events", LOAD)
        loads = await client.request("loads")
        assert [one["number"] for one in loads["loads"]] == [1, 2, 3]
        assert len((await client.request("loads", {"fetch": False, "after": 2}))["loads"]) == 1
        assert (await anext(client.stream("follow")))["source"] == "network"
        assert client.received[:2] == [("listImages", {"showDiskImages": True}), ("getImage", {"imageId": "1"})]


async def test_what_is_never_answered_is_sent_one_way() -> None:
    async with running(plugin) as bench:
        client = await bench.connect()
        await client.request("clear", {"kind": "disk"})
        await client.request("trim")
        await client.request("overlay", {"enabled": True})
        sent = [("clear", {"type": "disk"}), ("trimMemory", {}), ("enableDebugOverlay", {"enabled": True})]
        assert client.received == sent
        with pytest.raises(Invalid):
            await client.request("clear", {"kind": "everything"})


async def test_an_app_whose_fresco_is_not_ready_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(params: object) -> object:
        await asyncio.Event().wait()
        return params

    monkeypatch.setattr(handler, "PATIENCE", 0.02)
    async with running(plugin) as bench:
        client = await bench.connect(answers={"listImages": never})
        with pytest.raises(ApplicationError, match="Before it has shown its first image"):
            await client.request("levels")


async def test_an_image_that_is_not_cached_any_more_is_told_in_the_apps_words() -> None:
    gone = ApplicationError("ImageId 1 was evicted from cache")
    async with running(plugin) as bench:
        client = await bench.connect(answers={"getImage": gone})
        with pytest.raises(ApplicationError, match="evicted"):
            await client.request("image", {"image_id": "1"})


async def test_leaks_and_the_overlay_are_noted() -> None:
    async with running(plugin) as bench:
        client = await bench.connect()
        leak = {"identityHashCode": 7, "className": "X", "stacktrace": "at a"}
        await client.event("closeable_reference_leak_event", leak)
        assert [(one["number"], one["name"]) for one in (await client.request("leaks"))["leaks"]] == [(1, "X")]
        await client.event("debug_overlay_event", {"enabled": 1})
        assert client.app.state.overlay is True


@pytest.mark.row("M-7")
async def test_malformed_messages_are_refused_and_the_next_one_is_taken() -> None:
    async with running(plugin) as bench:
        client = await bench.connect(answers={"getAllImageEventsInfo": {"events": 7}})
        for name, params in [
            ("events", {"imageIds": 7}),
            ("events", []),
            ("closeable_reference_leak_event", {"className": []}),
            ("debug_overlay_event", {"enabled": "perhaps"}),
        ]:
            with pytest.raises(Invalid):
                await client.event(name, params)
        with pytest.raises(ApplicationError, match="makes no sense"):
            await client.request("loads")
        await client.event("events", LOAD)
        assert (await client.request("loads", {"fetch": False}))["newest"] == 1
