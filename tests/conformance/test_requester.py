"""The server as a requester: it is asked to call its client, and judged by what it sends and by what it makes of the
answers."""

import pytest

from tests.conformance import wire
from tests.conformance.wire import Peer

SECTION = "The server as requester"
pytestmark = pytest.mark.applies("routes", "calls")
NEXT, COMPLETE, FOLLOWS = wire.NEXT, wire.COMPLETE, wire.FOLLOWS
LAST = NEXT | COMPLETE

CALL = 1
"""The stream on which it is asked, and answers with what came back."""


def called(peer: Peer, how: str, data: bytes = b"0") -> wire.Frame:
    """Asks the server to call us; its request."""
    peer.send(wire.request(wire.REQUEST_RESPONSE, CALL, data, wire.routed(f"call.{how}")))
    asked = peer.next()
    assert asked is not None, "closed"
    assert asked.kind in wire.REQUESTS, wire.shown(asked)
    return asked


def outcome(peer: Peer) -> list[object]:
    """What the server made of it, as JSON."""
    found = wire.parsed(peer.on_stream(CALL))
    assert isinstance(found, list)
    return found


def items(values: list[object]) -> list[object]:
    return [value for value in values if not isinstance(value, dict)]


def failed(values: list[object]) -> bool:
    return bool(values) and isinstance(values[-1], dict) and "error" in values[-1]


# ---- request-response ------------------------------------------------------------------------------------------------


@pytest.mark.row("A-37")
def test_it_asks_for_a_response(peer: Peer) -> None:
    """Request Response: one frame with data and metadata; the PAYLOAD that completes is the answer."""
    asked = called(peer, "response", b'"hello"')
    assert asked.kind == wire.REQUEST_RESPONSE
    assert wire.request_data(asked) == b'"hello"'
    peer.send(wire.payload(asked.stream, b'"answer"', flags=LAST))
    assert outcome(peer) == ["answer"]


def test_an_answer_without_complete_is_complete(peer: Peer) -> None:
    """Handling the Unexpected: a PAYLOAD for a REQUEST_RESPONSE without C must be taken as if it were set."""
    asked = called(peer, "response", b"{}")
    peer.send(wire.payload(asked.stream, b'"answer"', flags=NEXT))
    assert outcome(peer) == ["answer"]


@pytest.mark.parametrize("code", [wire.APPLICATION_ERROR, wire.REJECTED, wire.CANCELED, wire.INVALID, 0x301], ids=hex)
def test_an_error_is_the_answer(peer: Peer, code: int) -> None:
    """Request Response: upon an ERROR the stream is terminated on the requester."""
    asked = called(peer, "response", b"{}")
    peer.send(wire.error(asked.stream, code))
    assert failed(outcome(peer))
    peer.is_served()


def test_the_first_answer_counts(peer: Peer) -> None:
    """Request Response: after it the stream is gone, and more is for an unknown one."""
    asked = called(peer, "response", b"{}")
    peer.send(
        wire.payload(asked.stream, b'"first"', flags=LAST),
        wire.payload(asked.stream, b'"second"', flags=LAST),
        wire.error(asked.stream, wire.APPLICATION_ERROR),
    )
    assert outcome(peer) == ["first"]
    assert peer.settle() == []


def test_an_answer_in_fragments_is_one_answer(peer: Peer) -> None:
    """Fragmentation and Reassembly: F on all frames but the last."""
    asked = called(peer, "response", b"{}")
    peer.send(
        wire.payload(asked.stream, b'"' + b"a" * 80, b"meta", follows=True),
        wire.payload(asked.stream, b"b" * 80, follows=True),
        wire.payload(asked.stream, b'c"', flags=LAST),
    )
    assert outcome(peer) == ["a" * 80 + "b" * 80 + "c"]


