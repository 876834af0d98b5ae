"""A handler that holds up the loop is named, with its plugin, file and line."""

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rsocket_broker.observability.blocking import BlockingWatch, Place, culprit, origins_of
from tests.until import until


def test_the_innermost_line_of_a_plugin_is_to_blame() -> None:
    stack = [("/lib/asyncio/events.py", 80, "_run"), ("/p/net/handler.py", 12, "har"), ("/p/net/har.py", 7, "entries")]
    stack.append(("/lib/json/encoder.py", 3, "iterencode"))
    assert culprit(stack, {"/p/net": "Network", "/p/one.py": "One"}) == Place("Network", "/p/net/har.py", 7, "entries")
    assert culprit(stack[:1], {"/p/net": "Network"}) == Place("", "/lib/asyncio/events.py", 80, "_run")
    assert culprit([], {}) is None


def test_a_plugin_of_one_file_owns_that_file_and_a_package_its_folder(tmp_path: Path) -> None:
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").touch()
    found = origins_of({"One": str(tmp_path / "one.py"), "Two": str(tmp_path / "package" / "handler.py")})
    assert found == {str(tmp_path / "one.py"): "One", str(tmp_path / "package"): "Two"}


@pytest.mark.row("D-13")
async def test_whoever_holds_up_the_loop_is_named_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    blamed: list[str] = []
    watch = BlockingWatch({"slow": __file__}, blamed.append, clearly=0.04)
    watch.start()
    try:
        await asyncio.sleep(0.05)
        busy_handler(lambda: any("holds up" in one.message for one in caplog.records))
        await until(lambda: blamed)
    finally:
        watch.stop()
    assert blamed == ["slow"]
    told = next(one.message for one in caplog.records if "holds up" in one.message)
    assert told.startswith('the plugin "slow" holds up everybody: busy_handler')
    assert f"{__file__}:" in told
    assert any(one.levelno == logging.WARNING and one.message.startswith("it went on after") for one in caplog.records)


def busy_handler(noticed: Callable[[], bool]) -> None:
    ends = time.monotonic() + 10
    while time.monotonic() < ends:
        if noticed():
            break
        time.sleep(0.01)


class Answering(BlockingWatch):
    """One that counts what it hears of the loop."""

    answers = 0

    def _answer(self) -> None:
        super()._answer()
        self.answers += 1


async def test_a_loop_that_answers_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    watch = Answering({"slow": __file__}, lambda plugin: None, clearly=1.0)
    watch.start()
    await until(lambda: watch.answers)
    watch.stop()
    assert caplog.records == []
