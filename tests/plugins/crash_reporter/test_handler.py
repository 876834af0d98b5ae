"""The plugin on the bench: crashes from all their sources, each once."""

import asyncio
from collections import Counter
from typing import ClassVar

import pytest

from rsocket_broker.plugin_api import ApplicationError, Canceled, Invalid
from rsocket_broker.plugin_api.testing import fake_identity, running
from rsocket_broker.plugins.crash_reporter import CrashReporter, plugin
from rsocket_broker.plugins.crash_reporter import handler as module
from rsocket_broker.plugins.crash_reporter.crashes import Crash
from tests.plugins.crash_reporter.test_crashes import LOGGED, STACK
from tests.plugins.devices import PaperDevice, line
from tests.until import until

REPORT = {"name": "java.lang.IllegalStateException: boom", "reason": "boom", "callstack": STACK}
SHOP = fake_identity("org.example.shop")


async def test_a_crash_is_listed_waited_for_and_followed() -> None:
    async with running(plugin) as bench:
        client = await bench.connect()
        assert await client.request("none") == {"newest": 0}
        waiting = asyncio.ensure_future(client.request("wait", {"timeout": 5}))
        await asyncio.sleep(0)
        await client.event("crash-report", REPORT)
        found = await waiting
        assert (found["number"], found["name"], found["source"]) == (1, REPORT["name"], "app")
        listed = await client.request("list")
        assert listed == {"crashes": [found], "newest": 1, "dropped": 0, "problem": ""}
        assert (await client.request("list", {"after": 1}))["crashes"] == []
        assert await anext(client.stream("follow")) == found
        with pytest.raises(ApplicationError, match=r"1 crash: java.lang.IllegalStateException: boom \(boom\)"):
            await client.request("none", {"settle": 1})
        assert await client.request("none", {"after": 1}) == {"newest": 1}
        with pytest.raises(Canceled, match="no crash within"):
            await client.request("wait", {"after": 1, "timeout": 0.01})
        with pytest.raises(Invalid, match="settle"):
            await client.request("none", {"settle": 1000})


@pytest.mark.row("A-56")
async def test_an_error_of_the_sdk_is_a_crash_with_its_stack() -> None:
    async with running(plugin) as bench:
        client = await bench.connect()
        await bench.app_error(client, "boom", STACK)
        (crash,) = (await client.request("list"))["crashes"]
        assert (crash["name"], crash["reason"], crash["callstack"], crash["source"]) == ("boom", "boom", STACK, "sdk")


async def test_the_devices_log_tells_too_and_two_who_tell_of_one_crash_count_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_now", lambda: 1000_000.0)
    device = PaperDevice()
    async with running(plugin) as bench:
        client = await bench.connect(identity=SHOP, hardware=device, os="Android")
        await client.event("crash-report", REPORT)
        for text in LOGGED:
            device.lines.put_nowait(line(text, level="error", tag="AndroidRuntime"))
        device.lines.put_nowait(line("Process: org.example.shop, PID: 9", level="fatal", time=2000.0))
        device.lines.put_nowait(line("Process: org.example.shop, PID: 9", level="fatal", time=3000.0))
        second = await client.request("wait", {"after": 1, "timeout": 5})
        assert (second["source"], second["time"], second["number"]) == ("logcat", 2000_000.0, 2)
        await bench.disconnect(client)  # a crash takes the session with it: the log is read on
        await until(lambda: device.readers == 1)
        device.lines.put_nowait(line("Process: org.example.shop, PID: 9", level="fatal", time=4000.0))
        again = await bench.connect(identity=SHOP, hardware=device, os="Android")
        fourth = await again.request("wait", {"after": 3, "timeout": 5})
        assert fourth["time"] == 4000_000.0
        assert device.readers == 1
        watcher = bench.plugin._logs[SHOP.principal].watcher  # type: ignore[attr-defined]
        await watcher.stop()


async def test_the_log_is_left_alone_when_settings_say_so() -> None:
    device = PaperDevice()
    async with running(CrashReporter, {"logcat": False}) as bench:
        await bench.connect(hardware=device, os="Android")
        await asyncio.sleep(0)
        assert device.readers == 0


@pytest.mark.row("M-7")
async def test_malformed_reports_are_refused_and_the_next_one_is_taken() -> None:
    async with running(plugin) as bench:
        client = await bench.connect()
        for params in ({"name": 7, "callstack": []}, [], "x", {"date": "now"}):
            with pytest.raises(Invalid):
                await client.event("crash-report", params)
        await client.event("crash-report", {"name": None})
        assert (await client.request("list"))["newest"] == 1


@pytest.mark.row("M-7")
async def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CLIENTS", 3)
    async with running(plugin) as bench:
        client = await bench.connect()
        for number in range(100):
            await client.event("crash-report", {"name": f"E{number}", "callstack": "x" * 100_000})
        listed = await client.request("list")
        assert listed["newest"] == 100
        assert sum(len(crash["callstack"]) for crash in listed["crashes"]) <= module.KEPT_BYTES
        for number in range(10):
            other = await bench.connect(identity=fake_identity(f"org.example.a{number}"))
            await other.event("crash-report", {"name": "x"})
            await bench.disconnect(other)
        assert len(bench.plugin._logs) <= 5  # type: ignore[attr-defined]


async def test_another_client_can_be_asked_about() -> None:
    async with running(plugin) as bench:
        one, two = await bench.connect(), await bench.connect(identity=SHOP)
        await two.event("crash-report", REPORT)
        assert (await one.request("list", {"client": two.app.id}))["newest"] == 1
        assert (await one.request("list"))["newest"] == 0


class CountedCrash(Crash):
    """Tells how often its signature was made."""

    made: ClassVar[Counter[str]] = Counter()

    @property
    def signature(self) -> str:
        self.made[self.reason] += 1
        return super().signature


@pytest.mark.row("M-7")
def test_a_crash_is_read_once_however_many_there_are_to_compare_it_with() -> None:
    CountedCrash.made.clear()
    log = module.CrashLog()
    for number in range(50):
        log.add(CountedCrash(0.0, f"{number}", f"{number}", STACK * (number % 2), ("app", "sdk")[number % 2]))
    assert len(log.history) == 50
    assert set(CountedCrash.made.values()) == {1}
    assert [module.shown(number, told)["reason"] for number, told in log.history.items(49)] == ["49"]
    assert set(CountedCrash.made.values()) == {1}