def test_an_answer_on_another_stream_is_ignored(peer: Peer) -> None:
    """Handling the Unexpected: PAYLOAD and ERROR on unknown streams, even ones that may come to be later."""
    asked = called(peer, "response", b"{}")
    peer.send(
        wire.payload(asked.stream + 2, b'"too early"', flags=LAST),
        wire.error(asked.stream + 4, wire.APPLICATION_ERROR),
        wire.payload(asked.stream, b'"mine"', flags=LAST),
    )
    assert outcome(peer) == ["mine"]


def test_the_clients_silence_holds_up_nobody_else(peer: Peer) -> None:
    """QoS and Prioritization: a call that is not answered yet is one stream among others."""
    asked = called(peer, "response", b"{}")
    peer.is_served()
    peer.send(wire.payload(asked.stream, b"1", flags=LAST))
    assert outcome(peer) == [1]


# ---- fire and forget -------------------------------------------------------------------------------------------------


@pytest.mark.row("A-37")
def test_it_fires_and_forgets(peer: Peer) -> None:
    """Request Fire-n-Forget: one frame; what comes back for it is for an unknown stream."""
    asked = called(peer, "fire", b'"news"')
    assert asked.kind == wire.REQUEST_FNF
    assert wire.request_data(asked) == b'"news"'
    assert outcome(peer) == []
    peer.send(wire.payload(asked.stream, b"1", flags=LAST), wire.error(asked.stream, wire.INVALID))
    assert peer.settle() == []


# ---- streams ---------------------------------------------------------------------------------------------------------


def test_it_asks_for_a_stream_with_credit(peer: Peer) -> None:
    """REQUEST_STREAM Frame: Initial Request N is more than 0."""
    asked = called(peer, "stream")
    assert asked.kind == wire.REQUEST_STREAM
    assert 0 < wire.number(asked) <= wire.MAX_31
    peer.send(wire.payload(asked.stream, flags=COMPLETE))
    assert outcome(peer) == []


@pytest.mark.row("A-37")
def test_it_takes_items_and_the_end(peer: Peer) -> None:
    """Request Stream: PAYLOAD any number of times, then COMPLETE, alone or on the last item."""
    asked = called(peer, "stream")
    peer.send(wire.payload(asked.stream, b"1"), wire.payload(asked.stream, b"2", flags=LAST))
    assert outcome(peer) == [1, 2]


def test_it_takes_an_error_after_items(peer: Peer) -> None:
    """Request Stream: or ERROR."""
    asked = called(peer, "stream")
    peer.send(wire.payload(asked.stream, b"1"), wire.error(asked.stream, wire.APPLICATION_ERROR))
    found = outcome(peer)
    assert items(found) == [1]
    assert failed(found)


def test_it_ignores_items_after_the_end(peer: Peer) -> None:
    """Request Stream: upon a COMPLETE the stream is terminated on the requester."""
    asked = called(peer, "stream")
    peer.send(
        wire.payload(asked.stream, b"1"),
        wire.payload(asked.stream, flags=COMPLETE),
        wire.payload(asked.stream, b"2"),
        wire.error(asked.stream, wire.APPLICATION_ERROR),
    )
    assert outcome(peer) == [1]
    assert peer.settle() == []


def test_it_cancels_what_it_wants_no_more_of(peer: Peer) -> None:
    """Request Stream: CANCEL from the requester; from then on the stream is terminated there, whatever was on its
    way."""
    asked = called(peer, "stream", b"2")
    peer.send(*(wire.payload(asked.stream, b"%d" % number) for number in range(3)))
    while (one := peer.on_stream(asked.stream)).kind == wire.REQUEST_N:
        pass
    assert one.kind == wire.CANCEL
    assert outcome(peer) == [0, 1]
    peer.send(wire.payload(asked.stream, b"9"), wire.payload(asked.stream, flags=COMPLETE))
    assert peer.settle() == []


