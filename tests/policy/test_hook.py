"""The table [hook]: whom a policy may ask."""

import pytest

from rsocket_broker.errors import ConfigurationError
from rsocket_broker.policy.hook import HookSettings

GOOD = "http://127.0.0.1:9900/decide"


@pytest.mark.parametrize(
    "url", [GOOD, "http://localhost/", "http://[::1]:80/x?y=1", "https://decide.example/x", "unix:/run/decide.sock"]
)
def test_who_may_be_asked(url: str) -> None:
    assert HookSettings.parse({"url": url}, "here").url == url


@pytest.mark.parametrize(
    ("table", "error"),
    [
        ({}, "here: url must say whom to ask, as a string."),
        ({"url": 5}, "url must say whom"),
        ({"url": "http://decide.example/"}, "what goes to decide.example must not be readable on the way there"),
        ({"url": "http://127.0.0.1.example/"}, "must not be readable"),
        ({"url": "ftp://127.0.0.1/"}, "must be http://, https:// or unix:/"),
        ({"url": "http:///x"}, "must be http://, https:// or unix:/"),
        ({"url": "http://127.0.0.1/a b"}, "must be http://"),
        ({"url": "http://127.0.0.1/\r\nHost: x"}, "url"),
        ({"url": "https://[x/"}, "url is none"),
        ({"url": "https://h:99999/"}, "url is none"),
        ({"url": "https://u:p@h/"}, "no user"),
        ({"url": "unix:relative"}, "whole path"),
        ({"url": GOOD, "timeoutx": 1}, 'unknown key "timeoutx". Did you mean "timeout"?'),
        ({"url": GOOD, "timeout": 0}, "timeout must be a number from 0.01 to 60, not 0."),
        ({"url": GOOD, "timeout": True}, "timeout must be a number"),
        ({"url": GOOD, "ttl": -1}, "ttl must be a number from 0 to 86400"),
        ({"url": GOOD, "concurrency": 1.5}, "concurrency must be a number from 1 to 1024, not 1.5."),
    ],
)
def test_what_is_wrong_is_named(table: dict[str, object], error: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        HookSettings.parse(table, "here")
    assert raised.value.public.startswith("here: ")
    assert error in raised.value.public


def test_what_is_set_is_kept() -> None:
    found = HookSettings.parse({"url": GOOD, "timeout": 1, "ttl": 0, "concurrency": 2}, "here")
    assert (found.timeout, found.ttl, found.concurrency) == (1, 0, 2)
