"""The echo plugin: every interaction, good and bad, to test clients and networks against."""

from rsocket_broker.plugins.echo.handler import Echo

plugin = Echo

__all__ = ["Echo", "plugin"]
