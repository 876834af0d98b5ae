"""`rsocket-broker app`: what the plugins of connected apps offer, from the command line."""

import importlib

import click

GROUPS = ("network", "databases", "preferences", "crashes", "navigation", "images", "layout", "leaks", "logs")
"""Each lives in the module of this package that has its name. One that is spelt with a hyphen has an underscore
there."""


@click.group()
def app() -> None:
    """What connected apps offer: their network traffic, databases, preferences, crashes, screens, logs.

    The app must be connected, and carry the plugin that a command is about. CLIENT is a session's id, or
    APP_ID[@DEVICE_ID] that matches one session; --client may be left out while one client alone has the plugin.

    \b
    Examples:
      rsocket-broker app network list
      rsocket-broker app network har --out traffic.har
      rsocket-broker app databases query "SELECT * FROM users"
      rsocket-broker app preferences set dark_mode true
      rsocket-broker app navigation open shop://cart
    """


for _name in GROUPS:
    app.add_command(getattr(importlib.import_module(f"rsocket_broker.cli.app.{_name.replace('-', '_')}"), _name))
