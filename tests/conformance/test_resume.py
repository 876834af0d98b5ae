"""Resuming Operation: positions, RESUME, RESUME_OK, and what comes again."""

import itertools
import os
import struct

import pytest

from tests.conformance import wire
from tests.conformance.targets import Target
from tests.conformance.wire import Frame, Peer

SECTION = "Resuming operation"
resumed = pytest.mark.applies("routes", "resume")
_numbers = itertools.count()
_POSITIONED = range(wire.REQUEST_RESPONSE, wire.ERROR + 1)


def new_token() -> bytes:
    return b"token %d " % next(_numbers) + os.urandom(8)


class Client:
    """A client that counts: what it sends and what it receives have positions, and a lost line is not the end."""

    def __init__(self, target: Target, *, leases: bool = False, token: bytes = b"", **changes: object) -> None:
        self.target = target
        self.leases = leases
        self.token = token or new_token()
        self.sent = 0
        self.received = 0
        self.peer = target.join(token=self.token, leases=leases, **changes)

    def send(self, *frames: bytes) -> None:
        self.peer.send(*frames)
        for one in frames:
            if one[7] >> 2 in _POSITIONED and one[3:7] != bytes(4):
                self.sent += len(one) - 3

    def count(self, one: Frame) -> Frame:
        if one.kind in _POSITIONED and one.stream:
            self.received += 6 + len(one.body)
        return one

    def next(self) -> Frame:
        one = self.peer.next()
        assert one is not None, "the connection was closed"
        return self.count(one)

    def item(self, stream: int) -> bytes:
        while (one := self.next()).stream != stream:
            pass
        return wire.payload_data(one)

    def position(self) -> int:
        """What the server says that it has received, in answer to a KEEPALIVE. Other frames are counted."""
        self.peer.send(wire.keepalive(b"where?"))
        while (one := self.next()).kind != wire.KEEPALIVE or one.flags & wire.RESPOND:
            pass
        return int(struct.unpack(">Q", one.body[:8])[0])

    def lose(self) -> None:
        self.peer.close()

    def ask(self, *, received: int | None = None, available: int = 0, token: bytes | None = None) -> None:
        """A new line, and RESUME on it."""
        self.peer = self.target.stranger(leases=self.leases)
        at = self.received if received is None else received
        self.peer.send(wire.resume(token or self.token, at, available))

    def resume(self, *, received: int | None = None) -> int:
        """Resumes; the position in RESUME_OK. What the server sends again is counted from there."""
        self.ask(received=received)
        ok = self.peer.next()
        assert ok is not None, "closed instead of resumed"
        assert (ok.kind, ok.stream) == (wire.RESUME_OK, 0), wire.shown(ok)
        if received is not None:
            self.received = received
        return int(struct.unpack(">Q", ok.body)[0])


@pytest.fixture
def client(target: Target) -> Client:
    return Client(target)


# ---- servers that do not resume --------------------------------------------------------------------------------------


@pytest.mark.lacks("resume")
def test_a_server_that_cannot_resume_rejects_such_a_setup(target: Target) -> None:
    """SETUP Frame: a server that does not support resuming must reject a SETUP with the R flag with
    ERROR[REJECTED_SETUP]."""
    assert wire.code(target.join(token=new_token()).refusal()) == wire.REJECTED_SETUP


@pytest.mark.lacks("resume")
def test_a_server_that_cannot_resume_rejects_resume(stranger: Peer) -> None:
    """Resume Operation: and RESUME with ERROR[REJECTED_RESUME]."""
    stranger.send(wire.resume(new_token(), 0, 0))
    assert wire.code(stranger.refusal()) == wire.REJECTED_RESUME


# ---- positions -------------------------------------------------------------------------------------------------------


@resumed
def test_a_setup_with_a_token_is_taken(client: Client) -> None:
    """SETUP Frame: the R flag, a length of 16 bits and the token stand before the MIME types."""
    client.send(wire.echo(1))
    assert client.item(1) == b"ping"


@resumed
@pytest.mark.parametrize("length", [16, 36, 255])
def test_a_token_is_opaque(target: Target, length: int) -> None:
    """Identification Token Handling: the server should not assume how a token was made: any bytes will do."""
    client = Client(target, token=bytes(range(256))[: length - 8] + os.urandom(8))
    assert client.position() == 0
    client.lose()
    assert client.resume() == 0


