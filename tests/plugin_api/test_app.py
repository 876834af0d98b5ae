"""The interface that handlers are given; what implements it is tested where it is."""

import pytest

from rsocket_broker.plugin_api import App
from rsocket_broker.plugin_api.testing import FakeApp, fake_identity


def test_an_app_is_hashable_equal_to_itself_only_and_holds_what_its_author_likes() -> None:
    one, two = (FakeApp(1, fake_identity(), {}, {}) for _ in range(2))
    assert one != two
    assert len({one, two}) == 2
    one.state.anything = [1]
    assert not hasattr(two.state, "anything")
    one.state = {"of": "their own"}
    assert one.state["of"] == "their own"


def test_nobody_makes_one_without_saying_how_it_talks() -> None:
    with pytest.raises(TypeError, match="abstract"):
        App()  # type: ignore[abstract]
