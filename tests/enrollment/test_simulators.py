"""The simulators that run, by a stand-in for Xcode."""

from pathlib import Path

import pytest

from rsocket_broker.enrollment.command import CommandFailed
from rsocket_broker.enrollment.simulators import Simulator, booted, parse
from tests.enrollment.stand_ins import XCRUN, StandIn
from tests.enrollment.workshop import UDID

RUNTIME = "com.apple.CoreSimulator.SimRuntime.iOS-17-5"
LISTED = {
    "devices": {
        RUNTIME: [
            {"udid": UDID.lower(), "name": "iPhone 15", "state": "Booted"},
            {"udid": UDID, "name": "off", "state": "Shutdown"},
            {"udid": "x", "name": "bad", "state": "Booted"},
            "nonsense",
        ],
        "other": None,
    }
}


@pytest.mark.row("F-14")
async def test_those_that_are_booted_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert await booted() is None
    xcode = StandIn.make(tmp_path / "xcode", "xcrun", XCRUN, {"listed": LISTED})
    monkeypatch.setenv("PATH", str(xcode.base))
    assert await booted() == [Simulator(UDID, "iPhone 15", "iOS 17.5")]
    xcode.tell(fails="xcrun: error: unable to find utility")
    with pytest.raises(CommandFailed, match="unable to find utility"):
        await booted()


@pytest.mark.parametrize("listed", [b"", b"[]", b"{}", b'{"devices": 1}', b"\xff", b"[" * 100_000])
def test_what_is_not_of_its_form_lists_none(listed: bytes) -> None:
    assert parse(listed) == []
