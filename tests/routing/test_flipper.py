"""Flipper's JSON, checked against what the reference says of shipped SDKs."""

import contextlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rsocket_broker.errors import ApplicationError, Invalid
from rsocket_broker.jsontext import JsonError, parse_bytes
from rsocket_broker.routing import flipper
from rsocket_broker.routing.flipper import AppFailure, ErrorReport, Execute, Ignored, RefreshPlugins


def text(value: Any) -> bytes:
    return json.dumps(value).encode()


@pytest.mark.parametrize("value", [None, False, 0, "", [], {}, {"plugins": []}])
def test_an_answer_is_found_by_its_key_and_not_by_its_truth(value: object) -> None:
    assert flipper.answer(text({"success": value})) == value
    assert flipper.answer(text({"id": 3, "success": value})) == value


@pytest.mark.parametrize(
    ("error", "name", "public"),
    [
        ({"message": "Receiver x not found.", "name": "Unknown"}, "Unknown", "Receiver x not found."),
        ({"code": 3, "message": "no"}, "", "no"),
        ({"reason": "why"}, "", "why"),
        ({"error": "what"}, "", "what"),
        ({"message": {"a": 1}}, "", '{"a":1}'),
        ({"message": ["\ud83d"]}, "", r'["\ud83d"]'),
        ("plain", "", "plain"),
        (None, "", "null"),
        ({}, "", "{}"),
        ("", "", "The app failed and did not say how."),
        ({"message": "m" * 5000}, "", "m" * flipper.MAX_TEXT),
    ],
)
def test_an_error_says_what_it_can(error: object, name: str, public: str) -> None:
    with pytest.raises(AppFailure) as caught:
        flipper.answer(text({"error": error}))
    assert (caught.value.name, caught.value.public) == (name, public)


@pytest.mark.parametrize("value", [2**63, -(10**30), "\ud83d", 0.5, [None, {"error": 1}], "x" * 2000])
def test_a_short_answer_is_as_exact_as_a_long_one(value: object) -> None:
    assert flipper.answer(text({"success": value})) == value


@pytest.mark.parametrize("data", [b"", b"x", b"[]", b"{}", b'"success"', b'["success"]', b"7", b"null", None])
def test_what_is_no_answer_fails_the_call(data: bytes | None) -> None:
    with pytest.raises(ApplicationError, match="The app's answer"):
        flipper.answer(data)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({"method": "execute", "params": {"api": "P", "method": "m", "params": {"a": 1}}}, Execute("P", "m", {"a": 1})),
        ({"method": "execute", "params": {"api": "P", "method": "m"}}, Execute("P", "m", {})),
        ({"method": "execute", "params": {"api": "P", "method": "m", "params": None}}, Execute("P", "m", {})),
        ({"method": "execute", "params": {"api": "P", "method": "m", "params": [0]}}, Execute("P", "m", [0])),
        ({"method": "refreshPlugins"}, RefreshPlugins()),
        ({"error": {"message": "m", "stacktrace": "s"}}, ErrorReport("m", "s")),
        ({"success": {}}, Ignored()),
        ({"id": 7, "success": 1}, Ignored()),
        ({"id": 0, "error": {}}, Ignored()),
        ({"id": 7.0, "method": "refreshPlugins"}, Ignored()),
        ({"id": "7", "method": "refreshPlugins"}, RefreshPlugins()),
        ({"id": True, "method": "refreshPlugins"}, RefreshPlugins()),
    ],
)
def test_one_way_messages_are_told_apart(message: object, expected: object) -> None:
    assert flipper.one_way(text(message)) == expected


def test_a_request_may_have_an_id_and_is_a_request_all_the_same() -> None:
    assert flipper.asked(text({"id": 7, "method": "refreshPlugins"})) == RefreshPlugins()


