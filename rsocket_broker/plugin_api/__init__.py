"""What a plugin author imports, and nothing else.

    from rsocket_broker.plugin_api import App, Plugin, event, method

    class Counter(Plugin):
        id = "Counter"

        @method("add")
        def add(self, app: App, a: int, b: int) -> dict:
            return {"sum": a + b}

A handler that has to say no raises `ApplicationError("why")`: the caller reads that text. `testing` runs a plugin
with no broker; `mount` takes in an rsocket-py handler or router as it is.
"""

from rsocket_broker.errors import ApplicationError, Canceled, ConnectionClosed, Invalid, Rejected, RequestFailed
from rsocket_broker.identity import Identity, Principal, Proof
from rsocket_broker.payload import ErrorCode, Payload
from rsocket_broker.plugin_api.app import App
from rsocket_broker.plugin_api.device import Device, LogLine
from rsocket_broker.plugin_api.plugin import Plugin, Restart, event, method

__all__ = [
    "App",
    "ApplicationError",
    "Canceled",
    "ConnectionClosed",
    "Device",
    "ErrorCode",
    "Identity",
    "Invalid",
    "LogLine",
    "Payload",
    "Plugin",
    "Principal",
    "Proof",
    "Rejected",
    "RequestFailed",
    "Restart",
    "event",
    "method",
]
