"""Traffic as HAR 1.2."""

import base64
import gzip
import json
from typing import Any

import pytest

from rsocket_broker.plugins.network.har import LATEST, Writer, iso, uri
from rsocket_broker.plugins.network.traffic import Traffic
from tests.plugins.network import har_schema
from tests.plugins.network.shapes import IOS_ID, answered, asked, base64_lines, pairs, traffic

MANY = traffic(
    asked(
        "a",
        "https://api.example.org/login?next=%2Fcart&token=t",
        method="POST",
        headers=pairs(Content_Type="application/json", Authorization="Bearer b", Cookie="c=d"),
        data=base64_lines(b'{"user": "u", "password": "p"}'),
    ),
    answered(
        "a",
        headers=pairs(Content_Type="application/json", Content_Encoding="gzip", Set_Cookie="sid=1"),
        data=base64_lines(gzip.compress(b'{"access_token": "t", "name": "N"}')),
        isMock=True,
    ),
    asked(IOS_ID, "https://example.org/picture", timestamp=1_718_000_000_421, data=None),
    answered(IOS_ID, reason="no error", headers=pairs(Content_Type="image/png"), data="iVBORw0KGgo="),
    asked("failed", "not a url ]["),
    asked("bytes", method="PUT", data=base64_lines(b"\xff\x00")),
    answered("bytes", 302, headers=pairs(Location="https://example.org/?token=t")),
    asked("part"),
    answered("part", totalChunks=3, index=0, data="YQ=="),
    answered("orphan"),
    asked("odd", "http://[::1", timestamp=-5, headers=pairs(Content_Type="text/plain"), data=""),
    asked("spaces", "https://example.org/a b|c[1]"),
    asked("ipv6", "http://[::1]:8080/"),
    asked("nothing", ""),
    asked("future", timestamp=9_000_000_000_000_000),
)


def har(made: Traffic = MANY, *, secrets: bool = False, dropped: int = 0, **more: Any) -> dict[str, Any]:
    written = Writer(secrets=secrets, **more).har([one.seen() for one in made], creator="0", dropped=dropped)
    found: dict[str, Any] = json.loads(json.dumps(written))
    har_schema.check(found)
    return found


def entries(**more: Any) -> dict[str, Any]:
    return {entry["_id"]: entry for entry in har(**more)["log"]["entries"]}


@pytest.mark.parametrize("secrets", [False, True])
def test_whatever_apps_tell_is_valid_har(secrets: bool) -> None:
    found = har(secrets=secrets, dropped=7)["log"]
    assert len(found["entries"]) == len(MANY) - 1
    assert found["comment"].startswith("7 older exchanges were dropped to make room; 1 responses without a request")
    assert har(traffic()) == {
        "log": {"version": "1.2", "creator": {"name": "rsocket-broker", "version": "0"}, "entries": []}
        | {"comment": "secrets are replaced by [redacted]"}
    }


def test_an_entry_says_what_was_asked_answered_and_how_long_it_took() -> None:
    found = entries(secrets=True)["a"]
    assert (found["startedDateTime"], found["time"]) == ("2024-06-10T06:13:20.000+00:00", 420)
    assert found["timings"]["wait"] == 420
    assert found["request"]["queryString"] == [{"name": "next", "value": "/cart"}, {"name": "token", "value": "t"}]
    assert found["request"]["postData"] == {"mimeType": "application/json", "text": '{"user": "u", "password": "p"}'}
    content = found["response"]["content"]
    assert content["text"] == '{"access_token": "t", "name": "N"}'
    assert content["size"] == 34
    assert found["response"]["bodySize"] > 0
    assert found["_mock"] is True


def test_secrets_are_nowhere_unless_they_are_asked_for() -> None:
    text = json.dumps(har())
    for secret in ("Bearer b", "c=d", "sid=1", "token=t", 'access_token\\": \\"t', '\\"p\\"'):
        assert secret not in text, secret
    assert "Bearer b" in json.dumps(har(secrets=True))
    assert '\\"name\\": \\"N\\"' in text


def test_bytes_are_base64_and_say_so() -> None:
    found = entries()
    picture = found[str(IOS_ID)]["response"]["content"]
    assert picture == {
        "size": 8,
        "compression": 0,
        "mimeType": "image/png",
        "text": "iVBORw0KGgo=",
        "encoding": "base64",
    }
    posted = found["bytes"]["request"]["postData"]
    assert base64.b64decode(posted["text"]) == b"\xff\x00"
    assert (posted["_encoding"], posted["comment"]) == ("base64", "the text is base64")
    assert found["bytes"]["response"]["redirectURL"] == "https://example.org/?token=%5Bredacted%5D"


def test_what_is_missing_is_said() -> None:
    found = entries()
    assert (found["failed"]["response"]["status"], found["failed"]["_state"]) == (0, "open")
    assert found["part"]["response"]["content"]["comment"] == "2 parts of the body are missing"
    assert found["bytes"]["response"]["content"]["comment"] == "the app shows no body"
    assert found["odd"]["request"]["queryString"] == []


def test_bodies_beyond_the_room_are_left_out_and_say_so() -> None:
    found = entries(room=40)
    assert found["a"]["request"]["postData"]["text"]
    assert "too large" in found["a"]["response"]["content"]["comment"]


@pytest.mark.parametrize(
    ("given", "written"),
    [
        ("https://h/a?b=c%20d#e", "https://h/a?b=c%20d#e"),
        ("https://h/a b|c[1]", "https://h/a%20b%7Cc%5B1%5D"),
        ("http://u@[::1]:80/[", "http://u@[::1]:80/%5B"),
        ("wss://é/", "wss://%C3%A9/"),
        ("data:,x", "data:,x"),
        ("", "unknown:none"),
        ("/path only", "unknown:/path%20only"),
    ],
)
def test_addresses_are_written_as_the_format_wants_them(given: str, written: str) -> None:
    assert uri(given) == written


def test_times_that_no_calendar_has_become_the_nearest() -> None:
    assert iso(-1) == "1970-01-01T00:00:00.000+00:00"
    assert iso(LATEST * 2) == "9999-12-31T00:00:00.000+00:00"


def test_one_exchange_is_shown_also_without_its_request() -> None:
    write = Writer(secrets=False).shown
    (orphan,) = (one for one in MANY if one.state == "orphan")
    assert "request" not in write(orphan.seen())
    assert write(next(iter(MANY)).seen())["_number"] == 1


def test_the_check_itself_finds_what_is_wrong() -> None:
    broken = har()
    del broken["log"]["entries"][0]["timings"]["wait"]
    with pytest.raises(AssertionError, match=r"har\.log\.entries\[0\]\.timings\.wait is missing"):
        har_schema.check(broken)