@resumed
def test_positions_begin_at_0(client: Client) -> None:
    """Implied Position: SETUP has none, nor has KEEPALIVE."""
    assert client.position() == 0
    assert client.position() == 0


@resumed
def test_a_position_counts_bytes_of_frames_without_their_length_field(client: Client) -> None:
    """Implied Position, Keepalive Position Field: the answer to a KEEPALIVE says what the server has received."""
    client.send(wire.echo(1, b"some bytes"))
    client.item(1)
    assert client.position() == client.sent == len(wire.echo(1, b"some bytes")) - 3


@resumed
def test_every_frame_of_a_stream_has_a_position(client: Client) -> None:
    """Implied Position: REQUEST_RESPONSE, REQUEST_FNF, REQUEST_STREAM, REQUEST_CHANNEL, REQUEST_N, CANCEL, ERROR and
    PAYLOAD are counted."""
    client.send(
        wire.echo(1),
        wire.request(wire.REQUEST_FNF, 3, b"x", wire.routed("echo.fire")),
        wire.request(wire.REQUEST_STREAM, 5, b"", wire.routed("probe.flow"), n=1),
        wire.request(wire.REQUEST_CHANNEL, 7, b"x", wire.routed("echo.channel"), n=1),
        wire.request_n(5, 1),
        wire.payload(7, b"more"),
        wire.cancel(5),
        wire.error(7, wire.APPLICATION_ERROR),
    )
    assert client.position() == client.sent


@resumed
def test_other_frames_have_no_position(client: Client) -> None:
    """Implied Position: frame types outside of those have none: METADATA_PUSH and KEEPALIVE among them."""
    client.peer.send(
        wire.frame(0, wire.METADATA_PUSH, wire.METADATA, b"push"),
        wire.frame(0, wire.KEEPALIVE, 0, bytes(8)),
    )
    assert client.position() == 0


@resumed
def test_fragments_count_as_they_are_sent(client: Client) -> None:
    """Implied Position: lengths are those after fragmentation."""
    metadata = wire.routed("echo.request")
    first = len(metadata).to_bytes(3, "big") + metadata + b"a" * 80
    client.send(
        wire.frame(1, wire.REQUEST_RESPONSE, wire.METADATA | wire.FOLLOWS, first),
        wire.payload(1, b"b" * 80, follows=True),
        wire.payload(1, b"c"),
    )
    client.item(1)
    assert client.position() == client.sent


@resumed
def test_what_is_ignored_counts_too(client: Client) -> None:
    """Implied Position: a position is a matter of the frame, not of what is made of it."""
    client.send(wire.cancel(77), wire.payload(9, b"what for?"), wire.request_n(11, 1), wire.error(13, wire.CANCELED))
    assert client.position() == client.sent


# ---- resuming --------------------------------------------------------------------------------------------------------


@resumed
@pytest.mark.row("A-41")
def test_a_session_is_resumed(client: Client) -> None:
    """Resume Operation: RESUME is answered with RESUME_OK, which says what the server has received; then requests go
    on as if nothing had been."""
    client.send(wire.echo(1, b"before"))
    assert client.item(1) == b"before"
    client.lose()
    assert client.resume() == client.sent
    client.send(wire.echo(3, b"after"))
    assert client.item(3) == b"after"


@resumed
def test_a_session_is_resumed_many_times(client: Client) -> None:
    """Resume Operation: a token is good for the lifetime of the session, all its resumptions included."""
    for stream in range(1, 21, 2):
        client.send(wire.echo(stream, b"%d" % stream))
        assert client.item(stream) == b"%d" % stream
        client.lose()
        assert client.resume() == client.sent


@resumed
@pytest.mark.row("A-41")
def test_an_answer_that_came_in_between_is_sent_after_it(client: Client) -> None:
    """Resume Operation: what was answered while the client was away is sent when it is back."""
    client.send(wire.request(wire.REQUEST_RESPONSE, 1, b"80", wire.routed("echo.slow")))
    assert client.position() == client.sent
    client.lose()
    client.peer = client.target.join()
    client.peer.send(wire.request(wire.REQUEST_RESPONSE, 1, b"200", wire.routed("echo.slow")))
    client.peer.on_stream(1)
    client.resume()
    assert client.item(1) == b"80"


