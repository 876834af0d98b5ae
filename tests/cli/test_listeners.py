"""`listeners …` against a broker in its own process."""

import json
import socket
from pathlib import Path

import pytest

from tests.cli.conftest import Start, say


def refused(port: int) -> bool:
    """Whether the kernel refuses a connection; nothing else counts."""
    try:
        socket.create_connection(("127.0.0.1", port), 5).close()
    except ConnectionRefusedError:
        return True
    return False


@pytest.mark.row("M-17")
def test_a_port_is_closed_and_opened(start: Start, tmp_path: Path) -> None:
    broker = start("--http-port", "0")
    listed = say(broker, "listeners", "list")
    assert [line.split()[:2] for line in listed.stdout.splitlines()] == [
        ["NAME", "OPEN"],
        ["insecure", "yes"],
        ["secure", "yes"],
        ["ws_insecure", "yes"],
        ["ws_secure", "yes"],
        ["http", "yes"],
        ["browser", "no"],
    ]
    port = int(broker.ports["ws_secure_port"])
    closed = say(broker, "listeners", "close", "ws_secure")
    assert (closed.returncode, closed.stdout, closed.stderr) == (0, "", "The listener ws_secure is closed.\n")
    assert refused(port)
    assert json.loads((broker.home / "run" / "ports.json").read_text())["ws_secure_port"] is None
    again = say(broker, "listeners", "close", "ws_secure")
    assert "was closed already" in again.stderr
    (row,) = [
        each
        for each in json.loads(say(broker, "listeners", "list", "--json").stdout)
        if each["port"] and not each["open"]
    ]
    assert (row["name"], row["port"]) == ("ws_secure", port)
    doctor = say(broker, "doctor")
    assert "closed: ws_secure" in doctor.stdout
    opened = say(broker, "listeners", "open", "ws_secure")
    assert opened.stderr == f"The listener ws_secure is open, on port {port}.\n"
    assert not refused(port)
    assert json.loads(say(broker, "listeners", "open", "ws_secure", "--json").stdout) == {
        "name": "ws_secure",
        "open": True,
        "port": port,
        "changed": False,
    }


@pytest.mark.row("M-17")
def test_what_cannot_be_switched_is_told(start: Start) -> None:
    broker = start()
    for name, words in (("admin", "cannot be closed"), ("sec", "no listener"), ("http", "--http-port")):
        done = say(broker, "listeners", "close", name)
        assert done.returncode == 1 and words in done.stderr
    say(broker, "listeners", "close", "ws_secure")
    last = say(broker, "listeners", "close", "secure")
    assert "Warning: No client can connect any more" in last.stderr
