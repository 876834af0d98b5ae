"""From a route to the plugin that serves it."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, NoReturn

from rsocket_broker.errors import ApplicationError, ConfigurationError, Invalid, Rejected
from rsocket_broker.identity import Identity
from rsocket_broker.plugin_api.app import App
from rsocket_broker.plugin_api.device import Device
from rsocket_broker.plugin_api.plugin import Plugin
from rsocket_broker.protocol.metadata import CLIENT
from rsocket_broker.routing.access import Access
from rsocket_broker.routing.aside import Aside
from rsocket_broker.routing.plugin_host import PluginHost

NO_RELAY = "This broker passes no requests on to other clients."
NOT_IN_TIME = "A route to another client must stand in the first fragment of its request."
"""What can be passed on without being put together first never comes to a router."""


Reach = Callable[[Any, str, str, str], Awaitable[App]]
"""From a session, the plugin that asks on its behalf, the name of another client, and the method that is to be asked
there, to that client as the plugin sees it."""


def _nobody(*_: object) -> NoReturn:
    raise Rejected(NO_RELAY)


Devices = Callable[[Identity], Awaitable[Device]]
"""From who a client is to the device that it runs on. Raises ApplicationError for one that cannot be reached."""


async def _no_devices(identity: Identity) -> Device:
    raise ApplicationError("This broker reaches no devices.")


class Router:
    """All plugins of a broker, by id. A route is `<plugin id>.<name>`; both parts may hold dots."""

    def __init__(self, hosts: Iterable[PluginHost], access: Access) -> None:
        self.access = access
        """Who may ask whom."""
        self.reach: Reach = _nobody
        """How a plugin finds another client; set by whoever knows them all."""
        self.devices: Devices = _no_devices
        """How a plugin finds the device behind a session; set by whoever can reach one."""
        self.ending = False
        """The broker stops: what is under way has a moment left."""
        self.aside = Aside()
        """Where large messages are read and written."""
        self.hosts: Mapping[str, PluginHost] = MappingProxyType({host.id: host for host in hosts})
        self.told_errors = [
            host for host in self.hosts.values() if type(host.plugin).on_app_error is not Plugin.on_app_error
        ]
        """The plugins that want to hear of errors that apps report."""
        for host in self.hosts.values():
            host.aside = self.aside
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
