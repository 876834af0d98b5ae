"""Mock routes as values."""

from typing import Any

import pytest

from rsocket_broker.plugin_api import Invalid
from rsocket_broker.plugins.network.mocks import MAX_BYTES, MAX_ROUTES, Mock, added, mock, overlapping, removed, wire


def one(url: str = "/cart", method: str = "GET", **more: Any) -> Mock:
    about: dict[str, Any] = {"status": 200, "headers": {}, "body": "", "enabled": True, **more}
    return mock(url, method, **about)


def test_routes_are_sent_whole_with_text_for_the_status_and_without_those_that_are_off() -> None:
    found = added(added((), one(status=404, headers={"A": "b"}, body="x")), one("/off", enabled=False))
    assert wire(found) == {
        "routes": [
            {
                "requestUrl": "/cart",
                "method": "GET",
                "data": "x",
                "headers": [{"key": "A", "value": "b"}],
                "status": "404",
                "enabled": True,
            }
        ]
    }
    assert wire(()) == {"routes": []}


def test_a_route_for_the_same_address_and_method_takes_the_place_of_the_other() -> None:
    found = added(added(added((), one(body="1")), one(method="post")), one(body="2"))
    assert [(each.method, each.body) for each in found] == [("POST", ""), ("GET", "2")]
    assert removed(found, "/cart", "post") == found[1:]
    assert removed(found, "/cart", "") == ()
    with pytest.raises(Invalid, match="no such"):
        removed(found, "/other", "")


@pytest.mark.parametrize(
    ("about", "word"),
    [
        ({"url": ""}, "url"),
        ({"url": "x" * 2001}, "url"),
        ({"method": "BREW"}, "method"),
        ({"status": 99}, "status"),
        ({"status": 600}, "status"),
        ({"headers": {"A": "b\r\nC: d"}}, "headers"),
        ({"headers": {"": "b"}}, "headers"),
    ],
)
def test_a_route_that_makes_no_sense_is_named(about: dict[str, Any], word: str) -> None:
    with pytest.raises(Invalid, match=word):
        one(**about)


def test_routes_have_an_end() -> None:
    many = tuple(one(f"/{number}") for number in range(MAX_ROUTES))
    with pytest.raises(Invalid, match="up to"):
        added(many, one("/more"))
    with pytest.raises(Invalid, match="up to"):
        added((), one(body="x" * MAX_BYTES))


def test_routes_that_get_into_each_others_way_are_told() -> None:
    found = (one("/cart"), one("/cart/1"), one("/cart", "POST"), one("/cart/2", enabled=False))
    assert overlapping(found) == ["GET /cart and /cart/1: a request that fits both gets either answer"]
    assert one("/cart", headers={"A": "b"}).shown()["headers"] == {"A": "b"}
