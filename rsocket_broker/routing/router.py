"""From a route to the plugin that serves it."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from rsocket_broker.errors import ConfigurationError, Invalid, Rejected
from rsocket_broker.protocol.metadata import CLIENT
from rsocket_broker.routing.access import Access
from rsocket_broker.routing.plugin_host import PluginHost

NO_RELAY = "This broker passes no requests on to other clients."
NOT_IN_TIME = "A route to another client must stand in the first fragment of its request."
"""What can be passed on without being put together first never comes to a router."""


class Router:
    """All plugins of a broker, by id. A route is `<plugin id>.<name>`; both parts may hold dots."""

    def __init__(self, hosts: Iterable[PluginHost], access: Access) -> None:
        self.access = access
        """Who may ask whom."""
        self.hosts: Mapping[str, PluginHost] = MappingProxyType({host.id: host for host in hosts})
        for host in self.hosts.values():
            for handler in host.routes.handlers():
                taken = self.resolve(handler.route)[0]
                if taken is not host:
                    raise ConfigurationError(
                        f"{handler.where}: the route {handler.route} belongs to the plugin {taken.id} "
                        f"({taken.origin}), whose id it begins with."
                    )

    def resolve(self, route: str | None) -> tuple[PluginHost, str]:
        """The plugin with the longest id that the route begins with, and the rest of the route.

        Raises Invalid for no route and for one that leads nowhere, Rejected for one that leads to another client.
        """
        if not route:
            raise Invalid("The request has no route: its metadata must hold a routing entry (composite metadata).")
        if route.startswith(CLIENT):
            raise Rejected(NOT_IN_TIME if self.access.policy.relays else NO_RELAY)
        end = route.rfind(".")
        while end > 0:
            host = self.hosts.get(route[:end])
            if host is not None:
                return host, route[end + 1 :]
            end = route.rfind(".", 0, end)
        raise Invalid(f'No plugin serves the route "{route[:100]}".')
