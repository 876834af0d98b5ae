"""The policy as those concerned see it: an app with one right, a thief with its certificate, a page below an app."""

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rsocket_broker import client
from rsocket_broker.errors import BrokerError, Rejected
from tests.end_to_end.processes import BrokerProcess, start_broker
from tests.end_to_end.test_children import ask, opened

SETUP, OTHER = "org.example.setup", "org.example.other"

PLUGIN = """
from rsocket_broker.plugin_api import App, Plugin, method


class Wifi(Plugin):
    id = "wifi"

    @method("set")
    def set(self, app: App, params: dict) -> dict:
        return {"set": params}

    @method("reset")
    def reset(self, app: App) -> None: ...

    @method("wait", deadline=None)
    async def wait(self, app: App) -> None:
        import asyncio

        await asyncio.Event().wait()
"""

POLICY = f"""
version = 1

[[rule]]
id = "setup"
effect = "allow"
app = "{SETUP}"
method = ["wifi.set", "wifi.wait", "sessions.login"]

[[rule]]
id = "not-from-pages"
effect = "deny"
channel = "loopback"
method = "wifi.wait"
"""


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[BrokerProcess]:
    (tmp_path / "wifi_plugin.py").write_text(PLUGIN)
    (tmp_path / "home").mkdir(mode=0o700)
    (tmp_path / "home" / "policy.toml").write_text(POLICY)
    running = start_broker(tmp_path / "home", "--plugin", str(tmp_path / "wifi_plugin.py"), "--http-port", "0")
    yield running
    assert running.stop() == 0, running.log.read_text()


def app(broker: BrokerProcess, folder: Path, app_id: str = SETUP) -> Any:
    return client.connect(
        app_id=app_id,
        app="Demo",
        directory=folder,
        insecure_port=broker.insecure_port,
        secure_port=broker.secure_port,
        timeout=15,
    )


async def refused(work: Any) -> None:
    with pytest.raises(Rejected, match=r"^policy: "):
        await work


@pytest.mark.row("M-6", "M-23", "M-26")
async def test_a_stolen_certificate_does_what_its_app_may_and_one_revoke_ends_it(
    broker: BrokerProcess, tmp_path: Path
) -> None:
    async with app(broker, tmp_path / "app") as owner:
        assert await owner.request("wifi.set", {"ssid": "x"}) == {"set": {"ssid": "x"}}
    shutil.copytree(tmp_path / "app", tmp_path / "stolen")
    async with app(broker, tmp_path / "stolen") as thief:
        assert await thief.request("wifi.set", {}) == {"set": {}}
        for name in ("wifi.reset", "echo.request", "sessions.list"):
            await refused(thief.request(name, {}))
        with pytest.raises(Rejected):
            await thief.request(f"client:{OTHER}/wifi.set", {})
        waiting = asyncio.ensure_future(thief.request("wifi.wait"))
        done = await asyncio.to_thread(broker.command, "ca", "revoke", "--app", SETUP)
        assert done.returncode == 0, done.stderr
        with pytest.raises(BrokerError, match="revoked"):
            await waiting
    async with app(broker, tmp_path / "other", OTHER) as other:
        for name in ("wifi.set", "wifi.reset", "echo.request"):
            await refused(other.request(name, {}))


@pytest.mark.row("M-20", "D-8")
async def test_one_method_is_open_to_an_app_over_tls_and_shut_to_its_page_on_loopback(
    broker: BrokerProcess, tmp_path: Path
) -> None:
    async with app(broker, tmp_path / "app") as owner:
        made = await owner.request("sessions.login", {"name": "page", "kind": "web", "audience": "loopback"})
        page = await opened(broker, "http_port", made["token"], None)
        try:
            assert await ask(page, "wifi.set", {"a": 1}) == {"set": {"a": 1}}
            await refused(ask(page, "wifi.wait"))
            await refused(ask(page, "wifi.reset"))
            await refused(ask(page, "echo.request"))
            over_tls = asyncio.ensure_future(owner.request("wifi.wait"))
            assert await owner.request("wifi.set", {}) == {"set": {}}  # which came after it, and was served
            assert not over_tls.done()
            over_tls.cancel()
        finally:
            await page.close()


@pytest.mark.row("A-28", "A-52")
async def test_an_edit_of_the_file_reaches_a_live_session_within_two_seconds_and_a_bit(
    broker: BrokerProcess, tmp_path: Path
) -> None:
    async with app(broker, tmp_path / "app") as owner:
        waiting = asyncio.ensure_future(owner.request("wifi.wait"))
        assert await owner.request("wifi.set", {}) == {"set": {}}
        (broker.home / "policy.toml").write_text(POLICY.replace('"wifi.wait"', '"wifi.reset"', 1))
        async with asyncio.timeout(10):
            await refused(waiting)
        await owner.request("wifi.reset", {})
        await refused(owner.request("wifi.wait"))
