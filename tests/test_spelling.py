"""What a mistyped name is answered with."""

import pytest

from rsocket_broker.spelling import nearest


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
