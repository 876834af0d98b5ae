"""A short cut past the check of parameters, for the messages in which everything is as it should be.

Most handlers take a few parameters of JSON's own types, and nearly every message has them all. Then two calls that the
interpreter makes by itself find out that nothing is missing and nothing of a wrong type, in a quarter of the time that
the thorough check takes. Whatever is not so plain goes to the thorough check, which alone says what is wrong.
"""

from collections.abc import Callable, Mapping
from operator import itemgetter
from types import NoneType
from typing import Any, Final

from rsocket_broker.jsontext import SHORT, skim
from rsocket_broker.plugin_api.app import App

StartJson = Callable[[App, object], Any]
StartData = Callable[[App, bytes], Any]
StartSkimmed = Callable[[App, object, bytes], Any]
"""Takes what `skim` made of the text, and the text."""

_SAFE: Final[dict[object, type]] = {
    None: NoneType,
    NoneType: NoneType,
    **{kind: kind for kind in (bool, int, str)},
}
"""Annotations that one type satisfies, so that the value is taken as it came; of `skim` too."""
_EXACT: Final[dict[object, type]] = _SAFE | {kind: kind for kind in (float, list, dict)}


def direct(function: Callable[..., Any], annotations: Mapping[str, object], thorough: StartJson) -> StartJson:
    """Calls `function(app, ...)` with the values under the names in `annotations`, which is their order.

    `thorough(app, value)` does it for any other value, and for annotations that no single type satisfies.
    """
    kinds = _kinds(annotations, _EXACT)
    if kinds is None:
        return thorough
    pick = _picker(annotations)

    def start(app: App, value: Any) -> Any:
        try:
            given = pick(value)
        except (KeyError, TypeError):
            return thorough(app, value)
        return function(app, *given) if tuple(map(type, given)) == kinds else thorough(app, value)

    return start


def direct_skimmed(
    function: Callable[..., Any], annotations: Mapping[str, object], thorough: StartData
) -> StartSkimmed | None:
    """The same for values from `skim`. None where their type does not say enough.

    `thorough(app, data)` does it from the text.
    """
    kinds = _kinds(annotations, _SAFE)
    if kinds is None:
        return None
    if len(kinds) == 1:
        return _one_skimmed(function, next(iter(annotations)), kinds[0], thorough)
    pick = _picker(annotations)

    def start(app: App, value: Any, data: bytes) -> Any:
        try:
            given = pick(value)
        except (KeyError, TypeError):
            return thorough(app, data)
        return function(app, *given) if tuple(map(type, given)) == kinds else thorough(app, data)

    return start


def _one_skimmed(function: Callable[..., Any], name: str, kind: type, thorough: StartData) -> StartSkimmed:
    """The most common of all, so it gets its own way: one step less."""

    def start(app: App, value: Any, data: bytes) -> Any:
        if type(value) is dict and name in value and type(given := value[name]) is kind:
            return function(app, given)
        return thorough(app, data)

    return start


def direct_data(start: StartSkimmed, thorough: StartData) -> StartData:
    """The same for text that has not been looked at."""

    def start_data(app: App, data: bytes) -> Any:
        if len(data) > SHORT:
            return thorough(app, data)
        try:
            value = skim(data)
        except ValueError:
            return thorough(app, data)
        return start(app, value, data)

    return start_data


def _kinds(annotations: Mapping[str, object], known: Mapping[object, type]) -> tuple[type, ...] | None:
    """The type that each annotation asks for; None where one is not known, or there is none at all."""
    try:
        return tuple(known[annotation] for annotation in annotations.values()) or None
    except (KeyError, TypeError):  # TypeError: an annotation that has no hash
        return None


def _picker(names: Mapping[str, object]) -> Callable[[Any], tuple[Any, ...]]:
    """From a JSON object to its values under `names`. Raises KeyError or TypeError where they are not all there."""
    if len(names) > 1:
        return itemgetter(*names)
    (name,) = names

    def pick(value: Any) -> tuple[Any, ...]:
        return (value[name],)

    return pick
