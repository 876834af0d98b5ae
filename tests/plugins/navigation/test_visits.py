"""Visits from events, and links from templates."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsocket_broker.plugin_api import Invalid
from rsocket_broker.plugins.navigation.visits import filled, is_of, java_date, places, visit

SIX = datetime(2024, 6, 10, 6, 0, 0, tzinfo=UTC).timestamp() * 1000


@pytest.mark.parametrize(
    "date",
    [
        "Mon Jun 10 08:00:00 GMT+02:00 2024",
        "Mon Jun 10 08:00:00 CEST 2024",
        "Mon Jun 10 06:00:00 UTC 2024",
        "Mon Jun 10 06:00:00 GMT 2024",
        "Sun Jun 09 23:00:00 PDT 2024",
        "Mon Jun 10 00:30:00 GMT-05:30 2024",
    ],
)
def test_a_java_date_is_read_in_its_zone(date: str) -> None:
    assert java_date(date) == SIX


@pytest.mark.parametrize(
    "date",
    [
        "",
        "Mon Jun 10 08:00:00 AST 2024",
        "Mon Foo 10 08:00:00 UTC 2024",
        "Mon Jun 31 08:00:00 UTC 2024",
        "2024-06-10T08:00:00Z",
        "Mo Jun 10 08:00:00 MESZ 2024",
        "Mon Jun 10 08:00:00 EST+02:00x 2024",
    ],
)
def test_a_date_that_cannot_be_read_is_that_of_arrival(date: str) -> None:
    assert java_date(date) is None
    assert visit({"uri": "a:b", "date": date}, 7.0).time == 7.0


@pytest.mark.row("M-7")
@given(st.text(max_size=80))
def test_no_date_makes_it_fail(date: str) -> None:
    java_date(date)


def test_an_event_with_less_than_everything() -> None:
    whole = {
        "uri": "shop%3A%2F%2Fcart%3Fq%3D%2520",
        "class": "org.example.Cart",
        "date": "Mon Jun 10 06:00:00 UTC 2024",
    }
    seen = visit(whole, 7.0)
    assert seen == (SIX, 7.0, "shop://cart?q=%20", "org.example.Cart")
    assert visit({"class": "A"}, 7.0).uri == ""
    assert visit({"uri": "a:b", "class": None}, 7.0).screen == ""
    for wrong in ({}, {"uri": None}, {"uri": ["x"]}, {"class": {}}):
        with pytest.raises(Invalid):
            visit(wrong, 7.0)


def test_a_visit_is_of_its_link_or_of_its_screen() -> None:
    seen = visit({"uri": "shop://item/a%20b", "class": "Item"}, 0.0)
    assert is_of(seen, "shop://item/a%20b")
    assert is_of(seen, "shop://item/a b")
    assert is_of(seen, "Item")
    assert not is_of(seen, "shop://item/a")


def test_a_template_is_filled_with_values() -> None:
    template = 'shop://p/{#id}?ref={?src}&on={!on}&x={name}&json={"a": 1}'
    assert places(template) == ["#id", "?src", "!on", "name"]
    values = {"id": 7, "on": True, "name": "a b&c"}
    assert filled(template, values) == 'shop://p/7?ref=&on=true&x=a%20b%26c&json={"a": 1}'
    assert filled(template, {**values, "id": "-1.5", "src": "mail"}).startswith("shop://p/-1.5?ref=mail&")
    assert filled("shop://plain", {}) == "shop://plain"
    assert filled("a:{}{?}", {}) == "a:{}{?}"


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"on": True, "name": "x"}, "id is missing"),
        ({"id": "x", "on": True, "name": "x"}, "id must be a number"),
        ({"id": 1, "on": "perhaps", "name": "x"}, "on must be true or false"),
        ({"id": 1, "on": True, "name": "\ud83d"}, "name holds half a character"),
        ({"id": 1, "on": True, "name": "x", "other": 1}, r"no \{other\}; it has id, name, on"),
    ],
)
def test_values_that_do_not_fit_are_named(values: dict[str, object], text: str) -> None:
    with pytest.raises(Invalid, match=text):
        filled("a:{#id}{!on}{name}", values)


@pytest.mark.row("M-7")
def test_templates_without_end_or_bottom_are_taken_or_refused() -> None:
    with pytest.raises(Invalid, match="longer than"):
        filled("a:" + "{" * 10_000, {})
    deep = 'a:{"x": ' + "[" * 4000 + "}"
    assert places(deep) == [deep[3:-1]]
