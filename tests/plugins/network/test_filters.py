"""Which exchanges are meant."""

import pytest

from rsocket_broker.plugin_api import Invalid
from rsocket_broker.plugins.network.filters import matches, wanted
from tests.plugins.network.shapes import answered, asked, traffic

MADE = traffic(
    asked("1"),
    answered("1", 204),
    asked("2", "https://cdn.example.org/a.png", method="POST"),
    answered("2", 503),
    asked("3"),
    answered("4", 200),
)


@pytest.mark.parametrize(
    ("filters", "keys"),
    [
        ({}, "1234"),
        ({"method": "post"}, "2"),
        ({"url": "cart"}, "13"),
        ({"url": "https://*.png"}, "2"),
        ({"status": 204}, "1"),
        ({"status": "2xx"}, "14"),
        ({"status": "5xx, 200-204"}, "124"),
        ({"status": "open"}, "3"),
        ({"status": "orphan"}, "4"),
        ({"after": 2}, "34"),
        ({"method": "GET", "url": "cart", "status": "2xx", "after": 1}, ""),
    ],
)
def test_filters_hold_together(filters: dict[str, str], keys: str) -> None:
    look_for = wanted(**filters)  # type: ignore[arg-type]
    assert "".join(one.key for one in MADE if look_for.fits(one)) == keys


@pytest.mark.parametrize(
    ("pattern", "url", "fits"),
    [
        ("a.b", "xa.by", True),
        ("a*", "xa", False),
        ("*a*b*", "xxaxxbxx", True),
        ("*a*b*", "xxbxxaxx", False),
        ("ab*ba", "aba", False),
        ("*", "", True),
        ("a?b", "a?b", True),
        ("[a]*", "a", False),
    ],
)
def test_a_star_stands_for_any_text_and_nothing_else_is_special(pattern: str, url: str, fits: bool) -> None:
    assert matches(pattern, url) is fits


@pytest.mark.parametrize("status", ["soon", "20x", "2xx-3xx", "200-", "1000", "-1", "٢٠٠٠"])
def test_a_status_that_is_none_is_named(status: str) -> None:
    with pytest.raises(Invalid, match="status"):
        wanted(status=status)


def test_what_is_asked_for_has_words() -> None:
    assert wanted("post", "/login", "2xx,404,open").words == "POST of /login with status 200-299,404,open"
    assert wanted().words == "exchange"
