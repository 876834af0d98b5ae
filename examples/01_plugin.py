"""A plugin in one file: what the broker knows about a thermostat app, and how others reach it.

Run it:

    rsocket-broker serve --plugin examples/01_plugin.py

then start the app of the next example beside it. What you see here is all that a plugin is: a class with an id,
handlers for what the app pushes, and methods that anyone who is connected may call by `Thermostat.<name>`.
"""

from collections.abc import AsyncIterator

from rsocket_broker.plugin_api import App, ApplicationError, Plugin, event, method

COLDEST, WARMEST = 5, 30


class Thermostat(Plugin):
    id = "Thermostat"  # the name that the app's side of it has, too

    async def on_connect(self, app: App) -> None:
        app.state = []  # the readings of this app; gone with its session

    @event("reading")
    def reading(self, app: App, celsius: float) -> None:
        """Pushed by the app. A message without a number for `celsius` never gets here."""
        app.state.append(celsius)

    @method("average")
    def average(self, app: App) -> dict[str, float]:
        if not app.state:
            raise ApplicationError("no reading yet")  # told to the caller, word for word
        return {"celsius": sum(app.state) / len(app.state)}

    @method("history")
    async def history(self, app: App) -> AsyncIterator[float]:
        """Yields: a stream, and the caller decides how fast."""
        for celsius in list(app.state):
            yield celsius

    @method("set")
    async def set(self, app: App, celsius: float) -> dict[str, object]:
        """Calls the app, over the same line."""
        if not COLDEST <= celsius <= WARMEST:
            raise ApplicationError(f"{celsius} is not between {COLDEST} and {WARMEST}")
        answer: dict[str, object] = await app.call("setTarget", {"celsius": celsius})
        return answer


plugin = Thermostat()
