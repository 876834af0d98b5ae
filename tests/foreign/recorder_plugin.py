"""A plugin for the tests: remembers what apps push, and tells it to whoever asks by `Recorder.events`."""

from rsocket_broker.plugin_api import App, Plugin, event, method


class Recorder(Plugin):
    id = "Recorder"

    def __init__(self) -> None:
        self.events: list[dict[str, object]] = []

    @event("noted")
    def noted(self, app: App, params: dict[str, object]) -> None:
        self.events.append({"app_id": app.identity.app_id, "params": params})

    @method("events")
    def told(self, app: App) -> list[dict[str, object]]:
        return self.events


plugin = Recorder()
