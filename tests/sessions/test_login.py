"""What a login may say, and how a session looks in JSON."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsocket_broker.errors import Invalid
from rsocket_broker.sessions.login import (
    AUDIENCES,
    DEFAULT_LIFE,
    FIELDS,
    HIGHEST_RATE,
    LONGEST_LIFE,
    MAX_NAME,
    describe_node,
    parse_wish,
)
from rsocket_broker.sessions.tree import Node, NodeKind, Wish
from rsocket_broker.transports.base import Channel

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.row("W-7")
def test_a_name_is_enough() -> None:
    wanted = Wish(
        kind=NodeKind.WEB, channel=Channel.WS, expires=NOW + timedelta(seconds=DEFAULT_LIFE), name="Inspector"
    )
    assert parse_wish({"name": "Inspector"}, NOW) == wanted
    assert parse_wish(dict.fromkeys(FIELDS) | {"name": "Inspector"}, NOW) == wanted


@pytest.mark.row("W-7")
def test_everything_can_be_said() -> None:
    body = {
        "name": "Inspector",
        "kind": "cli",
        "device_id": "tab-1",
        "platform": "Firefox 140",
        "expires_in": 90,
        "scope": ["Network.*"],
        "rate": 5,
        "user": "anna",
        "audience": "wss",
    }
    assert set(body) == set(FIELDS)
    assert parse_wish(body, NOW) == Wish(
        kind=NodeKind.CLI,
        channel=Channel.WSS,
        expires=NOW + timedelta(seconds=90),
        scope=("Network.*",),
        rate=5.0,
        user="anna",
        device_id="tab-1",
        name="Inspector",
        platform="Firefox 140",
    )


@pytest.mark.row("W-8")
@pytest.mark.parametrize("name", ["parent", "parent_id", "parentId"])
def test_a_body_that_names_a_parent_is_refused_by_name(name: str) -> None:
    with pytest.raises(Invalid, match=f"^{name}: the session that asks is the parent"):
        parse_wish({"name": "x", name: "c1"}, NOW)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", None),
        ("name", ""),
        ("name", "x" * (MAX_NAME + 1)),
        ("name", "two\nlines"),
        ("kind", "device"),
        ("kind", ["web"]),
        ("device_id", 5),
        ("platform", "\x1b[31m"),
        ("expires_in", 0),
        ("expires_in", -1),
        ("expires_in", "1h"),
        ("expires_in", True),
        ("expires_in", float("nan")),
        ("scope", []),
        ("scope", "*"),
        ("rate", 0),
        ("rate", HIGHEST_RATE * 2),
        ("user", {"name": "anna"}),
        ("audience", "ws"),
        ("colour", "red"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(Invalid, match=field):
        parse_wish({"name": "x", field: value}, NOW)


def test_for_ever_is_a_year() -> None:
    assert parse_wish({"name": "x", "expires_in": 1e300}, NOW).expires == NOW + timedelta(seconds=LONGEST_LIFE)


texts = st.text("ab *.\n", max_size=4)
json_values = (
    st.none()
    | st.booleans()
    | st.floats()
    | st.integers(-5, 10**12)
    | texts
    | st.lists(texts, max_size=3)
    | st.sampled_from([{}, "web", "cli", "loopback", "tls", {"*": ["*"]}])
)


@given(st.dictionaries(st.sampled_from((*FIELDS, "parent", "other")), json_values, max_size=6))
def test_any_body_is_a_wish_or_refused(body: dict[str, object]) -> None:
    try:
        wish = parse_wish(body, NOW)
    except Invalid:
        return
    assert wish.expires > NOW
    assert wish.name
    assert wish.channel in AUDIENCES.values()


@pytest.mark.row("W-11")
def test_a_session_shows_audience_scope_expiry_and_parent() -> None:
    node = Node(
        id="s-1",
        kind=NodeKind.WEB,
        channel=Channel.WS,
        since=NOW,
        expires=NOW + timedelta(hours=1),
        parent="c1",
        scope=("Network.*",),
        name="Inspector",
    )
    shown = describe_node(node)
    assert (shown["audience"], shown["scope"], shown["parent"]) == ("loopback", ["Network.*"], "c1")
    assert shown["expires"] == "2026-01-01T01:00:00+00:00"
    assert json.loads(json.dumps(shown)) == shown
    assert describe_node(Node(id="c1", kind=NodeKind.DEVICE, channel=Channel.TLS, since=NOW, expires=NOW))["scope"] == [
        "*"
    ]
