"""Secrets, and what is none."""

import json

import pytest

from rsocket_broker.plugins.network import redaction
from rsocket_broker.plugins.network.redaction import REDACTED, body, form, headers, is_secret, url


@pytest.mark.parametrize(
    "name",
    [
        "Authorization",
        "Proxy-Authorization",
        "Cookie",
        "Set-Cookie",
        "X-Api-Key",
        "x-auth-token",
        "access_token",
        "refreshToken",
        "password",
        "passwd",
        "client_secret",
        "X-CSRF-Token",
        "apiKey",
        "JSESSIONID",
        "X-Amz-Signature",
        "X-Amz-Credential",
        "sid",
        "otp",
        "id_token",
    ],
)
def test_names_of_secrets_are_known(name: str) -> None:
    assert is_secret(name)


@pytest.mark.parametrize(
    "name", ["Content-Type", "Accept", "Host", "user", "email", "author", "code", "key", "id", "status", "sides"]
)
def test_names_of_every_day_are_not(name: str) -> None:
    assert not is_secret(name)


def test_headers_keep_their_names_and_order() -> None:
    pairs = (("Accept", "*/*"), ("Authorization", "Bearer x"), ("Referer", "https://u:p@h/?token=x"))
    assert headers(pairs) == (
        ("Accept", "*/*"),
        ("Authorization", REDACTED),
        ("Referer", "https://%5Bredacted%5D@h/?token=%5Bredacted%5D"),
    )


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("https://h/a?b=c&d=%20", "https://h/a?b=c&d=%20"),
        ("https://h/?key=AIza&q=x", "https://h/?key=%5Bredacted%5D&q=x"),
        ("https://h/cb#access_token=x&state=y", "https://h/cb#access_token=%5Bredacted%5D&state=y"),
        ("https://u:p@h:1/a", "https://%5Bredacted%5D@h:1/a"),
        ("http://[::1/?token=x", "http://[::1/"),
        ("", ""),
    ],
)
def test_a_url_loses_its_secrets_and_nothing_else(given: str, shown: str) -> None:
    assert url(given) == shown


def test_a_form_loses_its_secrets() -> None:
    assert form("user=a&pass%77ord=b&x&=y") == "user=a&pass%77ord=%5Bredacted%5D&x&=y"
    assert body("code=1&state=2", "application/x-www-form-urlencoded; charset=x") == "code=%5Bredacted%5D&state=2"


def test_json_loses_its_secrets_at_any_depth_and_stays_as_it_is_without_any() -> None:
    text = '{"a" : [1,  {"b": true}]}'
    assert body(text, "application/json") == text
    given = {"user": "u", "tokens": {"access": "x", "ttl": 5, "fresh": True, "none": None}, "list": [{"password": "p"}]}
    shown = {
        "user": "u",
        "tokens": {"access": REDACTED, "ttl": REDACTED, "fresh": True, "none": None},
        "list": [{"password": REDACTED}],
    }
    assert json.loads(body(json.dumps(given), "application/vnd.api+json")) == shown
    assert json.loads(body(json.dumps([{"secret": ["x"]}]), "")) == [{"secret": [REDACTED]}]


def test_json_that_cannot_be_looked_into_is_redacted_whole_where_it_names_a_secret() -> None:
    assert body('{"token": "x', "application/json") == REDACTED
    assert body('{"item": "x', "application/json") == '{"item": "x'
    assert body("[" * 100_000 + '"token"', "application/json") == REDACTED
    assert body(" " * (redaction.MAX_JSON + 1), "application/json") == REDACTED
    assert body("token: x", "text/plain") == "token: x"


def test_an_endless_address_is_redacted_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redaction, "parse_qsl", lambda *_, **__: pytest.fail("it was looked through"))
    assert url("https://h/?" + "a&" * 1_000_000) == REDACTED
    assert headers((("Referer", "https://h/?" + "a&" * 1_000_000),)) == (("Referer", REDACTED),)
