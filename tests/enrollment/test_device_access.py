"""The device of a client is the one whose container proved it, whatever adb calls it now."""

import logging
from datetime import UTC, datetime
from pathlib import Path

import pytest

from rsocket_broker.enrollment.android_device import AndroidDevice
from rsocket_broker.enrollment.device_access import DeviceAccess
from rsocket_broker.enrollment.devices import DeviceRegistry
from rsocket_broker.enrollment.mediums.adb import AdbMedium
from rsocket_broker.enrollment.mediums.base import MediumContext
from rsocket_broker.enrollment.simulator_device import SimulatorDevice
from rsocket_broker.errors import ApplicationError
from rsocket_broker.identity import Identity, Principal, Proof
from rsocket_broker.state import State
from tests.emulated_device import AdbServer, EmulatedDevice
from tests.enrollment.mediums.android import adb_medium

UDID = "0F5A0C6E-1111-2222-3333-444455556666"


def identity(device_id: str, proof: Proof) -> Identity:
    return Identity(
        Principal("org.example.shop", device_id, proof), "client", 1, "aa", 1, datetime.max.replace(tzinfo=UTC)
    )


async def test_an_android_device_is_found_again_by_its_hardware(tmp_path: Path, adb_server: AdbServer) -> None:
    with State.open(tmp_path / "state.db") as state:
        access = DeviceAccess({"adb": adb_medium(adb_server.address, state)})
        known = DeviceRegistry(state).device_id("android", "FOUND-AGAIN\nf00d0000cafe0001")
        with pytest.raises(ApplicationError, match="not attached"):
            await access(identity(known, Proof.ADB))
        other = EmulatedDevice(tmp_path / "other", serialno="OTHER", android_id="0123456789abcdef")
        mine = EmulatedDevice(tmp_path / "phone", serialno="FOUND-AGAIN")
        async with adb_server.attached(other), adb_server.attached(mine) as phone:
            device = await access(identity(known, Proof.ADB))
            assert isinstance(device, AndroidDevice)
            assert device.serial == phone.serial


async def test_a_simulator_is_known_by_its_udid() -> None:
    device = await DeviceAccess({})(identity(UDID, Proof.FILESYSTEM))
    assert isinstance(device, SimulatorDevice)
    assert device.serial == UDID


async def test_everybody_else_has_no_device(tmp_path: Path) -> None:
    access = DeviceAccess({})
    with pytest.raises(ApplicationError, match="no driver for adb"):
        await access(identity("android-1", Proof.ADB))
    for device_id, proof in [("host-1", Proof.FILESYSTEM), (UDID, Proof.OPERATOR), ("android-1", Proof.UPLOAD)]:
        with pytest.raises(ApplicationError, match=f"let in by {proof.value}"):
            await access(identity(device_id, proof))
    with State.open(tmp_path / "state.db") as state:
        context = MediumContext(
            devices=DeviceRegistry(state), log=logging.getLogger(__name__), settings={"server": "off"}
        )
        with pytest.raises(ApplicationError, match="adb is switched off"):
            await DeviceAccess({"adb": AdbMedium(context)})(identity("android-1", Proof.ADB))
