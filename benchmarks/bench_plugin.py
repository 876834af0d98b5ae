"""The plugin under measure: the same two jobs that the reference servers do."""

from rsocket_broker.plugin_api import App, Payload, Plugin, method


class Bench(Plugin):
    id = "bench"

    @method("echo")
    def echo(self, app: App, payload: Payload) -> Payload:
        return Payload(payload.data)

    @method("add")
    def add(self, app: App, a: int, b: int) -> dict[str, int]:
        return {"sum": a + b}


plugin = Bench
