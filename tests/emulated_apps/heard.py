"""A server's side of one emulated plugin: what it sends is kept."""

from typing import Any

from emulated_apps import AppPlugin


def listen(plugin: AppPlugin) -> list[tuple[str, Any]]:
    """Takes the plugin into use; the list grows with its events."""
    events: list[tuple[str, Any]] = []
    plugin.attach(lambda name, params: events.append((name, params)))
    return events
