"""The plugins of a device and a screen with emulated apps of both systems, which know nothing of our code."""

import asyncio
import base64
import logging

import pytest

from emulated_apps import CrashReporter, Fresco, Image, Inspector, LeakCanary, Navigation, Platform, UiDebugger, View
from emulated_apps.bench import on_bench
from emulated_apps.images import PNG
from rsocket_broker.plugin_api import ApplicationError
from rsocket_broker.plugin_api.testing import running
from rsocket_broker.plugins import crash_reporter, images, layout, leak_canary, navigation
from rsocket_broker.plugins.images import handler as images_handler
from rsocket_broker.plugins.layout import inspector
from rsocket_broker.quiet_log import BURST
from tests.routing.line import Line
from tests.until import until

BOTH = pytest.mark.parametrize("platform", list(Platform))


def screen() -> View:
    return View("Window", View("Label", text="Your cart", key="title"), View("Button", text="Pay", key="pay"))


@pytest.mark.row("A-56")
async def test_an_android_app_tells_of_a_crash() -> None:
    app_side = CrashReporter()
    async with running(crash_reporter.plugin) as bench, on_bench(bench, app_side) as app:
        app_side.report("java.lang.IllegalStateException", None, ["org.example.Cart.total(Cart.java:42)"])
        app_side.report("java.lang.IllegalStateException", "boom", ["org.example.Cart.total(Cart.java:42)"])
        await app.deliver()
        found = (await app.client.request("list"))["crashes"]
        assert [(one["name"], one["reason"]) for one in found] == [
            ("java.lang.IllegalStateException", ""),
            ("java.lang.IllegalStateException: boom", "boom"),
        ]
        assert found[0]["signature"] == found[1]["signature"]


@BOTH
async def test_an_app_of_either_system_tells_of_its_screens(platform: Platform) -> None:
    app_side = Navigation(platform, clock=lambda: 1718000000.0)
    async with running(navigation.plugin) as bench, on_bench(bench, app_side) as app:
        app_side.go("shop://cart?id=3", "org.example.Cart")
        app_side.go(None, "org.example.Pay")
        await app.deliver()
        visits = (await app.client.request("history"))["visits"]
        assert [(one["time"], one["uri"], one["screen"]) for one in visits] == [
            (1718000000000.0, "shop://cart?id=3", "org.example.Cart"),
            (1718000000000.0, "", "org.example.Pay"),
        ]


async def test_an_android_app_shows_its_image_caches(monkeypatch: pytest.MonkeyPatch) -> None:
    app_side = Fresco()
    app_side.load(Image("https://x.example/early.png", 10, 10))  # before anybody listens
    async with running(images.plugin) as bench, on_bench(bench, app_side) as app:
        number = app_side.load(Image("https://x.example/a.png", 10, 20), view=(5, 5))
        app_side.leak("CloseableBitmap", "at a.b")
        await app.deliver()
        loads = (await app.client.request("loads", {"fetch": False}))["loads"]
        assert [one["viewport"] for one in loads] == [None, [5, 5]]
        image = await app.client.request("image", {"image_id": number})
        assert (image["kind"], base64.b64decode(image["data"])) == ("image/png", PNG)
        assert len((await app.client.request("leaks"))["leaks"]) == 1
        with pytest.raises(ApplicationError, match="evicted"):
            await app.client.request("image", {"image_id": "99"})
    monkeypatch.setattr(images_handler, "PATIENCE", 0.02)
    async with running(images.plugin) as bench, on_bench(bench, Fresco(ready=False)) as app:
        with pytest.raises(ApplicationError, match="did not answer"):
            await app.client.request("levels")


@pytest.mark.parametrize("version", [1, 2])
async def test_leaks_of_both_versions_are_told_from_those_before(version: int) -> None:
    app_side = LeakCanary(version=version)
    async with running(leak_canary.plugin) as bench, on_bench(bench, app_side) as app:
        app_side.found("org.example.Cart", "org.example.Cache", "org.example.Cart")
        app_side.found("org.example.Pay", "org.example.Cache", "org.example.Pay")
        await app.deliver()
        found = (await app.client.request("list"))["leaks"]
        assert [(one["number"], one["version"]) for one in found] == [(1, version), (2, version)]
        assert {len(one["path"]) for one in found} == {2}
        assert [one["title"].removesuffix(" has leaked") for one in found] == ["org.example.Cart", "org.example.Pay"]
        await app.client.request("clear")


@BOTH
async def test_the_old_inspector_of_either_system(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspector, "MUTE", 0.05)
    app_side = Inspector(screen(), platform)
    async with running(layout.Inspector) as bench, on_bench(bench, app_side) as app:
        assert (await app.client.request("tree"))["nodes"] == 3
        (title,) = (await app.client.request("find", {"resource": "title"}))["views"]
        assert title["text"] == "Your cart"
        await app.client.request("set", {"node_id": title["id"], "path": ["View", "text"], "value": "Empty"})
        if platform is Platform.ANDROID:
            assert (await app.client.request("wait", {"text": "empty"}))["id"] == title["id"]
        assert base64.b64decode((await app.client.request("snapshot"))["png"]) == PNG


@BOTH
async def test_the_new_inspector_of_either_system(platform: Platform) -> None:
    app_side = UiDebugger(screen(), platform)
    async with running(layout.UiDebugger) as bench, on_bench(bench, app_side) as app:
        app.client.app.awake = True  # as `on_bench` has started it
        app_side.frame()
        await app.deliver()
        assert (await app.client.request("tree"))["nodes"] == 3
        (title,) = (await app.client.request("find", {"text": "your cart"}))["views"]
        await app.client.request("set", {"node_id": title["id"], "path": ["View", "alpha"], "value": 0.5})
        assert app_side.root.children[0].alpha == 0.5
        app.client.app.awake = False  # stopped meanwhile, and started anew: the old frame is no answer
        asking = asyncio.ensure_future(app.client.request("tree"))
        await until(lambda: app.client.app.awake)
        app_side.frame()
        await app.deliver()
        assert (await asking)["nodes"] == 3


@pytest.mark.row("M-7", "A-56")
async def test_malformed_events_are_logged_and_dropped_and_nothing_else_suffers(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    plugins = (crash_reporter.plugin, navigation.plugin, images.plugin, leak_canary.plugin, layout.UiDebugger)
    async with Line(*plugins) as line:
        bad = await line.app(["CrashReporter", "Navigation", "Fresco", "LeakCanary", "ui-debugger"])
        good = await line.app(["Navigation"], certificate=b"com.good|dev2|adb|7")
        for _ in range(50):
            bad.event("CrashReporter", "crash-report", {"name": []})
            bad.event("Navigation", "nav_event", {"uri": {"deep": [[[]]]}})
            bad.event("Fresco", "events", [1])
            bad.event("LeakCanary", "reportLeak2", {"leaks": [{"title": 7, "elements": []}]})
            bad.event("ui-debugger", "frameScan", {"nodes": "all of them"})
            bad.event("Navigation", "no such event", {})
        bad.event("Navigation", "nav_event", {"uri": "shop://cart"})
        good.event("Navigation", "nav_event", {"uri": "shop://pay"})
        await bad.settled()
        await good.settled()
        for client, uri in ((bad, "shop://cart"), (good, "shop://pay")):
            seat = await client.session.plugins.seat_of("Navigation")
            assert [seen.uri for _, seen in seat.app.state.items()] == [uri]
        told = [record.getMessage() for record in caplog.records if "was not handled" in record.getMessage()]
        assert 0 < len(told) <= 5 * BURST, "a few of each kind, and not all 250"
