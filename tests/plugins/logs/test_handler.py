"""The plugin on the bench, with a device of paper."""

import asyncio

import pytest

from rsocket_broker.plugin_api import ApplicationError, Canceled, Invalid
from rsocket_broker.plugin_api.testing import running
from rsocket_broker.plugins.logs import handler, plugin
from tests.plugins.devices import PaperDevice, line
from tests.until import until


async def test_an_apps_log_is_followed() -> None:
    device = PaperDevice(line("not ours", pid=1), line("ours", level="error"), running=frozenset({77}))
    async with running(plugin) as bench:
        client = await bench.connect(hardware=device)
        stream = client.stream("follow", {"level": "error"})
        first = await anext(stream)
        assert first == {"time": 1000.0, "pid": 77, "tid": 77, "level": "error", "tag": "App", "message": "ours"}
        device.lines.put_nowait(line("too mild"))
        device.lines.put_nowait(line("again", level="fatal"))
        assert (await anext(stream))["message"] == "again"
        await stream.aclose()
        await until(lambda: device.readers == 0)


async def test_what_there_is_is_read_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handler, "QUIET", 0.02)
    device = PaperDevice(*(line(str(number)) for number in range(50)), running=frozenset({77}))
    async with running(plugin) as bench:
        client = await bench.connect(hardware=device)
        found = await client.request("recent", {"limit": 3})
        assert [one["message"] for one in found["lines"]] == ["47", "48", "49"]
        assert device.readers == 0
        monkeypatch.setattr(handler, "FIRST", 0.02)
        assert await client.request("recent") == {"lines": []}
        for limit in (0, 5001):
            with pytest.raises(Invalid, match="limit"):
                await client.request("recent", {"limit": limit})


async def test_the_whole_devices_log_is_given_out_by_the_operators_leave_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handler, "QUIET", 0.02)
    device = PaperDevice(line("of another app", pid=1))
    async with running(plugin) as bench:
        client = await bench.connect(hardware=device)
        with pytest.raises(ApplicationError, match=r"unless \[plugins.DeviceLogs\] has whole_device = true"):
            await client.request("recent", {"whole_device": True})
    async with running(plugin, {"whole_device": True}) as bench:
        client = await bench.connect(hardware=device)
        found = await client.request("recent", {"whole_device": True})
        assert [one["message"] for one in found["lines"]] == ["of another app"]


async def test_waiting_for_an_entry() -> None:
    device = PaperDevice(running=frozenset({77}))
    async with running(plugin) as bench:
        client = await bench.connect(hardware=device)
        waiting = asyncio.ensure_future(client.request("wait", {"contains": "ready", "timeout": 5}))
        device.lines.put_nowait(line("getting there"))
        device.lines.put_nowait(line("it is ready now"))
        assert (await waiting)["message"] == "it is ready now"
        with pytest.raises(Canceled, match="said nothing of 'ready'"):
            await client.request("wait", {"contains": "ready", "timeout": 0.02})
        device.lines.put_nowait(None)
        with pytest.raises(ApplicationError, match="log has ended"):
            await client.request("wait", {"contains": "ready", "timeout": 5})
        with pytest.raises(Invalid, match="timeout"):
            await client.request("wait", {"contains": "ready", "timeout": 1e9})


async def test_a_client_without_a_device_and_a_wrong_question_are_told() -> None:
    async with running(plugin) as bench:
        client = await bench.connect()
        with pytest.raises(ApplicationError, match="cannot be reached"):
            await client.request("recent")
        with pytest.raises(ApplicationError, match="cannot be reached"):
            await anext(client.stream("follow"))
        with pytest.raises(Invalid, match="no level 'loud'"):
            await anext(client.stream("follow", {"level": "loud"}))
