"""One client with many lines holds no more of the broker's memory than one identity may."""

import contextlib
import json
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from rsocket_broker.protocol.limits import MIB
from rsocket_broker.transports.sockets import READ_SIZE
from tests.end_to_end import wire
from tests.end_to_end.conftest import StartBroker
from tests.end_to_end.wire import Line
from tests.foreign.sdk_folder import client_context, enrolled_folder
from tests.until import PATIENCE

SESSIONS = 32
QUOTA = 16 * MIB
PART = 4 * MIB
"""What each session begins to send: 128 MiB in all."""
ROOM_FOR = 3
MARGIN = 64 * MIB
"""What 32 sessions cost besides, and Python's allocator keeps."""


def fragment() -> bytes:
    body = wire.request(wire.REQUEST_RESPONSE, 1, bytes(PART), wire.routed("echo.request"))[9:]
    return wire.frame(1, wire.REQUEST_RESPONSE, wire.METADATA | wire.FOLLOWS, body)


def push(line: Line, data: bytes, seconds: float) -> None:
    """Sends it as far as it is taken."""
    line.socket.settimeout(seconds)
    with contextlib.suppress(OSError):
        line.socket.sendall(data)


def echo(line: Line, stream: int) -> None:
    line.send(wire.request(wire.REQUEST_RESPONSE, stream, b"alive", wire.routed("echo.request")))
    assert wire.payload_data(line.answer(stream)) == b"alive"


def held(port: int) -> int:
    """Bytes that the broker holds for its clients, as far as they count."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=PATIENCE) as page:
        lines = page.read().decode().splitlines()
    return int(sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith("rsocket_broker_held_bytes{")))


def held_once(port: int, enough: Callable[[int], bool]) -> int:
    """The same, once it is `enough`, or was not for too long."""
    patience = time.monotonic() + PATIENCE
    while not enough(size := held(port)) and time.monotonic() < patience:
        time.sleep(0.05)
    return size


@pytest.mark.row("M-15", "A-31", "A-38")
def test_unfinished_messages_of_32_sessions_stay_within_the_quota_and_another_client_notices_nothing(
    start: StartBroker, tmp_path: Path
) -> None:
    broker = start("--identity-bytes", str(QUOTA), "--http-port", "0")
    port = json.loads((broker.home / "run" / "ports.json").read_text())["http_port"]
    hog, other = (
        enrolled_folder(tmp_path / name / "sonar", f"org.example.{name}", broker.insecure_port)
        for name in ("hog", "other")
    )
    with contextlib.ExitStack() as stack:
        good = stack.enter_context(Line.open(broker.secure_port, client_context(other), timeout=PATIENCE))
        good.send(wire.setup(mime=wire.COMPOSITE))
        echo(good, 1)
        before = broker.rss()
        context = client_context(hog)
        lines = [stack.enter_context(Line.open(broker.secure_port, context)) for _ in range(SESSIONS)]
        for line in lines:
            line.send(wire.setup(mime=wire.COMPOSITE))
        data = fragment()
        for number, line in enumerate(lines):
            push(line, data, PATIENCE if number < ROOM_FOR else 0.01)
            if not number % 8:
                echo(good, 3 + 2 * number)
        expected = ROOM_FOR * PART
        assert expected <= held_once(port, lambda size: size >= expected) <= QUOTA + SESSIONS * READ_SIZE
        assert broker.rss() - before < QUOTA + SESSIONS * READ_SIZE + MARGIN
        for line in lines:
            line.socket.close()
        echo(good, 99)
        assert held_once(port, lambda size: not size) == 0
        echo(good, 101)
