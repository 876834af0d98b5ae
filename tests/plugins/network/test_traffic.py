"""Requests and responses put together, within bounds."""

import itertools

import pytest

from rsocket_broker.plugins.network import messages
from rsocket_broker.plugins.network.bodies import joined
from rsocket_broker.plugins.network.traffic import OVERHEAD, Shelf, Traffic
from tests.plugins.network.shapes import UUID, answered, asked, base64_lines, pairs, tell, traffic


def part(index: int, total: int, data: bytes, **more: object) -> dict[str, object]:
    head = answered() if index == 0 else {"id": UUID, "timestamp": 1_718_000_000_500}
    return {**head, "totalChunks": total, "index": index, "data": base64_lines(data), **more}


def test_an_exchange_goes_from_open_to_done() -> None:
    made = traffic(asked())
    (exchange,) = made
    assert (exchange.state, exchange.duration, joined(exchange.parts)) == ("open", None, b"")
    tell(made, answered(data="aGk="))
    assert (exchange.state, exchange.duration, joined(exchange.parts)) == ("done", 420, b"hi")
    assert exchange.summary() | {"url": ""} == {
        "id": UUID,
        "number": 1,
        "state": "done",
        "method": "GET",
        "url": "",
        "status": 200,
        "reason": "",
        "time": 1_718_000_000_000,
        "duration": 420,
        "request_bytes": 0,
        "response_bytes": 2,
        "mock": False,
    }


def test_a_request_that_comes_again_adds_to_what_is_known() -> None:
    made = traffic(asked(headers=pairs(A="1")), asked(timestamp=9, headers=[], data="aGk="))
    (exchange,) = made
    assert exchange.request is not None
    assert (exchange.request.headers, exchange.request.body, exchange.time) == ((("A", "1"),), b"hi", 1_718_000_000_000)
    tell(made, asked(headers=pairs(B="2")))
    assert (exchange.request.headers, exchange.request.body) == ((("B", "2"),), b"hi")


def test_a_response_without_a_request_is_kept_until_that_comes() -> None:
    made = traffic(answered())
    (exchange,) = made
    assert (exchange.state, exchange.duration, exchange.time) == ("orphan", None, 1_718_000_000_420)
    tell(made, asked())
    assert exchange.state == "done"


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_parts_come_in_any_order_and_each_is_decoded_by_itself(order: tuple[int, ...]) -> None:
    data = [b"a", b"bb", b"cccc"]  # each with a padding of its own
    made = traffic(asked())
    (exchange,) = made
    for count, index in enumerate(order, 1):
        assert exchange.state == ("open" if count == 1 else "partial")
        tell(made, part(index, 3, data[index]))
    assert (exchange.state, joined(exchange.parts), exchange.missing) == ("done", b"abbcccc", 0)


def test_a_part_that_comes_twice_counts_once_and_a_new_response_takes_the_place_of_the_old() -> None:
    made = traffic(asked(), part(0, 2, b"a"), part(0, 2, b"b"))
    (exchange,) = made
    assert (exchange.state, exchange.missing, joined(exchange.parts)) == ("partial", 1, b"b")
    tell(made, answered(status=304))
    assert (exchange.state, joined(exchange.parts)) == ("done", b"")
    tell(made, part(1, 2, b"z"))
    assert (exchange.state, exchange.head, exchange.missing) == ("partial", None, 1)


def test_watchers_are_told_of_requests_and_whole_responses() -> None:
    made = traffic()
    seen: list[str] = []
    made.watchers.append(lambda what, exchange: seen.append(what))
    for told in (asked(), part(1, 2, b"b"), part(0, 2, b"a")):
        tell(made, told)
    made.end()
    assert seen == ["request", "response", "end"]
    assert made.ended
    assert len(made) == made.bytes == 0


def test_the_oldest_make_room_by_count_and_by_bytes() -> None:
    made = traffic(*(asked(f"{number}") for number in range(5)), count=3)
    assert [one.key for one in made] == ["2", "3", "4"]
    assert (made.dropped, made.newest) == (2, 5)
    made = traffic(asked("1"), asked("2", data=base64_lines(bytes(3000))), most=OVERHEAD + 3000)
    assert [one.key for one in made] == []
    assert (made.dropped, made.bytes) == (2, 0)


def test_a_flood_of_one_app_takes_no_more_than_its_share_and_all_no_more_than_the_shelf() -> None:
    shelf = Shelf(10_000)
    quiet, loud = Traffic(shelf, most=9000), Traffic(shelf, most=9000)
    tell(quiet, asked("q"))
    for number in range(100):
        tell(loud, asked(f"{number}", data=base64_lines(bytes(1000))))
        assert loud.bytes <= 9000
        assert shelf.bytes <= 10_000
    assert [one.key for one in quiet] == ["q"]
    more = Traffic(shelf, most=9000)
    tell(more, asked("m", data=base64_lines(bytes(6000))))
    assert [one.key for one in quiet] == []  # the oldest of all
    assert quiet.dropped == 1
    assert shelf.bytes == quiet.bytes + loud.bytes + more.bytes <= 10_000
    for each in (quiet, loud, more):
        each.end()
    assert (shelf.bytes, shelf.order) == (0, {})


def test_what_an_exchange_takes_is_counted_whatever_is_told_of_it() -> None:
    made = traffic(asked(), part(0, 4096, b""), part(4095, 4096, b"x"), asked(headers=pairs(A="b" * 1000)))
    assert made.bytes == sum(one.size for one in made) > 1000
    assert messages.MAX_PARTS == 4096
    assert made.clear() == 1
    assert made.bytes == 0


def test_a_large_body_is_counted_as_it_is_kept_and_read_when_it_is_wanted() -> None:
    body = bytes(range(256)) * 2000
    made = traffic(asked(data=base64_lines(body)), answered(data=base64_lines(body)))
    (exchange,) = made
    assert exchange.request is not None
    assert exchange.request.body != body
    assert (exchange.summary()["request_bytes"], exchange.received) == (len(body), len(body))
    assert made.bytes > 2 * len(base64_lines(body))
    assert joined(exchange.parts) == joined([exchange.request.body or b""]) == body


def test_each_part_is_counted_once_whatever_takes_its_place() -> None:
    made = traffic(asked(), answered(data=base64_lines(b"whole")))
    (exchange,) = made
    for at, data in ((0, b"a" * 50), (1, b"b" * 70), (0, b"a"), (2, b"")):
        tell(made, part(at, 3, data))
    counted = exchange.size
    fresh = traffic(asked(), part(0, 3, b"a"), part(1, 3, b"b" * 70), part(2, 3, b""))
    assert counted == next(iter(fresh)).size
    tell(made, answered(data=None))
    assert exchange.size == next(iter(traffic(asked(), answered(data=None)))).size
    assert made.bytes == exchange.size
