"""A short cut past the check of parameters, for the messages in which everything is as it should be.

Most handlers take a few parameters of JSON's own types, and nearly every message has them all. Then two calls that the
interpreter makes by itself find out that nothing is missing and nothing of a wrong type, in a quarter of the time that
the thorough check takes. Whatever is not so plain goes to the thorough check, which alone says what is wrong.
"""

from collections.abc import Callable, Mapping
from operator import itemgetter
from types import NoneType
from typing import Any, Final

from rsocket_broker.plugin_api.app import App

Start = Callable[[App, object], Any]

_EXACT: Final[dict[object, type]] = {
    None: NoneType,
    NoneType: NoneType,
    **{kind: kind for kind in (bool, int, float, str, list, dict)},
}
"""Annotations that one type satisfies, so that the value is taken as it came."""


def direct(function: Callable[..., Any], annotations: Mapping[str, object], thorough: Start) -> Start:
    """Calls `function(app, ...)` with the values under the names in `annotations`, which is their order.

    `thorough(app, value)` does it for any other value, and for annotations that no single type satisfies.
    """
    kinds = tuple(_exact(annotation) for annotation in annotations.values())
    if None in kinds or not kinds:
        return thorough
    if len(kinds) == 1:
        return _direct_one(function, next(iter(annotations)), kinds[0], thorough)
    pick = itemgetter(*annotations)

    def start(app: App, value: Any) -> Any:
        try:
            given = pick(value)
        except (KeyError, TypeError, IndexError):
            return thorough(app, value)
        return function(app, *given) if tuple(map(type, given)) == kinds else thorough(app, value)

    return start


def _direct_one(function: Callable[..., Any], name: str, kind: object, thorough: Start) -> Start:
    def start(app: App, value: Any) -> Any:
        if type(value) is dict and type(given := value.get(name, value)) is kind and given is not value:
            return function(app, given)
        return thorough(app, value)

    return start


def _exact(annotation: object) -> type | None:
    try:
        return _EXACT.get(annotation)
    except TypeError:  # an annotation that has no hash
        return None
