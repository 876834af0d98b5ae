import pytest

from rsocket_broker.transports.http_request import MAX_HEAD, HeadReader, Refusal, Request, parse_head

HEAD = b"GET /metrics?x=1 HTTP/1.1\r\nHost: localhost:80\r\nAccept: a, B\r\naccept:\t c \r\nEmpty:\r\n\r\n"


def refusal(head: bytes) -> Refusal:
    with pytest.raises(Refusal) as refused:
        parse_head(head)
    return refused.value


def test_a_head_is_read() -> None:
    request = parse_head(HEAD)
    assert (request.method, request.path, request.query, request.head) == ("GET", "/metrics", "x=1", HEAD)
    assert (parse_head(b"GET ?a=b?c HTTP/1.1\r\n\r\n").path, parse_head(b"GET ?a=b?c HTTP/1.1\r\n\r\n").query) == (
        "",
        "a=b?c",
    )
    assert request.headers == {"host": ("localhost:80",), "accept": ("a, B", "c"), "empty": ("",)}
    assert request.one("host") == "localhost:80"
    assert request.one("origin") is None
    assert request.words("accept") == {"a", "b", "c"}
    assert request.words("upgrade") == set()
    with pytest.raises(Refusal, match="more than one accept"):
        request.one("accept")


@pytest.mark.parametrize("size", [1, 2, 3, 7, len(HEAD)])
def test_however_the_bytes_come_the_request_is_the_same(size: int) -> None:
    reader, found = HeadReader(), None
    sent = HEAD + b"behind"
    for start in range(0, len(sent), size):
        found = reader.feed(memoryview(sent)[start : start + size])
        if found is not None:
            break
    assert found is not None
    request, rest = found
    assert request == parse_head(HEAD)
    assert (b"behind").startswith(rest)


@pytest.mark.row("M-9")
@pytest.mark.parametrize(
    "head",
    [
        b"\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET  / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/2.0\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\n",
        b"GET http://localhost/ HTTP/1.1\r\n\r\n",
        b"GET /\x00 HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\n\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost\r\n\r\n",
        b"GET / HTTP/1.1\r\n: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: \x00\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: 1\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: 0\r\nContent-Length: 5\r\n\r\n",
        b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"\x16\x03\x01\x02\x00\r\n\r\n",
    ],
)
def test_what_could_be_understood_differently_is_refused(head: bytes) -> None:
    assert refusal(head).status == 400


def test_tls_is_told_at_once_that_there_is_none() -> None:
    with pytest.raises(Refusal, match="This is TLS"):
        HeadReader().feed(b"\x16\x03\x01")


def test_a_length_of_nothing_is_no_body() -> None:
    assert parse_head(b"GET / HTTP/1.0\r\nContent-Length: 0\r\n\r\n").path == "/"


def test_a_head_is_bounded() -> None:
    longest = HEAD[:-2] + b"x: " + bytes(MAX_HEAD - len(HEAD) - 5).replace(b"\0", b"y") + b"\r\n\r\n"
    assert len(longest) == MAX_HEAD
    found = HeadReader().feed(longest)
    assert found is not None and isinstance(found[0], Request)
    with pytest.raises(Refusal) as refused:
        HeadReader().feed(longest[:-4] + b"y" + longest[-4:])
    assert refused.value.status == 431
    reader = HeadReader()
    assert reader.feed(longest[:-1]) is None
    with pytest.raises(Refusal) as refused:
        reader.feed(b"yyy")
    assert refused.value.status == 431


def test_an_endless_line_costs_no_time() -> None:
    with pytest.raises(Refusal):
        parse_head(b"GET / HTTP/1.1\r\na:" + b" " * MAX_HEAD + b"\0\r\n\r\n")
