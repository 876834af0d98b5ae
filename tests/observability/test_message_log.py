"""Messages in the log: who, what kind, how long, and never what they say."""

import logging

import pytest

from rsocket_broker.claims import Claims
from rsocket_broker.messages import MessageLine
from rsocket_broker.observability.message_log import LOOKED_INTO, MessageTap, describe
from rsocket_broker.payload import Payload
from tests.test_messages import PEER, Letters, Steward


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (b'{"id":7,"method":"getPlugins"}', "getPlugins id=7 30 bytes"),
        (
            b'{"method":"execute","params":{"api":"Network","method":"new","params":{"password":"x"}}}',
            "execute api=Network method=new 88 bytes",
        ),
        (b'{"method":"init","params":{"plugin":"A\\nB"}}', "init plugin=A\\nB 44 bytes"),
        (b'{"id":1,"success":"secret"}', "success id=1 27 bytes"),
        (b'{"error":{"message":"secret"}}', "error 30 bytes"),
        (b'{"x":1}', "message 7 bytes"),
        (b'{"method":"x","params":[1]}', "x 27 bytes"),
        (b"[1]", "no object 3 bytes"),
        (b"nothing", "no JSON 7 bytes"),
        (b"x" * (LOOKED_INTO + 1), "message 65537 bytes"),
    ],
)
def test_a_message_is_described_without_what_it_says(text: bytes, shown: str) -> None:
    assert describe(text) == shown


async def test_a_tap_passes_everything_on_and_shows_it(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    steward, letters = Steward(), Letters()
    line = MessageLine(steward)
    line.open(PEER, Claims())
    tap = MessageTap(line, "c1 demo")
    letters.receiver = tap  # type: ignore[assignment]
    tap.transport_ready(letters)
    assert (tap.peer, tap.queued) == (PEER, 0)
    tap.heard(9)
    tap.message_received(b'{"method":"refreshPlugins"}')
    assert steward.taken == [b'{"method":"refreshPlugins"}']
    line.fire_and_forget(Payload(b'{"method":"init","params":{"plugin":"A"}}', None))
    tap.ping()
    tap.writing_paused()
    tap.writing_resumed()
    tap.eof_received()
    await line.wait_closed()
    tap.abort()
    assert line.bytes_in == 9
    assert letters.events == ["ping", "pause", "resume", (1000, "the client has said goodbye"), "abort"]
    assert [record.getMessage() for record in caplog.records] == [
        "c1 demo <- connected by wss",
        "c1 demo <- refreshPlugins 27 bytes",
        "c1 demo -> init plugin=A 41 bytes",
        "c1 demo -> ping",
        "c1 demo -> paused: the peer does not take what it is sent",
        "c1 demo -> resumed",
        "c1 demo <- goodbye",
        "c1 demo -> goodbye 1000",
        "c1 demo <- the line has gone",
    ]
