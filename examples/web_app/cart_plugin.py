"""What the broker knows about the carts of a shop that runs in a page, or in Node.

Run it:

    rsocket-broker serve --browser-port 8333 --plugin examples/web_app/cart_plugin.py

then start the shop as README.md says.
"""

from rsocket_broker.plugin_api import App, Plugin, event, method


class Cart(Plugin):
    id = "Cart"  # the name that the app's side of it has, too

    def __init__(self) -> None:
        self.shops: dict[str, list[str]] = {}

    @event("changed")
    def changed(self, app: App, items: list[str]) -> None:
        """Pushed by a shop. Nothing has proved who that is, so what it says is no more than what it says."""
        self.shops[app.id] = items

    @method("carts")
    def carts(self, app: App) -> list[list[str]]:
        """For other clients, those with a certificate: what is in the carts of all shops."""
        return list(self.shops.values())

    def on_disconnect(self, app: App) -> None:
        self.shops.pop(app.id, None)


plugin = Cart()
