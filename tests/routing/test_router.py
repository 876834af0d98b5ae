"""From a route to its plugin."""

import pytest

from rsocket_broker.errors import ConfigurationError, Invalid, Rejected
from rsocket_broker.plugin_api import App, Plugin, method
from rsocket_broker.routing.access import Access
from rsocket_broker.routing.plugin_host import PluginHost
from rsocket_broker.routing.router import Router
from rsocket_broker.routing.tasks import Tasks
from tests.routing.line import loaded, usual_policy


def plugin(plugin_id: str, *names: str) -> Plugin:
    def handler(self: Plugin, app: App) -> None: ...

    body: dict[str, object] = {"id": plugin_id}
    for number, name in enumerate(names):
        function = type(handler)(handler.__code__, globals(), f"m{number}")
        body[f"m{number}"] = method(name)(function)
    made: Plugin = type("Made", (Plugin,), body)()
    return made


def router(*plugins: Plugin, relay: bool = False) -> Router:
    return Router((PluginHost(one, Tasks()) for one in loaded(*plugins)), Access(usual_policy(relay=relay)))


def test_the_longest_id_wins_and_the_rest_is_the_name() -> None:
    routes = router(plugin("a", "x", "b"), plugin("a.c", "x"), plugin("com.example.Demo", "get.all"))
    for route, plugin_id, name in [
        ("a.x", "a", "x"),
        ("a.b", "a", "b"),
        ("a.c.x", "a.c", "x"),
        ("a.b.c", "a", "b.c"),
        ("com.example.Demo.get.all", "com.example.Demo", "get.all"),
        ("a.", "a", ""),
    ]:
        host, rest = routes.resolve(route)
        assert (host.id, rest) == (plugin_id, name)


@pytest.mark.parametrize("route", [None, "", "a", ".a", "b.x", "A.x", "." * 1000, "a" * 1000])
def test_a_route_that_leads_nowhere(route: str | None) -> None:
    with pytest.raises(Invalid):
        router(plugin("a", "x")).resolve(route)


def test_another_client_is_not_reached() -> None:
    with pytest.raises(Rejected):
        router(plugin("a", "x")).resolve("client:a.x")


def test_a_route_that_two_plugins_would_serve_is_refused_at_load() -> None:
    with pytest.raises(ConfigurationError, match=r"the route a\.c\.x belongs to the plugin a\.c"):
        router(plugin("a", "c.x"), plugin("a.c", "x"))