@resumed
def test_a_request_goes_on_while_the_client_is_away(client: Client) -> None:
    """Stream Sequences and Lifetimes: with resumption, a stream lives as long as the session."""
    client.send(wire.request(wire.REQUEST_RESPONSE, 1, b"150", wire.routed("echo.slow")))
    assert client.position() == client.sent
    client.lose()
    client.resume()
    assert client.item(1) == b"150"


@resumed
@pytest.mark.row("A-41")
def test_frames_that_were_lost_are_sent_again(client: Client) -> None:
    """Resume Operation: the server sends everything again from the client's Last Received Server Position on: not
    less, and not more."""
    client.send(wire.request(wire.REQUEST_STREAM, 1, b"", wire.routed("probe.flow"), n=6))
    assert [client.item(1) for _ in range(2)] == [b"0", b"1"]
    two = client.received
    assert [client.item(1) for _ in range(4)] == [b"2", b"3", b"4", b"5"]
    client.lose()
    client.resume(received=two)
    assert [client.item(1) for _ in range(4)] == [b"2", b"3", b"4", b"5"]
    client.send(wire.request_n(1, 1))
    assert client.item(1) == b"6"


@resumed
@pytest.mark.row("A-41")
def test_a_frame_that_was_cut_is_not_received(client: Client) -> None:
    """Implied Position: partial frames are not delivered: RESUME_OK says where the client is to go on."""
    client.send(wire.echo(3))
    client.item(3)
    whole = client.sent
    half = wire.echo(1, b"in two parts")
    client.peer.send(half[:20])
    client.lose()
    assert client.resume() == whole
    client.send(half)
    assert client.item(1) == b"in two parts"


@resumed
def test_credit_outlives_the_line(client: Client) -> None:
    """Resume Operation: the state of streams is kept: credit from before is used, and more is added to it."""
    client.send(wire.request(wire.REQUEST_STREAM, 1, b"", wire.routed("probe.flow"), n=2))
    assert [client.item(1) for _ in range(2)] == [b"0", b"1"]
    client.lose()
    client.resume()
    client.send(wire.request_n(1, 2))
    assert [client.item(1) for _ in range(2)] == [b"2", b"3"]
    assert wire.of_stream(client.peer.settle(), 1) == []


@resumed
def test_a_channel_outlives_the_line(client: Client) -> None:
    """Resume Operation: both directions of it."""
    client.send(wire.request(wire.REQUEST_CHANNEL, 1, b"one", wire.routed("echo.channel"), n=9))
    while client.next().kind != wire.PAYLOAD:
        pass
    client.position()
    client.lose()
    client.resume()
    client.send(wire.payload(1, b"two", flags=wire.NEXT | wire.COMPLETE))
    while (one := client.next()).kind != wire.PAYLOAD:
        pass
    assert wire.payload_data(one) == b"two"


@resumed
def test_a_cancel_after_resumption_ends_the_stream(client: Client) -> None:
    """Resume Operation: a stream that was kept can be cancelled like any other."""
    client.send(wire.request(wire.REQUEST_STREAM, 1, b"", wire.routed("probe.flow"), n=1))
    client.item(1)
    before = client.target.seen("flows_cancelled")
    client.lose()
    client.resume()
    client.send(wire.cancel(1))
    assert wire.until(lambda: client.target.seen("flows_cancelled") > before, client.peer.wait / 2)


@resumed
def test_a_session_may_be_resumed_before_the_server_has_noticed(client: Client) -> None:
    """Resume Operation: it is always the client that starts it; the old line may look alive to the server."""
    client.send(wire.echo(1))
    client.item(1)
    old = client.peer
    assert client.resume() == client.sent
    client.send(wire.echo(3))
    assert client.item(3) == b"ping"
    assert old.ends() is not None


@resumed
def test_frames_may_follow_resume_ok_at_once(client: Client) -> None:
    """Resume Operation: next to RESUME_OK comes what was missed, then whatever is new."""
    client.send(wire.request(wire.REQUEST_RESPONSE, 1, b"30", wire.routed("echo.slow")))
    client.position()
    client.lose()
    client.resume()
    client.send(wire.echo(3), wire.echo(5))
    found = {one.stream for one in (client.next() for _ in range(3))}
    assert found == {1, 3, 5}


# ---- refusals --------------------------------------------------------------------------------------------------------


@resumed
@pytest.mark.row("A-43")
def test_an_unknown_token_is_rejected(target: Target) -> None:
    """Resume Operation: a client that is not identified by its token gets ERROR[REJECTED_RESUME]."""
    peer = target.stranger()
    peer.send(wire.resume(new_token(), 0, 0))
    assert wire.code(peer.refusal()) == wire.REJECTED_RESUME


