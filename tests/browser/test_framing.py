"""The older way in which browser apps wrote."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsocket_broker.browser import framing
from rsocket_broker.browser.framing import PARSED, Framing, Passed
from rsocket_broker.routing import flipper

ASKED = flipper.request("getPlugins", None, 0)
CONNECT = b'{"app":"X","type":"connect","plugins":["a","b"]}'


def texts(messages: tuple[bytes, ...]) -> list[Any]:
    return [json.loads(message) for message in messages]


def test_the_present_way_is_left_as_it_is() -> None:
    framing = Framing()
    assert framing.sent(ASKED) == Passed((), (ASKED,))
    answer = b'{"id":0,"success":{"plugins":["connect"]}}'
    assert framing.received(answer) == Passed((answer,))
    for text in (CONNECT, b"not JSON", b'{"app":"X","payload":{}}'):
        assert framing.received(text) == Passed((text,)), "only the first message says which way it is"
        assert framing.sent(text) == Passed((), (text,))


@pytest.mark.row("F-25")
def test_an_older_app_is_answered_for_from_its_own_list() -> None:
    framing = Framing()
    assert framing.sent(ASKED).outward == (ASKED,), "nobody knows yet"
    passed = framing.received(CONNECT)
    assert texts(passed.inward) == [{"id": 0, "success": {"plugins": ["a", "b"]}}]
    assert not passed.outward
    assert texts(framing.sent(flipper.request("getBackgroundPlugins", None, 1)).inward) == [
        {"id": 1, "success": {"plugins": []}}
    ]
    assert texts(framing.sent(flipper.request("getPlugins", None, 2)).inward) == [
        {"id": 2, "success": {"plugins": ["a", "b"]}}
    ]
    sent = framing.sent(flipper.execute("a", "go", {"x": None}, 3))
    assert texts(sent.outward) == [
        {"payload": {"id": 3, "method": "execute", "params": {"api": "a", "method": "go", "params": {"x": None}}}}
    ]
    event = {"method": "execute", "params": {"api": "a", "method": "m", "params": [None, False, 0, 1e300]}}
    assert texts(framing.received(json.dumps({"app": "X", "payload": event}).encode()).inward) == [event]


def test_one_that_names_no_plugins_is_asked_again_in_its_own_way() -> None:
    framing = Framing()
    framing.sent(ASKED)
    framing.sent(flipper.request("getBackgroundPlugins", None, 1))
    passed = framing.received(b'{"app":"X","type":"connect"}')
    assert texts(passed.outward) == [
        {"payload": {"id": 0, "method": "getPlugins"}},
        {"payload": {"id": 1, "method": "getBackgroundPlugins"}},
    ]
    assert not passed.inward
    assert texts(framing.sent(flipper.request("getPlugins", None, 2)).outward) == [
        {"payload": {"id": 2, "method": "getPlugins"}}
    ]


def test_one_that_connects_first_needs_no_question() -> None:
    framing = Framing()
    assert framing.received(CONNECT) == Passed()
    assert texts(framing.sent(ASKED).inward) == [{"id": 0, "success": {"plugins": ["a", "b"]}}]


def test_another_list_is_a_refresh() -> None:
    framing = Framing()
    framing.received(CONNECT)
    assert texts(framing.received(b'{"app":"X","type":"connect","plugins":["c"]}').inward) == [
        {"method": "refreshPlugins"}
    ]
    assert texts(framing.sent(ASKED).inward) == [{"id": 0, "success": {"plugins": ["c"]}}]


@pytest.mark.parametrize("text", [b"not JSON", b"[]", b'{"app":"X"}', b'{"app":"X","payload":7}', b'{"method":"x"}'])
def test_what_is_not_wrapped_goes_on_as_it_came(text: bytes) -> None:
    framing = Framing()
    framing.received(CONNECT)
    assert framing.received(text) == Passed((text,))


def test_what_is_kept_of_an_app_that_says_nothing_is_bounded() -> None:
    framing = Framing()
    for number in range(100):
        framing.sent(flipper.request("getPlugins", None, number))
    assert len(framing.received(CONNECT).inward) == 4


@given(st.lists(st.tuples(st.booleans(), st.binary(max_size=40) | st.sampled_from([ASKED, CONNECT])), max_size=8))
def test_any_bytes_pass_either_way(messages: list[tuple[bool, bytes]]) -> None:
    framing = Framing()
    for inward, text in messages:
        passed = framing.received(text) if inward else framing.sent(text)
        assert isinstance(passed, Passed)


def test_a_long_message_is_unwrapped_without_being_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    older = Framing()
    older.received(b'{"app":"A","type":"connect","plugins":[]}')
    monkeypatch.setattr(framing, "parse_bytes", lambda data: pytest.fail("it was parsed"))
    payload = b'{"method":"execute","params":[' + b"[]," * PARSED + b"0]}"
    assert older.received(b'{"app":"A \\"B\\"","payload":' + payload + b"}") == Passed((payload,))
    for odd in (payload, b'{"app":"A","payload":7,"x":"' + payload + b'"}', b'{"app":' + payload + b"}"):
        assert older.received(odd) == Passed((odd,))


def test_a_long_first_message_is_of_the_present_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(framing, "parse_bytes", lambda data: pytest.fail("it was parsed"))
    text = b'{"method":"connect","params":"connect","x":' + b"[" * PARSED
    present = Framing()
    assert present.received(text.replace(b'"method":', b'"type":')) == Passed((text.replace(b'"method":', b'"type":'),))
    assert present.sent(b'{"id":1,"method":"getPlugins"}') == Passed((), (b'{"id":1,"method":"getPlugins"}',))
