"""The shapes of Network, on both systems."""

import base64
import uuid

import pytest

from emulated_apps import Network, Platform, ReceiverError, Reply
from tests.emulated_apps.heard import listen


def test_an_exchange_on_android() -> None:
    network = Network(clock=lambda: 1718000000.0)
    events = listen(network)
    network.exchange("POST", "https://a.example/c", Reply(200, b"ok", {"X": "1"}), body=b"x" * 60, headers={"A": "b"})
    (first, request), (second, response) = events
    assert (first, second) == ("newRequest", "newResponse")
    uuid.UUID(request["id"])
    assert request == {
        "id": response["id"],
        "timestamp": 1718000000000,
        "method": "POST",
        "url": "https://a.example/c",
        "headers": [{"key": "A", "value": "b"}],
        "data": base64.b64encode(b"x" * 60).decode()[:76] + "\n" + base64.b64encode(b"x" * 60).decode()[76:] + "\n",
    }
    assert response == {
        "id": request["id"],
        "timestamp": 1718000000050,
        "status": 200,
        "isMock": False,
        "headers": [{"key": "X", "value": "1"}],
        "data": "b2s=\n",
        "totalChunks": 1,
        "index": 0,
    }


def test_an_exchange_on_ios() -> None:
    network = Network(Platform.IOS, clock=lambda: 1.0)
    events = listen(network)
    network.exchange("GET", "https://a.example/", Reply(204))
    (_, request), (_, response) = events
    assert isinstance(request["id"], int)
    assert request["data"] is None
    assert {"isMock", "totalChunks", "index"}.isdisjoint(response)
    assert response["data"] is None


def test_a_large_body_comes_in_parts_or_is_cut() -> None:
    body = bytes(range(256)) * 10_000
    network = Network(body_limit=10_000_000)
    events = listen(network)
    network.exchange("GET", "https://a.example/", Reply(200, body))
    parts = [params for name, params in events if name == "partialResponse"]
    assert [part["index"] for part in parts] == [0, 1, 2]
    assert ["status" in part for part in parts] == [True, False, False]
    assert b"".join(base64.b64decode(part["data"]) for part in parts) == body

    network = Network()
    events = listen(network)
    network.exchange("GET", "https://a.example/", Reply(200, body))
    assert base64.b64decode(events[1][1]["data"]) == body[: 1024 * 1024]


@pytest.mark.parametrize(("platform", "kept"), [(Platform.ANDROID, (101, 600)), (Platform.IOS, (1, 500))])
def test_what_is_kept_until_a_server_comes(platform: Platform, kept: tuple[int, int]) -> None:
    network = Network(platform)
    for number in range(1, 601):
        network.request("GET", f"https://a.example/{number}")
    events = listen(network)
    numbers = [int(params["url"].rsplit("/")[-1]) for _, params in events]
    assert numbers == list(range(kept[0], kept[1] + 1))


def test_android_keeps_no_bodies_of_answers_meanwhile() -> None:
    network = Network()
    network.exchange("GET", "https://a.example/", Reply(200, b"ok"), body=b"kept")
    events = listen(network)
    assert events[0][1]["data"] == "a2VwdA==\n"
    assert "data" not in events[1][1]


def test_mock_routes_answer_in_place_of_the_server() -> None:
    network = Network()
    events = listen(network)
    route = {"requestUrl": "/cart", "method": "GET", "data": "[]", "headers": [], "status": "418", "enabled": False}
    assert network.call("mockResponses", {"routes": [route]}) == {}
    assert network.fetch("GET", "https://a.example/cart?x=1", lambda: Reply(200)) == Reply(418, b"[]", {})
    assert network.fetch("POST", "https://a.example/cart", lambda: Reply(201)) == Reply(201)
    assert [params["isMock"] for name, params in events if name == "newResponse"] == [True, False]
    with pytest.raises(ReceiverError, match="Receiver mockResponses failed with error"):
        network.call("mockResponses", {"routes": [{"requestUrl": "/cart", "method": "GET"}]})
    network.attach(None)
    assert network.routes == []
    assert "mockResponses" not in Network(mocking=False).receivers() | Network(Platform.IOS).receivers()


def test_bodies_that_are_never_reported() -> None:
    network = Network()
    events = listen(network)
    network.exchange("GET", "https://a.example/", Reply(200, b"film", {"Content-Type": "video/mp4"}))
    network.exchange("GET", "https://a.example/", None)
    assert [name for name, _ in events] == ["newRequest", "newResponse", "newRequest"]
    assert "data" not in events[1][1]
