"""What a session may ask for, as a set of patterns over `plugin.method`.

    echo.request     this method
    Network.*        whatever begins with `Network.`
    *                everything

A star stands at the end only, and for any text, dots included. So what two patterns have in common is the narrower of
them or nothing, and what two scopes have in common is a scope again.
"""

from collections.abc import Iterable
from typing import Final

from rsocket_broker.errors import Invalid

Scope = tuple[str, ...]
"""Patterns; whatever one of them fits is in it."""

MAX_PATTERNS: Final = 64
"""Patterns that one login may name: a page uses a handful of methods."""
MAX_PATTERN: Final = 255
"""Characters: as long as a routing tag can be."""
MAX_SCOPE: Final = 2048
"""Characters of all patterns of one login together: what a client makes sessions with is kept, in memory and on the
disk, for as long as they are known."""


def parse_scope(value: object) -> Scope:
    """A scope from JSON: a list of patterns, none of which lies within another. Raises Invalid."""
    if not isinstance(value, list) or not 1 <= len(value) <= MAX_PATTERNS:
        raise Invalid(f"scope must be a list of 1 to {MAX_PATTERNS} patterns, such as Network.*")
    patterns = [_pattern(each) for each in value]
    if sum(map(len, patterns)) > MAX_SCOPE:
        raise Invalid(f"scope: its patterns have up to {MAX_SCOPE} characters together")
    return _narrowest(patterns)


def allows(scope: Scope | None, method: str) -> bool:
    """Whether a method, as `plugin.method`, is in a scope; None is no limit."""
    return scope is None or any(_fits(pattern, method) for pattern in scope)


def within(outer: Scope | None, inner: Scope | None) -> Scope | None:
    """What two scopes have in common; () when it is nothing."""
    if outer is None or inner is None:
        return inner if outer is None else outer
    common = [a if _fits(b, a) else b for a in outer for b in inner if _fits(b, a) or _fits(a, b)]
    return _narrowest(common)


def _pattern(value: object) -> str:
    if not isinstance(value, str) or not 1 <= len(value) <= MAX_PATTERN or not value.isprintable():
        raise Invalid(f"scope: a pattern is text of 1 to {MAX_PATTERN} characters")
    if "*" in value[:-1]:
        raise Invalid("scope: a star may stand at the end of a pattern only")
    return value


def _fits(pattern: str, text: str) -> bool:
    """Whether all that `text` (a method, or a pattern) stands for is in `pattern`."""
    return text.startswith(pattern[:-1]) if pattern.endswith("*") else text == pattern


def _narrowest(patterns: Iterable[str]) -> Scope:
    """The same set without the patterns that lie within others."""
    all_ = tuple(dict.fromkeys(patterns))
    return tuple(one for one in all_ if not any(other != one and _fits(other, one) for other in all_))