@resumed
def test_a_position_that_was_never_reached_is_rejected(client: Client) -> None:
    """Resume Operation: ERROR[REJECTED_RESUME] where Last Received Server Position cannot be."""
    client.send(wire.echo(1))
    client.item(1)
    client.lose()
    client.ask(received=client.received + 1000)
    assert wire.code(client.peer.refusal()) == wire.REJECTED_RESUME


@resumed
def test_a_gap_in_what_the_client_kept_is_rejected(client: Client) -> None:
    """Implied Position: resumption is possible only if the client has kept everything from the server's last received
    position on."""
    client.send(wire.echo(1))
    client.item(1)
    client.lose()
    client.ask(available=client.sent + 1000)
    assert wire.code(client.peer.refusal()) == wire.REJECTED_RESUME


@resumed
@pytest.mark.parametrize("length", [0, 3, 6, 10, 20])
def test_a_resume_that_ends_too_early_is_refused(stranger: Peer, length: int) -> None:
    """Resume Operation: all ERROR frames sent here are CONNECTION_ERROR or REJECTED_RESUME."""
    body = wire.resume(b"token token token", 0, 0)[9:]
    stranger.send(wire.frame(0, wire.RESUME, 0, body[:length]))
    assert wire.code(stranger.refusal()) in {wire.CONNECTION_ERROR, wire.REJECTED_RESUME}


@resumed
def test_a_token_in_use_opens_no_second_session(client: Client) -> None:
    """Identification Token Handling: a server should not accept a SETUP with a token that is in use."""
    client.position()
    refusal = client.target.join(token=client.token).refusal()
    assert wire.code(refusal) in wire.SETUP_CODES
    client.send(wire.echo(1))
    assert client.item(1) == b"ping"


@resumed
def test_a_second_resume_ends_the_connection(client: Client) -> None:
    """Resume Operation: RESUME after RESUME gets ERROR[CONNECTION_ERROR]."""
    client.position()
    client.lose()
    client.resume()
    client.peer.send(wire.resume(client.token, client.received, 0))
    last = client.peer.ends()[-1]
    assert (last.kind, last.stream, wire.code(last)) == (wire.ERROR, 0, wire.CONNECTION_ERROR)


@resumed
@pytest.mark.parametrize("code", [wire.CONNECTION_ERROR, wire.CONNECTION_CLOSE], ids=hex)
def test_a_session_that_was_ended_is_not_resumed(client: Client, code: int) -> None:
    """Resume Operation, Identification Token Handling: CONNECTION_ERROR and CONNECTION_CLOSE are the end of the
    session, and a token should be good for no longer than that."""
    client.send(wire.echo(1))
    client.item(1)
    client.peer.send(wire.error(0, code))
    client.peer.ends()
    client.ask()
    assert wire.code(client.peer.refusal()) == wire.REJECTED_RESUME


@resumed
def test_a_session_without_a_token_is_not_resumed(peer: Peer, target: Target) -> None:
    """Assumptions: there is no resumption unless the SETUP asked for it."""
    peer.send(wire.keepalive(b"in"))
    peer.expect(wire.KEEPALIVE, 0)
    peer.close()
    other = target.stranger()
    other.send(wire.resume(b"", 0, 0))
    assert wire.code(other.refusal()) == wire.REJECTED_RESUME


@resumed
def test_a_refused_resumption_harms_no_session(client: Client, target: Target) -> None:
    """Resume Operation: who asks with a wrong position, or a wrong token, has not touched the session."""
    client.send(wire.echo(1))
    client.item(1)
    for token in (new_token(), client.token[:-1], client.token + b"x"):
        peer = target.stranger()
        peer.send(wire.resume(token, 0, 0))
        assert wire.code(peer.refusal()) == wire.REJECTED_RESUME
    client.send(wire.echo(3))
    assert client.item(3) == b"ping"


@pytest.mark.applies("routes", "resume", "lease")
def test_leases_begin_anew(target: Target) -> None:
    """Resume Operation: leases do not carry over: a LEASE from the server begins them again."""
    client = Client(target, flags=wire.LEASE_ENABLE, leases=True)
    client.peer.expect(wire.LEASE, 0)
    client.lose()
    client.resume()
    client.peer.expect(wire.LEASE, 0)
