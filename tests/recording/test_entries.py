from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsocket_broker.errors import Invalid
from rsocket_broker.jsontext import dump
from rsocket_broker.recording.entries import Entry, Header, Written, entry_line, read_entry, read_header

HEADER = Header(
    made=datetime(2026, 5, 4, 12, tzinfo=UTC),
    app="Shop",
    app_id="org.example.shop",
    device="Pixel",
    device_id="host-1",
    os="Android",
    sdk_version=4,
    plugins=("Network", "Databases"),
    background=("Network",),
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


def test_a_header_is_read_as_it_was_written() -> None:
    assert read_header(HEADER.line()) == HEADER


@given(at=st.floats(0, 1e6), plugin=st.text(), method=st.text(), kind=st.text(), content=VALUES)
def test_an_entry_is_read_as_it_was_written(at: float, plugin: str, method: str, kind: str, content: object) -> None:
    message = {"direction": "in", "kind": kind, "plugin": plugin, "method": method, "bytes": 7, "client": "c1"}
    found = read_entry(entry_line(at, message, content), 2)
    assert found == Entry(round(at, 6), True, kind, plugin, method, content)


@given(params=VALUES, said=VALUES)
def test_a_value_that_is_written_already_is_as_good_as_any(params: object, said: object) -> None:
    message = {"direction": "in", "kind": "answer", "plugin": "P", "method": "m"}
    line = entry_line(1.0, message, {"params": params, "success": Written(dump(said))})
    assert line == entry_line(1.0, message, {"params": params, "success": said})


def test_a_line_without_a_message_is_passed_over() -> None:
    assert read_entry(b'{"dropped": 4}', 2) is None


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"", "line 1"),
        (b"[]", "line 1"),
        (b"{}", "no recording"),
        (b'{"recording": 2}', "version 2; version 1 can be read"),
        (b'{"recording": 1}', "'made' is missing"),
        (HEADER.line().replace(b'"sdk_version":4', b'"sdk_version":"4"'), "sdk_version"),
        (HEADER.line().replace(b'["Network"]', b'"Network"'), "background"),
        (HEADER.line().replace(b"+00:00", b""), "made"),
        (HEADER.line().replace(b'"Shop"', b"7"), "app"),
    ],
)
def test_what_is_no_header_is_refused_by_name(line: bytes, words: str) -> None:
    with pytest.raises(Invalid, match=words):
        read_header(line)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"kind": "event", "at": "soon"}, "line 7: at"),
        ({"kind": "event", "at": -1}, "line 7: at"),
        ({"kind": "event", "at": 1, "plugin": 5}, "line 7: plugin"),
    ],
)
def test_what_is_no_entry_is_refused_by_its_line(fields: dict[str, object], words: str) -> None:
    with pytest.raises(Invalid, match=words):
        read_entry(dump(fields), 7)
