"""`[plugins.ID]` as the attrs class that the plugin declares."""

from typing import Any

import attrs
import pytest

from rsocket_broker.errors import ConfigurationError
from rsocket_broker.plugin_api import Plugin
from rsocket_broker.plugin_api.configuration import apply_settings


@attrs.frozen
class Settings:
    folder: str
    keep: int = attrs.field(default=10, validator=attrs.validators.ge(1))


class Configured(Plugin):
    id = "configured"
    settings: Settings


class Bare(Plugin):
    id = "bare"


class Wrong(Plugin):
    id = "wrong"
    settings: int


def test_settings_arrive_validated() -> None:
    plugin = Configured()
    apply_settings(plugin, {"folder": "/tmp"})
    assert plugin.settings == Settings("/tmp", 10)


@pytest.mark.parametrize(
    ("plugin", "table", "text"),
    [
        (Configured(), {"folder": 1}, "[plugins.configured] folder: wanted str, got int."),
        (Configured(), None, "[plugins.configured] folder: wanted str, got nothing."),
        (Configured(), {"folder": "", "kep": 1}, "an unknown key (did you mean keep?)"),
        (Configured(), {"folder": "", "keep": 0}, "'keep' must be >= 1"),
        (Bare(), {"a": 1}, "takes no settings"),
        (Wrong(), {}, "Wrong.settings must be annotated with an attrs class"),
    ],
)
def test_settings_that_make_no_sense(plugin: Plugin, table: dict[str, Any] | None, text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        apply_settings(plugin, table)
    assert text in caught.value.public


def test_a_plugin_without_settings_needs_no_table() -> None:
    apply_settings(Bare(), None)
    apply_settings(Bare(), {})
