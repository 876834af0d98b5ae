"""The decorators and the base class."""

import pytest

from rsocket_broker.plugin_api import Plugin, event, method
from rsocket_broker.plugin_api.plugin import MARK, Kind, Mark, Unset


def test_a_decorator_leaves_the_function_as_it_is_but_for_its_mark() -> None:
    def handler() -> None: ...

    assert method("name", deadline=None)(handler) is handler
    assert getattr(handler, MARK) == Mark(Kind.METHOD, "name", None)
    event("other")(handler)
    assert getattr(handler, MARK) == Mark(Kind.EVENT, "other", Unset.UNSET)


@pytest.mark.parametrize("decorator", [event, method])
def test_a_decorator_without_a_name_says_how_it_is_written(decorator: object) -> None:
    def handler() -> None: ...

    with pytest.raises(TypeError, match=r'@\w+\("name"\)'):
        decorator(handler)  # type: ignore[operator]


def test_a_plugin_greets_nobody_unless_it_is_told_to() -> None:
    assert Plugin().on_connect(None) is None  # type: ignore[arg-type]
    assert Plugin().on_disconnect(None) is None  # type: ignore[arg-type]
