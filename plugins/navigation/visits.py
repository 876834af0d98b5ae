"""A visit of a screen, read from the app's event, and links made of templates.

    nav_event   {"uri": "shop://cart?id=3", "class": "org.example.Cart", "date": "Mon Jun 10 08:00:00 GMT+02:00 2024"}

Any of the three may be absent. The date is what Java prints of one.
"""

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple
from urllib.parse import quote, unquote

from rsocket_broker.plugin_api import Invalid
from rsocket_broker.plugin_api.device import MAX_LINK
from rsocket_broker.plugin_api.lenient import text

MAX_SCREEN = 512
"""Characters of a screen's name: a Java class name has up to 255."""
_MAX_DATE = 64

_DATE: Final = (
    r"[A-Z][a-z]{2} ([A-Z][a-z]{2}) (\d{1,2}) (\d\d):(\d\d):(\d\d) ([A-Z]{1,5})(?:([+-])(\d\d):?(\d\d))? (\d{4})"
)
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_ZONES: Final = {
    **dict.fromkeys(("GMT", "UTC", "UT", "Z", "WET"), 0),
    "EST": -5,
    "EDT": -4,
    "CDT": -5,
    "MST": -7,
    "MDT": -6,
    "PST": -8,
    "PDT": -7,
    "CET": 1,
    "CEST": 2,
    "MEZ": 1,
    "MESZ": 2,
    "WEST": 1,
    "EET": 2,
    "EEST": 3,
    "MSK": 3,
    "JST": 9,
    "KST": 9,
}
"""Zones whose letters stand for one offset alone, in hours; others (CST, AST, BST…) stand for several."""
_PLACE: Final = r"\{([^{}]*)\}"
_MARKS: Final = "?#!"


class Visit(NamedTuple):
    """One screen that the app has shown. Times in ms since 1970: `time` by the app (arrival where it gives none that
    can be read), `arrived` here. `uri` and `screen` are "" where the app does not say."""

    time: float
    arrived: float
    uri: str
    screen: str

    @property
    def size(self) -> int:
        """About how many bytes it takes."""
        return 150 + len(self.uri) + len(self.screen)


def visit(params: Mapping[str, Any], now: float) -> Visit:
    """A `nav_event`; `now` in ms since 1970. Raises Invalid."""
    uri, screen = text(params, "uri", MAX_LINK), text(params, "class", MAX_SCREEN)
    if not uri and not screen:
        raise Invalid("nav_event: wanted a uri or a class.")
    time = java_date(text(params, "date", _MAX_DATE))
    return Visit(now if time is None else time, now, unquote(uri), screen)


def java_date(shown: str) -> float | None:
    """Milliseconds since 1970 of a date as Java's Date.toString() writes it; None for anything else."""
    found = re.fullmatch(_DATE, shown, re.ASCII)
    if found is None:
        return None
    month, day, hour, minute, second, zone, sign, hours, minutes, year = found.groups()
    offset = timedelta(hours=_ZONES[zone]) if zone in _ZONES else None
    if sign is not None and zone in ("GMT", "UTC"):
        offset = timedelta(hours=int(hours), minutes=int(minutes)) * (-1 if sign == "-" else 1)
    if offset is None or month not in _MONTHS:
        return None
    try:
        local = datetime(int(year), _MONTHS.index(month) + 1, int(day), int(hour), int(minute), int(second), tzinfo=UTC)
    except ValueError:
        return None
    return (local - offset).timestamp() * 1000


def is_of(seen: Visit, wanted: str) -> bool:
    """Whether a visit is what a link leads to: the same once both are decoded, or a screen of that name."""
    return wanted in (seen.uri, seen.screen) or unquote(wanted) == seen.uri


def places(template: str) -> list[str]:
    """The parameters of a link's template, with their marks: `{id}`, `{#id}` a number, `{!on}` a boolean, `{?src}`
    may be left out. What reads as JSON between braces is not one."""
    return [name for name in re.findall(_PLACE, template) if _is_place(name)]


def filled(template: str, values: Mapping[str, object]) -> str:
    """A link from its template. Raises Invalid that names a value that is missing, unknown or of a wrong type."""
    if len(template) > MAX_LINK:
        raise Invalid(f"uri: longer than {MAX_LINK} characters.")
    known = {name.lstrip(_MARKS) for name in places(template)}
    for name in values:
        if name not in known:
            raise Invalid(f"values: the link has no {{{name[:64]}}}; it has {', '.join(sorted(known)) or 'none'}.")

    def put(found: re.Match[str]) -> str:
        if not _is_place(found[1]):
            return found[0]
        name = found[1].lstrip(_MARKS)
        return _written(found[1][: len(found[1]) - len(name)], name, values.get(name))

    return re.sub(_PLACE, put, template)


def _is_place(name: str) -> bool:
    if not name.lstrip(_MARKS):
        return False
    try:
        json.loads(f"{{{name}}}")
    except (ValueError, RecursionError):
        return True
    return False


def _written(marks: str, name: str, value: object) -> str:
    if value is None:
        if "?" in marks:
            return ""
        raise Invalid(f"values: {name} is missing.")
    if "#" in marks and not re.fullmatch(r"-?\d+(?:\.\d+)?", str(value)):
        raise Invalid(f"values: {name} must be a number.")
    if "!" in marks or isinstance(value, bool):
        value = str(value).lower()
        if "!" in marks and value not in ("true", "false"):
            raise Invalid(f"values: {name} must be true or false.")
    try:
        return quote(str(value), safe="")
    except UnicodeEncodeError:
        raise Invalid(f"values: {name} holds half a character.") from None
