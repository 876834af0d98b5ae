"""`enrollment approvals`: what an operator sees and decides, and the key as text and as a code."""

import asyncio
import contextlib
import io
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rsocket_broker.cli.approvals import show_key
from rsocket_broker.client.folder import AppFolder, Enrolled
from rsocket_broker.client.line import Address
from rsocket_broker.client.profile import AppProfile
from rsocket_broker.client.upload import upload
from rsocket_broker.errors import EnrollmentRefused
from tests.cli.conftest import say
from tests.end_to_end.processes import BrokerProcess, start_broker

DEMO = "org.example.demo"


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    home = tmp_path_factory.mktemp("approvals") / "home"
    home.mkdir(mode=0o700)
    (home / "config.toml").write_text('[mediums.upload]\nuploader = "pickup"\n')
    (home / "config.toml").chmod(0o600)
    started = start_broker(home)
    try:
        yield started
    finally:
        started.stop()


class App(threading.Thread):
    """Asks for a certificate, and waits for what becomes of it."""

    def __init__(self, broker: BrokerProcess, folder: Path) -> None:
        super().__init__()
        self.broker, self.folder = broker, folder
        self.found: Enrolled | EnrollmentRefused | None = None
        self.start()

    def run(self) -> None:
        profile = AppProfile(app_id=DEMO, app="Demo", device="Phone")
        address = Address("localhost", self.broker.insecure_port)
        try:
            self.found = asyncio.run(upload(profile, AppFolder(self.folder), address))
        except EnrollmentRefused as refusal:
            self.found = refusal

    def listed(self) -> str:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            for one in json.loads(say(self.broker, "enrollment", "approvals", "list", "--json").stdout):
                if one["state"] == "waiting":
                    return str(one["id"])
        raise AssertionError("nobody waits")


@pytest.mark.row("F-21")
def test_an_operator_lets_one_in_and_turns_one_down(broker: BrokerProcess, tmp_path: Path) -> None:
    assert "Nobody waits." in say(broker, "enrollment", "approvals", "list").stderr
    app = App(broker, tmp_path / "one")
    number = app.listed()
    table = say(broker, "enrollment", "approvals", "list").stdout
    assert number in table
    assert DEMO in table
    said = say(broker, "enrollment", "approvals", "approve", number[:16], "--show-qr")
    assert f"Approved {DEMO} from 127.0.0.1" in said.stderr, said
    assert "needs no key" in said.stderr
    app.join(30)
    assert isinstance(app.found, Enrolled)
    app = App(broker, tmp_path / "two")
    said = say(broker, "enrollment", "approvals", "refuse", app.listed())
    assert said.returncode == 0
    app.join(30)
    assert isinstance(app.found, EnrollmentRefused)
    wrong = say(broker, "enrollment", "approvals", "approve", "0" * 16)
    assert wrong.returncode == 1
    assert "No request with that fingerprint" in wrong.stderr


def test_the_key_is_a_code_on_a_terminal_and_text_in_any_case(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for out, drawn in ((io.StringIO(), False), (Terminal(), True)):
        with contextlib.redirect_stdout(out):
            show_key("a2V5")
        assert "a2V5" in out.getvalue()
        assert (out.getvalue().count("\n") > 10) is drawn
