"""The tables, walked: every state can be reached and left, every frame of a peer has a row."""

from collections import deque

import pytest

from rsocket_broker.protocol.codes import FrameType
from rsocket_broker.protocol.protocol import Protocol
from rsocket_broker.protocol.states import (
    CONNECTION,
    GIVING_UP,
    HEARD,
    ROWS,
    STREAM,
    Action,
    ConnectionState,
    Effect,
    Input,
    StreamState,
    action,
)

STARTS = {
    StreamState.ASSEMBLING,
    StreamState.ASKED_RESPONSE,
    StreamState.OWES_RESPONSE,
    StreamState.ASKED_STREAM,
    StreamState.OWES_STREAM,
    StreamState.ASKED_CHANNEL,
    StreamState.OWES_CHANNEL,
}


@pytest.mark.parametrize("state", STREAM, ids=lambda state: state.name)
def test_every_frame_of_a_peer_has_a_row(state: StreamState) -> None:
    assert set(HEARD) <= set(STREAM[state])


@pytest.mark.parametrize("state", STREAM, ids=lambda state: state.name)
def test_every_stream_can_end(state: StreamState) -> None:
    seen, waiting = {state}, deque([state])
    while waiting:
        for _, after in STREAM.get(waiting.popleft(), {}).values():
            if after not in seen:
                seen.add(after)
                waiting.append(after)
    assert StreamState.CLOSED in seen


def test_every_state_is_reached_from_a_request() -> None:
    reached = STARTS | {after for rows in STREAM.values() for _, after in rows.values()}
    assert reached == set(StreamState)
    assert set(STREAM) == set(StreamState) - {StreamState.CLOSED}


def test_what_is_ignored_changes_nothing_but_an_unfinished_request() -> None:
    for state, rows in STREAM.items():
        for given, (effect, after) in rows.items():
            if effect is Effect.IGNORE and state is not StreamState.ASSEMBLING:
                assert after is state, (state, given)


def test_only_payloads_spend_credit() -> None:
    spending = {given for rows in STREAM.values() for given, (effect, _) in rows.items() if effect is Effect.SPEND}
    assert spending == {Input.HEARD_NEXT, Input.HEARD_LAST, Input.SENT_NEXT, Input.SENT_LAST}


def test_a_side_that_has_finished_sends_no_payload() -> None:
    for state in STREAM:
        if state.name.endswith("SENT_ALL"):
            for given in (Input.SENT_NEXT, Input.SENT_LAST):
                row = STREAM[state].get(given)
                assert row is None or row[0] is Effect.IGNORE


@pytest.mark.parametrize("state", STREAM, ids=lambda state: state.name)
def test_giving_up_is_possible_and_final_for_both(state: StreamState) -> None:
    effect, after = STREAM[state][GIVING_UP[state]]
    assert effect is Effect.PASS
    assert after is StreamState.CLOSED


def test_the_engine_reads_the_same_rows() -> None:
    for state in STREAM:
        for given in Input:
            assert ROWS[state][given] == STREAM[state].get(given)


@pytest.mark.parametrize("what", Action, ids=lambda what: what.name)
def test_every_action_has_its_method(what: Action) -> None:
    assert callable(getattr(Protocol, what.value))


@pytest.mark.row("A-35")
@pytest.mark.parametrize("kind", range(64))
def test_before_setup_every_frame_but_two_is_out_of_order(kind: int) -> None:
    expected = {FrameType.SETUP: Action.SETUP, FrameType.RESUME: Action.RESUME}
    assert action(ConnectionState.EXPECTING, kind) is expected.get(kind, Action.OUT_OF_ORDER)  # type: ignore[call-overload]


@pytest.mark.row("A-41")
@pytest.mark.parametrize("kind", range(64))
def test_a_resume_has_two_answers(kind: int) -> None:
    expected = {FrameType.RESUME_OK: Action.RESUMED, FrameType.ERROR: Action.RESUME_REFUSED}
    assert action(ConnectionState.RESUMING, kind) is expected.get(kind, Action.NOT_RESUMED)  # type: ignore[call-overload]


OPEN = [state for state in CONNECTION if state not in {ConnectionState.EXPECTING, ConnectionState.RESUMING}]


@pytest.mark.parametrize("state", OPEN)
def test_an_open_connection_knows_every_type_but_reserved_and_extensions(state: ConnectionState) -> None:
    unknown = {kind for kind in range(64) if action(state, kind) is Action.UNKNOWN}
    assert unknown == set(range(64)) - {kind for kind in FrameType if kind is not FrameType.EXT}


def test_states_that_read_nothing_have_no_rows() -> None:
    deaf = {ConnectionState.DECIDING, ConnectionState.SUSPENDED, ConnectionState.CLOSED}
    assert set(ConnectionState) - set(CONNECTION) == deaf
    assert not deaf & set(Protocol.DISPATCH)
