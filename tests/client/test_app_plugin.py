"""How an app's plugin is described, and what is refused before anything is connected."""

from collections.abc import AsyncIterator

import pytest

from rsocket_broker.client.app_plugin import AppMethod, AppPlugin, by_id, method
from rsocket_broker.errors import ConfigurationError
from rsocket_broker.jsontext import JsonError, dump


class Sent:
    """A line that keeps what it was given."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str, object]] = []

    def emit(self, plugin: str, method: str, params: object) -> bool:
        dump(params)
        self.events.append((plugin, method, params))
        return True


class Counter(AppPlugin):
    id = "Counter"
    background = True

    @method("add")
    async def add(self, params: dict[str, int]) -> dict[str, int]:
        return {"sum": params["a"] + params["b"]}

    @method("ticks")
    async def ticks(self) -> AsyncIterator[int]:
        yield 1

    @method("mirror")
    async def mirror(self, params: object, incoming: AsyncIterator[object]) -> AsyncIterator[object]:
        yield params


class Doubled(Counter):
    @method("twice")
    def twice(self, params: int) -> int:
        return 2 * params


def test_methods_are_found_with_what_they_take_and_whether_they_yield() -> None:
    assert Counter.methods == {
        "add": AppMethod("add", "add", 1, False),
        "ticks": AppMethod("ticks", "ticks", 0, True),
        "mirror": AppMethod("mirror", "mirror", 2, True),
    }


def test_a_subclass_has_the_methods_of_its_parents() -> None:
    assert set(Doubled.methods) == {"add", "ticks", "mirror", "twice"}
    assert set(Counter.methods) == {"add", "ticks", "mirror"}


def test_a_call_gives_a_method_only_what_it_takes() -> None:
    assert Doubled.methods["twice"].call(Doubled(), 21, "more") == 42


def test_two_methods_of_one_name_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="'same'"):

        class Twice(AppPlugin):
            @method("same")
            def one(self) -> None: ...

            @method("same")
            def other(self) -> None: ...


def test_a_method_that_wants_what_nobody_gives_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="greedy"):

        class Greedy(AppPlugin):
            @method("greedy")
            def greedy(self, one: int, two: int, three: int) -> None: ...


def test_plugins_are_known_by_their_ids() -> None:
    counter = Counter()
    assert by_id([counter]) == {"Counter": counter}


def test_a_plugin_without_an_id_is_refused() -> None:
    class Nameless(AppPlugin):
        pass

    with pytest.raises(ConfigurationError, match="Nameless has no id"):
        by_id([Nameless()])


def test_two_plugins_of_one_id_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="'Counter'"):
        by_id([Counter(), Doubled()])


def test_events_are_sent_only_while_the_broker_uses_the_plugin() -> None:
    plugin, line = Counter(), Sent()
    assert not plugin.emit("early", {})
    plugin.attach(line)
    assert plugin.active
    assert plugin.emit("now")
    plugin.attach(None)
    assert not plugin.emit("late", {})
    assert line.events == [("Counter", "now", {})]


def test_an_event_that_is_not_json_is_the_callers_error() -> None:
    plugin = Counter()
    plugin.attach(Sent())
    with pytest.raises(JsonError):
        plugin.emit("odd", object())
