"""A plugin's own settings: the table `[plugins.ID]` of the config, as the attrs class that the plugin declares."""

import typing
from collections.abc import Mapping
from typing import Any

import attrs

from rsocket_broker.errors import ConfigurationError
from rsocket_broker.plugin_api.inspection import location
from rsocket_broker.plugin_api.parameters import Mismatch, UnknownAnnotation, checker
from rsocket_broker.plugin_api.plugin import Plugin


def apply_settings(plugin: Plugin, table: Mapping[str, object] | None) -> None:
    """Put the validated settings into `plugin.settings`. `table` is None when the config has none for this plugin.

    Raises ConfigurationError for a key that is unknown (naming the nearest), missing or of a wrong type, for settings
    of a plugin that takes none, and for a declaration that is no attrs class.
    """
    cls = type(plugin)
    declared = _declared(cls)
    if declared is None:
        if table:
            raise ConfigurationError(f"[plugins.{plugin.id}]: the plugin at {location(None, cls)} takes no settings.")
        return
    try:
        settings = checker(declared, strict=True)(dict(table or {}))
    except UnknownAnnotation as error:
        raise ConfigurationError(f"{location(None, cls)}: {cls.__name__}.settings: {error}.") from error
    except Mismatch as mismatch:
        path = mismatch.path or "the table"
        text = f"[plugins.{plugin.id}] {path}: wanted {mismatch.wanted}, got {mismatch.got}"
        cause = f" ({mismatch.__cause__})" if mismatch.__cause__ else ""
        raise ConfigurationError(f"{text}{cause}.") from mismatch
    target: Any = plugin
    target.settings = settings


def _declared(cls: type[Plugin]) -> type | None:
    try:
        declared = typing.get_type_hints(cls).get("settings")
    except (NameError, AttributeError, TypeError) as error:
        raise ConfigurationError(
            f"{location(None, cls)}: {cls.__name__}: an annotation is unknown: {error}."
        ) from error
    if declared is None:
        return None
    if not isinstance(declared, type) or not attrs.has(declared):
        raise ConfigurationError(
            f"{location(None, cls)}: {cls.__name__}.settings must be annotated with an attrs class."
        )
    return declared
