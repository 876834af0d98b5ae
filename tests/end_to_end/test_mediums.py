"""`enroll` with each medium at a real broker: the certificate says how it was proven, and opens a session."""

from pathlib import Path

import pytest

from rsocket_broker import client
from tests.end_to_end.processes import start_broker

DEMO = "org.example.demo"


@pytest.mark.row("F-12", "A-13")
async def test_files_and_upload_lead_to_drivers_of_their_own_and_both_to_sessions(tmp_path: Path) -> None:
    home, token = tmp_path / "home", tmp_path / "token"
    home.mkdir(mode=0o700)
    (home / "config.toml").write_text('[mediums.upload]\nuploader = "pickup"\n')
    (home / "config.toml").chmod(0o600)
    broker = start_broker(home, "--enrollment", "token", "--ws-secure-port", "off")
    try:
        made = broker.command("enrollment", "grant", "--app", DEMO, "--uses", "2", "--out", str(token))
        assert made.returncode == 0, made.stderr
        for medium, proof in (("files", "filesystem"), ("upload", "upload")):
            into = tmp_path / medium
            asked = ("enroll", DEMO, "--medium", medium, "--token-file", str(token), "--into", str(into))
            done = broker.command(*asked)
            assert done.returncode == 0, done.stderr
            connecting = client.connect(
                app_id=DEMO,
                app="Demo",
                directory=into,
                insecure_port=broker.insecure_port,
                secure_port=broker.secure_port,
                timeout=20,
            )
            async with connecting as session:
                assert await session.request("echo.request", medium) == medium
                (live,) = broker.clients()
                assert live["proof"] == proof
        used = broker.command(*asked)
        assert used.returncode == 1 and "token: the token was used already." in used.stderr
    finally:
        broker.stop()
