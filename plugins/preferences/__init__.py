"""What apps keep in their preferences: read, written, watched, put back."""

from rsocket_broker.plugins.preferences.handler import Preferences

plugin = Preferences

__all__ = ["Preferences", "plugin"]
