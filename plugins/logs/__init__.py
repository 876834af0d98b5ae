"""The log of the device that an app runs on."""

from rsocket_broker.plugins.logs.handler import DeviceLogs

plugin = DeviceLogs

__all__ = ["DeviceLogs", "plugin"]
