"""Pings and the end, without any message."""

import pytest
from websockets.client import ClientProtocol
from websockets.frames import CLOSE, PING, PONG, CloseCode, Frame
from websockets.protocol import OPEN
from websockets.server import ServerProtocol
from websockets.uri import WebSocketURI

from rsocket_broker.transports.websocket_control import MAX_REASON, Control


def control() -> Control:
    return Control(ServerProtocol(state=OPEN), 1000)


def masked(frame: Frame) -> bytes:
    return frame.serialize(mask=True)


def read(data: bytes) -> list[Frame]:
    """The frames in what a server has sent."""
    client = ClientProtocol(WebSocketURI(False, "localhost", 80, "/", ""), state=OPEN)
    client.receive_data(data)
    return [event for event in client.events_received() if isinstance(event, Frame)]


def test_of_many_pings_the_last_is_answered() -> None:
    made = control()
    for word in (b"1", b"2"):
        assert not made.control_received(masked(Frame(PING, word)))
    made.settle()
    assert made.irregular
    (pong,) = read(made.replies(pongs=True))
    assert (pong.opcode, pong.data) == (PONG, b"2")
    assert not made.irregular


def test_a_pong_is_no_work() -> None:
    made = control()
    assert not made.control_received(masked(Frame(PONG, b"")))
    made.settle()
    assert not made.irregular


def test_a_goodbye_is_answered_and_is_the_last() -> None:
    made = control()
    assert made.control_received(masked(Frame(CLOSE, b"\x03\xe8")))
    made.settle()
    assert made.finished
    assert made.over
    (close,) = read(made.replies(pongs=True))
    assert close.opcode is CLOSE
    assert made.goodbye() == b""
    assert made.ping() == b""


def test_a_malformed_goodbye_breaks_the_line() -> None:
    made = control()
    made.control_received(masked(Frame(CLOSE, b"\x03")))
    made.settle()
    assert made.broken


def test_a_failure_is_told_by_its_code() -> None:
    made = control()
    made.fail(CloseCode.MESSAGE_TOO_BIG, "too big")
    assert made.over
    (close,) = read(made.replies(pongs=False))
    assert close.data[:2] == (1009).to_bytes(2)


def test_we_may_ask_for_a_sign_of_life() -> None:
    made = control()
    (ping,) = read(made.ping())
    assert ping.opcode is PING


@pytest.mark.parametrize("reason", ["bye", "ä" * 200, ""])
def test_a_reason_is_cut_to_what_fits(reason: str) -> None:
    (close,) = read(control().goodbye(1012, reason))
    assert close.data[:2] == (1012).to_bytes(2)
    told = close.data[2:].decode()
    assert reason.startswith(told)
    assert len(reason.encode()) <= MAX_REASON or len(close.data) >= MAX_REASON
