"""Names with `*` in them, as rules and scopes use them.

A `*` stands for any run of characters without a dot, also for none; as the last character of a pattern it stands for
the whole rest, dots included. Everything else means itself, in upper and lower case as written.

    wifi.set      that method alone
    wifi.*        every method of the plugin wifi, also one whose name has dots
    *.get         get of every plugin whose id has no dot
    wifi.get*     get, getAll, getAll.more
    *             everything, also the empty name
"""

from collections.abc import Iterable

import attrs

MAX_PATTERN = 256
"""Characters of a pattern: an app id of 64, a plugin id and a method name of twice that."""

STAR = "*"


@attrs.frozen(slots=True, order=False)
class Pattern:
    """One pattern, made by `compiled`. `head` is what every name that fits begins with."""

    text: str
    head: str
    rest: bool
    """Whether it ends in a star, which stands for any rest."""
    segments: tuple[tuple[str, ...], ...] = attrs.field(repr=False)
    """Between dots, the pieces between stars; of the last segment without its last star. Empty when `head` says all."""

    @property
    def exact(self) -> bool:
        """Whether one name alone fits."""
        return not self.rest and not self.segments

    def matches(self, name: str) -> bool:
        if not self.segments:
            return name.startswith(self.head) if self.rest else name == self.head
        return name.startswith(self.head) and self._fits(name)

    def _fits(self, name: str) -> bool:
        *before, last = self.segments
        found = name.split(".", len(before)) if self.rest else name.split(".")
        if len(found) != len(self.segments):
            return False
        if not all(map(_segment_fits, before, found)):
            return False
        return _begins(last, found[-1]) if self.rest else _segment_fits(last, found[-1])


def compiled(text: str) -> Pattern:
    """Raises ValueError, whose text goes on after "must", for text that is no pattern."""
    if not text:
        raise ValueError("not be empty")
    if len(text) > MAX_PATTERN:
        raise ValueError(f"have at most {MAX_PATTERN} characters, and has {len(text)}")
    if not text.isprintable() or " " in text:
        raise ValueError("have no blanks and no control characters")
    body, rest = (text[:-1], True) if text.endswith(STAR) else (text, False)
    head, star, _ = body.partition(STAR)
    if not star:
        return Pattern(text, body, rest, ())
    return Pattern(text, head, rest, tuple(tuple(segment.split(STAR)) for segment in body.split(".")))


def _segment_fits(pieces: tuple[str, ...], text: str) -> bool:
    """Whether the text is the pieces in their order, with anything between them."""
    if len(pieces) == 1:
        return text == pieces[0]
    first, *middle, last = pieces
    if not text.startswith(first) or not text.endswith(last) or len(text) < len(first) + len(last):
        return False
    return _in_order(middle, text, len(first), len(text) - len(last)) >= 0


def _begins(pieces: tuple[str, ...], text: str) -> bool:
    """As `_segment_fits`, for a text that may go on; what is left of it may hold dots, what stands between may not."""
    first, *others = pieces
    return text.startswith(first) and _in_order(others, text, len(first), _end_of(text, others)) >= 0


def _end_of(text: str, others: list[str]) -> int:
    return len(text) if not others or "." not in text else text.index(".")


def _in_order(pieces: Iterable[str], text: str, at: int, end: int) -> int:
    """Where the pieces end, each found as early as can be; -1 when they are not all there. Linear in the text."""
    for piece in pieces:
        found = text.find(piece, at, end)
        if found < 0:
            return -1
        at = found + len(piece)
    return at
