"""Who may ask for a WebSocket of an app."""

import pytest

from rsocket_broker.transports.http_request import END, Refusal, parse_head
from rsocket_broker.transports.origins import check_app, host_name, is_literal


def check(scheme: str, **headers: str) -> int | None:
    """The status of the refusal, None where there is none."""
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    try:
        check_app(parse_head("\r\n".join(["GET / HTTP/1.1", *lines]).encode() + END), scheme)
    except Refusal as refusal:
        return refusal.status
    return None


@pytest.mark.parametrize("host", ["localhost:9089", "10.0.2.2:9089", "[::1]:1", "192.168.56.2:9089", "my.host"])
def test_apps_say_no_origin_and_reach_the_port_by_any_name(host: str) -> None:
    assert check("http", host=host) is None
    assert check("https", host=host) is None


def test_some_apps_name_the_port_itself_as_their_origin() -> None:
    assert check("http", host="localhost:9089", origin="http://localhost:9089") is None
    assert check("http", host="LOCALHOST:9089", origin="http://localhost:9089") is None
    assert check("http", host="[::1]:9089", origin="http://[::1]:9089") is None
    assert check("https", host="broker.example:9088", origin="https://broker.example:9088") is None


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("localhost:9089", "http://evil.example"),
        ("localhost:9089", "http://localhost:3000"),
        ("localhost:9089", "https://localhost:9089"),
        ("localhost:9089", "null"),
        ("evil.example:9089", "http://evil.example:9089"),
        ("localhost.evil.example:9089", "http://localhost.evil.example:9089"),
        ("a b", "http://a b"),
    ],
)
def test_pages_from_elsewhere_are_kept_out(host: str, origin: str) -> None:
    assert check("http", host=host, origin=origin) == 403


def test_what_a_browser_says_of_its_page_counts() -> None:
    assert check("http", host="localhost:1", sec_fetch_site="cross-site") == 403
    assert check("http", host="localhost:1", sec_fetch_site="same-origin") is None
    assert check("http") == 400


def test_names_in_hosts() -> None:
    assert [host_name(host) for host in ("A.b:1", "[::1]:1", "a:b", "", "a/b", "x:123456")] == [
        "a.b",
        "::1",
        None,
        None,
        None,
        None,
    ]
    assert [is_literal(name) for name in ("localhost", "::1", "127.0.0.1", "a.b")] == [True, True, True, False]
