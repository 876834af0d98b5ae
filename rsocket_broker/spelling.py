"""Names as they are told to people: which one was meant by one that is mistyped, and many in one line."""

import difflib
from collections.abc import Iterable, Sequence

CLOSE_ENOUGH = 0.5
"""From 0 to 1: how alike two names must be for one to be offered in the place of the other."""


def nearest(name: str, known: Iterable[str]) -> str:
    """A sentence that offers the known name nearest to `name`, or lists them all where none is near."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=CLOSE_ENOUGH)
    if close:
        return f'Did you mean "{close[0]}"?'
    return "Known: " + ", ".join(names) + "." if names else "Nothing can be set here."


def listed(names: Sequence[str], most: int) -> str:
    """The names in one line, the first `most` of them and how many more there are."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