@pytest.mark.parametrize(
    "message",
    [
        [],
        {},
        {"method": 5},
        {"method": "getPlugins"},
        {"method": "execute"},
        {"method": "execute", "params": []},
        {"method": "execute", "params": {"api": "P"}},
        {"method": "execute", "params": {"api": 1, "method": "m"}},
    ],
)
def test_a_bad_message_is_invalid(message: object) -> None:
    with pytest.raises(Invalid):
        flipper.one_way(text(message))


@given(st.binary(max_size=200) | st.recursive(st.none() | st.text(), lambda x: st.dictionaries(st.text(), x)).map(text))
def test_any_bytes_are_a_message_or_invalid(data: bytes) -> None:
    for read in (flipper.one_way, flipper.asked):
        with contextlib.suppress(Invalid):
            read(data)


def test_requests_have_an_id_only_when_they_want_an_answer() -> None:
    assert json.loads(flipper.request("getPlugins", None, 3)) == {"id": 3, "method": "getPlugins"}
    assert json.loads(flipper.request("init", {"plugin": "P"})) == {"method": "init", "params": {"plugin": "P"}}
    assert json.loads(flipper.execute("P", "m", {}, 0)) == {
        "id": 0,
        "method": "execute",
        "params": {"api": "P", "method": "m", "params": {}},
    }


def test_the_list_of_plugins_is_taken_once_each_and_bounded() -> None:
    assert flipper.plugin_names({"plugins": ["b", "a", "b"]}) == ["b", "a"]
    for bad in (None, [], {}, {"plugins": "a"}, {"plugins": [1]}, {"plugins": [""]}, {"plugins": ["x"] * 1001}):
        with pytest.raises(ApplicationError, match="list of plugins"):
            flipper.plugin_names(bad)
    assert flipper.is_supported({"isSupported": False}) is False
    with pytest.raises(ApplicationError):
        flipper.is_supported({"isSupported": 1})


def test_our_answers_are_what_an_app_expects() -> None:
    assert json.loads(flipper.success(None)) == {"success": None}
    assert json.loads(flipper.refused(Invalid("no"))) == {"error": {"message": "no", "name": "Invalid"}}


# --- envelopes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (b'{"method":"execute","params":{"api":"P","method":"m","params":', ("P", "m")),
        (b'{"params":{"method":"m","api":"P","params":', None),
        (b' {"method" : "execute","params":{"method":"m","api":"P" ,"params":', ("P", "m")),
        (b'{"id":1,"method":"execute","params":{"api":"P","method":"m","params":', None),
        (b'{"method":"execute","params":{"api":"P","method":"m","more":1,"params":', None),
        (b'{"method":"execute","params":{"api":"P","method":1,"params":', None),
        (b'{"method":"init","params":{"api":"P","method":"m","params":', None),
        (b'{"method":"execute","params":{"api":"P","params":', None),
        (b'{"method":"execute","params":[{"api":"P","method":"m","params":', None),
        (b'{"method":"execute","params":{"api":"P","method":"m","params":[', None),
        (b'{"method":"execute","params":', None),
        (b"", None),
    ],
)
def test_an_envelope_is_an_event_that_says_nothing_but_its_parameters(
    text: bytes, found: tuple[str, str] | None
) -> None:
    assert flipper.envelope(text) == found


json_text = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from(['"params":', "}}", "{"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["params", "a", "api"]), inner),
    max_leaves=6,
)


@given(json_text)
def test_parameters_are_found_where_they_begin(params: object) -> None:
    data = flipper.execute("P", "m", params)
    begin = flipper.parameters_begin(data)
    assert json.loads(data[begin:-2]) == params
    assert flipper.envelope(data[:begin]) == ("P", "m")


# --- whatever is known of a message by its edges is what the whole of it says --------------------------------------

