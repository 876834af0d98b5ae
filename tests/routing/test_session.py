"""What a session is: to plugins that ask whose device it is on, and to itself."""

import pytest

from rsocket_broker.identity import Identity
from rsocket_broker.plugin_api import App, ApplicationError, Device, Plugin, method
from tests.plugins.devices import PaperDevice
from tests.routing.line import FLIPPER_CLAIMS, Line


class Driver(Plugin):
    """Asks for the device behind a session, and whether it is about to end."""

    id = "Driver"
    needs_app = False

    @method("serial")
    async def serial(self, app: App) -> str:
        return (await app.device_access()).serial

    @method("leaving")
    def leaving(self, app: App) -> bool:
        return app.leaving


async def test_the_device_behind_a_session_is_asked_for_by_its_identity() -> None:
    asked: list[Identity] = []

    async def devices(identity: Identity) -> Device:
        asked.append(identity)
        return PaperDevice()

    async with Line(Driver) as line:
        client = await line.connect(certificate=b"com.demo|dev1|adb|1")
        with pytest.raises(ApplicationError, match="reaches no devices"):
            await client.json("Driver.serial")
        line.endpoint.router.devices = devices
        assert await client.json("Driver.serial") == "paper"
        assert asked == [client.session.identity]
        assert await client.json("Driver.leaving") is False
        line.endpoint.router.ending = True
        assert await client.json("Driver.leaving") is True


async def test_it_is_started_once_it_is_known_how_its_app_is_spoken_to() -> None:
    async with Line(Driver) as line:
        routed = await line.connect()
        assert routed.session.started
        app = await line.connect(b"com.demo|dev2|adb|256", claims=FLIPPER_CLAIMS)
        session = app.session
        assert not session.started
        app.served.abort()
        assert session.started, "nobody waits for one that has ended"
        assert repr(session) == f"<Session {session.id} {session.identity.principal} flipper>"
