"""Device ids: made once, recognised after a restart, the same for all who ask at once."""

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rsocket_broker.enrollment import devices as devices_module
from rsocket_broker.enrollment.devices import DeviceRegistry, machine_key
from rsocket_broker.state import State


def test_a_device_is_recognised_after_a_restart(tmp_path: Path) -> None:
    with State.open(tmp_path / "home" / "state.db") as state:
        made = DeviceRegistry(state).device_id("android", "serial/android-id")
    with State.open(tmp_path / "home" / "state.db") as state:
        registry = DeviceRegistry(state)
        assert registry.device_id("android", "serial/android-id") == made
        assert registry.device_id("android", "another") != made
        assert registry.device_id("tablet", "serial/android-id") != made
    assert re.fullmatch(r"android-[0-9a-f]{16}", made)


def test_many_who_ask_at_once_hear_the_same(tmp_path: Path) -> None:
    with State.open(tmp_path / "home" / "state.db") as state, ThreadPoolExecutor(8) as pool:
        registry = DeviceRegistry(state)
        assert len(set(pool.map(lambda _: registry.device_id("android", "one"), range(40)))) == 1


def test_the_hardware_key_itself_is_not_kept(tmp_path: Path) -> None:
    with State.open(tmp_path / "home" / "state.db") as state:
        DeviceRegistry(state).device_id("android", "R58M123ABC")
        rows = state.read("SELECT * FROM devices")
    assert "R58M123ABC" not in str([tuple(row) for row in rows])


def test_a_device_that_cannot_be_recognised_gets_no_id(tmp_path: Path) -> None:
    with State.open(tmp_path / "home" / "state.db") as state, pytest.raises(ValueError, match="cannot be recognised"):
        DeviceRegistry(state).device_id("android", "")


def test_this_machine_has_one_id(tmp_path: Path) -> None:
    with State.open(tmp_path / "home" / "state.db") as state:
        registry = DeviceRegistry(state)
        assert registry.host_device_id() == registry.host_device_id()
        assert registry.host_device_id().startswith("host-")


@pytest.mark.parametrize("content", [None, "", "uninitialized\n", "ü"])
def test_a_machine_without_an_id_goes_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None
) -> None:
    if content is not None:
        (tmp_path / "machine-id").write_text(content, encoding="utf-8")
    monkeypatch.setattr(devices_module, "_MACHINE_IDS", (tmp_path / "machine-id",))
    monkeypatch.setattr("platform.node", lambda: "bench-7")
    assert machine_key() == "bench-7"


def test_the_machine_id_is_used_where_there_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "machine-id").write_text("0123abcd\n")
    monkeypatch.setattr(devices_module, "_MACHINE_IDS", (tmp_path / "none", tmp_path / "machine-id"))
    assert machine_key() == "0123abcd"
