"""The SDKs' events, from JSON to values."""

from typing import Any

import pytest

from rsocket_broker.plugin_api import Invalid
from rsocket_broker.plugins.network import messages
from rsocket_broker.plugins.network.messages import Head, header, request, response
from tests.plugins.network.shapes import IOS_ID, UUID, answered, asked, base64_lines, pairs


def test_a_request_of_android_has_lines_in_its_base64() -> None:
    body = bytes(range(256))
    found = request(asked(data=base64_lines(body), method="post", headers=pairs(Content_Type="application/json")))
    assert (found.key, found.time, found.method) == (UUID, 1_718_000_000_000, "POST")
    assert found.body == body
    assert found.headers == (("Content-Type", "application/json"),)


def test_a_request_of_ios_has_a_number_for_its_id_and_nulls_for_what_is_not_there() -> None:
    found = request(asked(IOS_ID, data=None))
    assert found.key == "-9007199254740993"
    assert found.body is None


def test_a_response_of_android_says_which_part_it_is_and_that_of_ios_does_not() -> None:
    android = response(answered(isMock=True, totalChunks=1, index=0, data=base64_lines(b"hello")))
    assert android.head == Head(1_718_000_000_420, 200, "", (), True)
    assert (android.at, android.total, android.body) == (0, 1, b"hello")
    ios = response(answered(IOS_ID, "404", reason="not found", isMock=0))
    assert ios.head == Head(1_718_000_000_420, 404, "not found", (), False)
    assert (ios.at, ios.total, ios.body) == (0, 1, None)
    later = response({"id": UUID, "timestamp": 1, "totalChunks": 3, "index": 2, "data": "YQ=="})
    assert (later.head, later.at, later.total, later.body) == (None, 2, 3, b"a")


def test_what_is_not_told_has_a_meaning() -> None:
    found = request({"id": "x"})
    assert (found.time, found.method, found.url, found.headers, found.body) == (0, "GET", "", (), None)
    assert response({"id": "x"}).head == Head(0, 0, "", (), False)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"id": None}, "id"),
        ({"id": ""}, "id"),
        ({"id": True}, "id"),
        ({"id": 1.5}, "id"),
        ({"id": "x" * 129}, "id"),
        ({"timestamp": "soon"}, "timestamp"),
        ({"timestamp": 1e300}, "timestamp"),
        ({"timestamp": []}, "timestamp"),
        ({"method": 1}, "method"),
        ({"url": {}}, "url"),
        ({"headers": "none"}, "headers"),
        ({"headers": ["a: b"]}, "headers"),
        ({"headers": [{"key": 1, "value": "x"}]}, "headers"),
        ({"headers": [{"key": "a", "value": []}]}, "headers"),
        ({"headers": pairs(a="b") * 257}, "headers"),
        ({"data": "!"}, "data"),
        ({"data": "YQ"}, "data"),
        ({"data": "YWJj=Zm9v"}, "data"),
        ({"data": "é"}, "data"),
        ({"data": 5}, "data"),
    ],
)
def test_what_makes_no_sense_is_named(change: dict[str, Any], word: str) -> None:
    with pytest.raises(Invalid, match=word):
        request({**asked(), **change})


@pytest.mark.parametrize(("total", "index"), [(-1, 0), (2, 2), (2, -1), (messages.MAX_PARTS + 1, 0), (0, 1)])
def test_a_part_is_one_of_those_that_there_are(total: int, index: int) -> None:
    with pytest.raises(Invalid, match="part"):
        response(answered(totalChunks=total, index=index))


def test_a_header_is_found_whatever_its_case_and_the_last_one_counts() -> None:
    assert header((("A", "1"), ("a", "2")), "a") == "2"
    assert header((), "a") == ""
