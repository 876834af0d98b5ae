"""Where an app is, where it has been, and going there by deep link."""

from rsocket_broker.plugins.navigation.handler import Navigation

plugin = Navigation

__all__ = ["Navigation", "plugin"]