keys = st.sampled_from(
    [
        *['"method"', '"params"', '"api"', '"id"'],
        *[r'"\u0070arams"', r'"\u0061pi"', r'"m\u0065thod"', r'"\u0069d"'],
        *[r'"\"params"', r'"params\""', r'"\\"', r'"x\",\"params\":{\"api\":\"B\""', '""'],
    ]
)
usual = st.sampled_from(
    [
        *['"execute"', '"A"', '"m"', '"refreshPlugins"', "null", "1", "-0", "1.0", "1e3", "true", "{}", "[]"],
        *[r'"\ud83d"', r'"\u0000"', '"}},"', r'"\"params\":"', "123456789012345678901234567890", "1e999", "01", "NaN"],
    ]
)
blanks = st.sampled_from(["", "", "", " ", "\n\t"])


@st.composite
def members(draw: st.DrawFn, values: st.SearchStrategy[str]) -> str:
    """An object, as no SDK would write it."""
    pairs = draw(st.lists(st.tuples(keys, blanks, blanks, values), max_size=5))
    return "{" + ",".join(f"{key}{before}:{after}{value}" for key, before, after, value in pairs) + "}"


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    """What looks like an execute, with anything put into it: members twice, keys in disguise, bytes that break it."""
    number = draw(st.sampled_from(["", "", '"id":1,', '"id":01,', '"id": 7,', '"\\u0069d":2,', '"id":null,']))
    noise = draw(st.sampled_from(["", "", ",", ',"x":1,', ',"\\"params":{},', ',"params":{"api":"B","method":"n"},']))
    middle = noise or ","
    inner = draw(members(usual | members(usual)))
    decoy = draw(
        st.sampled_from(["", "", "", r'"\u0070arams":null,', r'"\"params":1,', '"params":1,', r'"\u0061pi":"B",'])
    )
    key = draw(st.sampled_from(['"params"', '"params"', r'"\"params"', r'"\u0070arams"']))
    after = draw(st.sampled_from(["", "", "", ',"api":"B"', ',"method":"n"', ',"id":3', ',"params":null', " "]))
    value = draw(usual | st.just(inner))
    text = f'{{{number}"method":"execute"{middle}"params":{{"api":"A","method":"m",{decoy}{key}:{value}{after}}}}}'
    cut = draw(st.integers(0, 3))
    data = text.encode("utf-8", "surrogatepass")
    if not cut:
        at = draw(st.integers(0, len(data)))
        data = (
            data[:at]
            + draw(st.sampled_from([b"}", b"{", b",", b'"', b"\\", b"\0", b"\xef\xbb\xbf", b"\xff"]))
            + data[at:]
        )
    return data


def read_whole(data: bytes, read: Callable[[bytes], object]) -> object:
    try:
        return read(data)
    except Invalid:
        return None


def read_part(text: bytes) -> tuple[object, bool]:
    """A value, and whether there is one. Null are no parameters."""
    try:
        value = parse_bytes(text)
    except JsonError:
        return None, False
    return ({} if value is None else value), True


@pytest.mark.row("F-18")
@given(messages() | members(usual | members(usual | members(usual))).map(str.encode))
@example(rb'{"method":"execute","params":{"api":"A","method":"m","\u0070arams":null,"\"params":{"x":1}}}')
def test_what_is_judged_by_a_messages_edges_is_what_all_of_it_says(data: bytes) -> None:
    found = flipper.parted(data)
    if found is not None and (part := read_part(found.params))[1]:
        said = Execute(found.plugin, found.method, part[0])
        assert read_whole(data, flipper.asked) == said
        assert read_whole(data, flipper.one_way) == (Ignored() if found.numbered else said)
    begin = flipper.parameters_begin(data)
    if not data.endswith(b"}}"):
        return
    known = flipper.envelope(data[:begin])
    if known is not None and (part := read_part(data[begin:-2]))[1]:
        assert read_whole(data, flipper.one_way) == Execute(*known, part[0])
    number = flipper.number_ends(data)
    asked = flipper.envelope(b"{" + data[max(0, number) : begin][1:])
    if number >= 0 and asked is not None and (part := read_part(data[begin:-2]))[1]:
        assert read_whole(data, flipper.asked) == Execute(*asked, part[0])
