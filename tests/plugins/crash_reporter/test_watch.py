"""Looking on while a device may tell of crashes, and for a while after the app has gone."""

import asyncio
from pathlib import Path
from types import SimpleNamespace

import pytest

from rsocket_broker.plugin_api import ApplicationError, Device
from rsocket_broker.plugin_api.testing import FakeApp, fake_identity
from rsocket_broker.plugins.crash_reporter import reports, watch
from rsocket_broker.plugins.crash_reporter.crashes import Crash
from rsocket_broker.plugins.crash_reporter.watch import LogWatch, Watcher, watch_reports
from tests.plugins.crash_reporter.test_crashes import LOGGED
from tests.plugins.crash_reporter.test_reports import IPS, UDID
from tests.plugins.devices import PaperDevice, line
from tests.until import until


def app_on(device: Device | None, app_id: str = "org.example.shop", device_id: str = "d") -> FakeApp:
    app = FakeApp(1, fake_identity(app_id, device_id), {}, {})
    app.hardware = device
    return app


async def test_the_apps_crashes_are_told_of_and_nobody_elses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "AGAIN", 0.01)
    monkeypatch.setattr(watch, "QUIET", 0.02)
    device, found = PaperDevice(running=frozenset({77})), list[Crash]()
    logs = LogWatch(found.append)
    assert "not been looked for" in logs.problem
    task = asyncio.create_task(logs.run(app_on(device)))
    for text in LOGGED:
        device.lines.put_nowait(line(text, level="error", tag="AndroidRuntime"))
    await until(lambda: len(found) == 1)
    assert logs.problem == ""
    other = LOGGED[1].replace("org.example.shop", "org.example.other")
    device.lines.put_nowait(line(other, level="fatal", time=1010.0))
    device.lines.put_nowait(line("no name, another process", level="fatal", time=1020.0, pid=78))
    device.lines.put_nowait(line("no name, the app's process", level="fatal", time=1030.0))
    device.lines.put_nowait(None)  # the log ends, and is read again
    await until(lambda: len(found) == 2)
    assert found[1].name == "no name, the app's process"
    device.lines.put_nowait(line("later", level="fatal", time=1040.0))
    await until(lambda: len(found) == 3)
    task.cancel()
    await asyncio.wait([task])
    assert device.readers == 0


async def test_a_device_that_cannot_be_reached_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "AGAIN", 0.01)
    app, logs = app_on(None), LogWatch(lambda crash: None)
    task = asyncio.create_task(logs.run(app))
    await until(lambda: "cannot be reached" in logs.problem)

    class Broken(PaperDevice):
        async def pids(self, app_id: str) -> frozenset[int]:
            raise ApplicationError("no ps")

    app.hardware = Broken()
    await until(lambda: logs.problem == "")
    watcher = Watcher(task, logs)
    assert watcher.running
    watcher.leave(60.0)
    watcher.keep()
    watcher.leave(0.0)
    await until(lambda: not watcher.running)
    await watcher.stop()


async def test_reports_of_this_app_in_this_simulator_are_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[dict[str, float]] = []

    def look(folder: Path, known: dict[str, float]) -> dict[str, float]:
        fresh = reports.new_files(folder, known)
        looks.append(fresh)
        return fresh

    monkeypatch.setattr(watch, "POLL", 0.01)
    monkeypatch.setattr(watch, "reports", SimpleNamespace(**vars(reports) | {"new_files": look}))
    (tmp_path / "old.ips").write_text(IPS)
    found: list[Crash] = []
    app = app_on(None, "com.example.shop", UDID)
    task = asyncio.create_task(watch_reports(tmp_path, app, found.append, lambda: 0.0))
    await until(lambda: looks)
    (tmp_path / "1.ips").write_text(IPS.replace(UDID, UDID.replace("0F", "1F")))
    (tmp_path / "2.ips").write_text("{}")
    (tmp_path / "3.ips").write_text(IPS.replace("com.example.shop", "com.example.other"))
    (tmp_path / "4.ips").write_text(IPS)
    await until(lambda: found)
    assert [crash.name for crash in found] == ["EXC_BREAKPOINT (SIGTRAP)"]
    task.cancel()
    await asyncio.wait([task])
