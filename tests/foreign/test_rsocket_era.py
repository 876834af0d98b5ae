"""An app with Flipper's SDK of the RSocket era, on a device behind a real adb server.

The SDK is `emulated_apps.rsocket_sdk`, written from a description of the real one, with no code of the broker's.
"""

from pathlib import Path

import pytest

from emulated_apps.rsocket_line import TOO_LARGE
from emulated_apps.rsocket_sdk import RSocketSdk
from rsocket_broker.errors import ApplicationError
from rsocket_broker.identity import Proof
from tests.emulated_device import AdbServer, EmulatedDevice
from tests.foreign.phone import PATIENCE, Phone, exchange_both_ways, running
from tests.until import until

PORTS = (8089, 8088)
FIRST_START = ["exchanging", "exchanged", "connected"]
PACKAGE = "org.example.old"


def phone_on(device: EmulatedDevice) -> Phone:
    return Phone(device, RSocketSdk, PORTS, PACKAGE)


@pytest.mark.row("F-3", "F-13", "F-22")
async def test_it_enrols_and_both_sides_call(adb_server: AdbServer, tmp_path: Path) -> None:
    async with (
        running(tmp_path / "home", adb_server) as broker,
        adb_server.attached(EmulatedDevice(tmp_path / "phone")) as device,
    ):
        phone = phone_on(device)
        async with phone.sdk(keepalive=0.05, fragment=1000, largest=10_000) as sdk:
            assert isinstance(sdk, RSocketSdk)
            await sdk.connected()
            assert sdk.tls == "TLSv1.2 rs"
            await exchange_both_ways(phone, broker, sdk)
            principal = phone.session(broker).identity.principal
            assert principal.proof is Proof.ADB
            assert phone.folder.config() == {"deviceId": principal.device_id, "medium": 1}

            session = phone.session(broker)
            with pytest.raises(ApplicationError, match="Receiver explode not found"):
                await session.to_app.call("Recorder", "explode", {}, PATIENCE)

            long = "abc" * 1500  # comes in parts that all look like the last
            assert await session.to_app.call("Recorder", "reverse", {"text": long}, PATIENCE) == {"text": long[::-1]}
            with pytest.raises(ApplicationError) as caught:
                await session.to_app.call("Recorder", "reverse", {"text": long * 3}, PATIENCE)
            assert str(caught.value).startswith(TOO_LARGE)

            assert sdk.line is not None
            await until(lambda: sdk.line.keepalives > 5)
            assert sdk.line.dropped == []
            assert [one.what for one in sdk.happened if one.what != "missed"] == [
                "exchanging",
                "exchanged",
                "connected",
            ]
