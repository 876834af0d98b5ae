"""Whose pages may connect."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsocket_broker.browser.origin import host_of, is_allowed, listed_host
from rsocket_broker.errors import ConfigurationError


@pytest.mark.row("M-9")
@pytest.mark.parametrize(
    "origin",
    [
        "http://localhost:3000",
        "https://localhost:8443",
        "http://localhost",
        "https://localhost",
        "http://LOCALHOST:1",
        "localhost:",
        "localhost:8333",
        "localhost",
    ],
)
def test_pages_of_this_machine_may_connect_from_any_port(origin: str) -> None:
    assert is_allowed(origin, ())


@pytest.mark.row("M-9")
@pytest.mark.parametrize(
    "origin",
    [
        None,
        "",
        "null",
        "http://evil.test",
        "http://localhost.evil.test",
        "http://localhost.evil.test:3000",
        "http://localhost.",
        "http://localhost..",
        "http://localhost-evil.test",
        "http://localhost@evil.test",
        "http://localhost:3000@evil.test",
        "http://localhost:x",
        "http://localhost:123456",
        "http://localhost:80:80",
        "http://localhost/",
        "http://localhost:3000/page",
        "http://localhost?",
        "http://localhost#",
        "http://localhost\\.evil.test",
        "http://localhost%2eevil.test",
        "http://evil.test http://localhost",
        "http://localhost http://evil.test",
        " http://localhost",
        "http://localhost\n",
        "http://localhost, http://localhost",
        "http:/localhost",
        "http:localhost",
        "//localhost",
        "ws://localhost",
        "file://localhost",
        "file://",
        "chrome-extension://localhost",
        "javascript://localhost",
        "http://127.0.0.1:3000",
        "http://[::1]:3000",
        "http://[localhost]",
        "http://ｌocalhost",
        "http://locaⅼhost",
        "http://sub.localhost",
        "*",
        "http://*",
        "a" * 10_000,
    ],
)
def test_no_other_page_may(origin: str | None) -> None:
    assert not is_allowed(origin, ())


def test_listed_hosts_are_compared_whole() -> None:
    hosts = {listed_host("Dev.example.org"), listed_host("127.0.0.1"), listed_host("0:0::1")}
    for origin in ("https://dev.example.org", "http://dev.example.org:8080", "http://127.0.0.1:1", "http://[::1]:2"):
        assert is_allowed(origin, hosts)
    for origin in (
        "https://example.org",
        "http://xdev.example.org",
        "http://dev.example.org.evil.test",
        "http://[::2]",
    ):
        assert not is_allowed(origin, hosts)
    assert is_allowed("http://localhost", hosts)


@pytest.mark.parametrize(
    "text", ["", "*", "*.example.org", "http://x.org", "x.org:80", "x.org/", "a b", "[x]", "é.org"]
)
def test_a_host_is_listed_by_its_name_alone(text: str) -> None:
    with pytest.raises(ConfigurationError, match="no host"):
        listed_host(text)
    with pytest.raises(ConfigurationError, match="no host"):
        listed_host("a." * 127 + "org")


@given(st.text(max_size=40) | st.text(max_size=20).map("http://localhost{}".format))
def test_any_text_names_a_host_or_none(origin: str) -> None:
    host = host_of(origin)
    assert host is None or host_of(f"http://{host}:1") == host
    if is_allowed(origin, ()):
        assert host == "localhost"
