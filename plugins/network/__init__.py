"""What apps say of their HTTP traffic: recorded, waited for, exported."""

from rsocket_broker.plugins.network.handler import Network

plugin = Network

__all__ = ["Network", "plugin"]
