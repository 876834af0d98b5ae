"""What a mistyped name is answered with, and many names in one line."""

import pytest

from rsocket_broker.spelling import listed, nearest


@pytest.mark.parametrize(
    ("name", "known", "words"),
    [
        ("methodx", ["method", "app"], 'Did you mean "method"?'),
        ("zzz", ["method", "app"], "Known: app, method."),
        ("zzz", [], "Nothing can be set here."),
    ],
)
def test_the_nearest_name_is_offered_or_all_of_them(name: str, known: list[str], words: str) -> None:
    assert nearest(name, known) == words


def test_many_names_are_cut_short_with_their_number() -> None:
    assert listed(["a", "b"], 2) == "a, b"
    assert listed(["a", "b", "c", "d"], 2) == "a, b and 2 more"
    assert listed([], 2) == ""