def test_it_asks_for_more_as_it_takes(peer: Peer) -> None:
    """REQUEST_N Frame: a requester that goes on taking goes on asking: a source that keeps to its credit never runs
    dry."""
    asked = called(peer, "stream")
    credit = wire.number(asked)
    sent = 0
    while sent < 600:
        while credit < 1:
            one = peer.on_stream(asked.stream)
            assert one.kind == wire.REQUEST_N, wire.shown(one)
            credit += wire.number(one)
        burst = min(credit, 600 - sent)
        peer.send(*(wire.payload(asked.stream, b"%d" % (sent + number)) for number in range(burst)))
        sent, credit = sent + burst, credit - burst
    peer.send(wire.payload(asked.stream, flags=COMPLETE))
    assert outcome(peer) == list(range(600))


# ---- channels --------------------------------------------------------------------------------------------------------


def test_it_opens_a_channel_with_its_first_payload(peer: Peer) -> None:
    """REQUEST_CHANNEL Frame: with credit for the responder, and without a PAYLOAD of its own until it gets credit."""
    asked = called(peer, "channel", b"3")
    assert asked.kind == wire.REQUEST_CHANNEL
    assert wire.number(asked) > 0
    assert wire.of_stream(peer.settle(), asked.stream) == []
    peer.send(wire.cancel(asked.stream), wire.payload(asked.stream, flags=COMPLETE))


def test_it_keeps_to_the_credit_that_it_is_given(peer: Peer) -> None:
    """Reactive Streams Semantics: the requester of a channel is a producer too, and must respect demand."""
    asked = called(peer, "channel", b"9")
    peer.send(wire.request_n(asked.stream, 2))
    assert _data(peer.settle(), asked.stream) == [b"1", b"2"]
    peer.send(wire.request_n(asked.stream, 1), wire.request_n(asked.stream, 2))
    assert _data(peer.settle(), asked.stream) == [b"3", b"4", b"5"]
    peer.send(wire.payload(asked.stream, flags=COMPLETE), wire.request_n(asked.stream, 9))
    peer.settle()


def test_it_completes_its_side_of_a_channel(peer: Peer) -> None:
    """Request Channel: COMPLETE from the requester, alone or on its last payload; the responder may go on."""
    asked = called(peer, "channel", b"2")
    peer.send(wire.request_n(asked.stream, 10))
    found = wire.of_stream(peer.settle(), asked.stream)
    assert _data(found, asked.stream) == [b"1"]
    assert any(one.kind == wire.PAYLOAD and one.flags & COMPLETE for one in found)
    peer.send(wire.payload(asked.stream, b'"late"'), wire.payload(asked.stream, flags=COMPLETE))
    assert outcome(peer) == ["late"]


@pytest.mark.row("A-37")
def test_it_takes_answers_while_it_sends(peer: Peer) -> None:
    """Request Channel: both directions at once."""
    asked = called(peer, "channel", b"3")
    peer.send(wire.payload(asked.stream, b'"a"'), wire.request_n(asked.stream, 1), wire.payload(asked.stream, b'"b"'))
    peer.settle()
    peer.send(wire.request_n(asked.stream, 5), wire.payload(asked.stream, flags=COMPLETE))
    peer_said = outcome(peer)
    assert peer_said == ["a", "b"]


def test_it_ends_a_channel_that_the_responder_fails(peer: Peer) -> None:
    """Request Channel: ERROR from the responder terminates both directions."""
    asked = called(peer, "channel", b"9")
    peer.send(wire.request_n(asked.stream, 1), wire.payload(asked.stream, b'"a"'))
    peer.settle()
    peer.send(wire.error(asked.stream, wire.APPLICATION_ERROR), wire.request_n(asked.stream, 5))
    found = outcome(peer)
    assert items(found) == ["a"]
    assert failed(found)
    assert wire.of_stream(peer.settle(), asked.stream) == []


def _data(frames: list[wire.Frame], stream: int) -> list[bytes]:
    return [
        wire.payload_data(one)
        for one in wire.of_stream(frames, stream)
        if one.kind == wire.PAYLOAD and one.flags & NEXT
    ]
