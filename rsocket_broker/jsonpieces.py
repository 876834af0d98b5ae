"""JSON texts that are too long to be parsed in one go, read and written piece by piece.

A parser in C holds the interpreter until it is done: most of a second for 60 MB, and everybody waits. Here a text is
cut where members of an array or object end, each piece is parsed by `jsontext`, and `turn` is called in between. The
cut only proposes: a piece that is JSON between the brackets of its container is a run of whole members, since the
grammar leaves no other reading. So the value is that of `jsontext.parse`, and so are the errors, told from a short
text that brings the parser into the same state. Of two faults in one text another one may be told.

Never more is done between two turns than some milliseconds take, but for a text in it (a string) of many megabytes,
which must be one object in the end.
"""

import enum
import json
import sys
from codecs import getincrementaldecoder
from collections.abc import Callable, Iterator
from re import DOTALL, Match
from re import compile as pattern
from typing import Any, Final, NamedTuple, cast

from rsocket_broker import jsontext
from rsocket_broker.jsontext import MAX_DEPTH, JsonError, dump, parse_bytes

WINDOW: Final = 64 * 1024
"""Bytes that are looked at between two turns: about two milliseconds."""
LEVELS: Final = 4
"""Arrays and objects inside each other that a piece may have; what is deeper is opened, and read as several pieces."""
WEIGHT: Final = 8192
"""Values that are written between two turns: about a millisecond."""
OPENED: Final = 100
"""Levels of a value that are written in pieces; what is below them is not ours to write any faster."""
SCRAP: Final = 16
"""Characters of a string that weigh as much as one value."""

FREED: Final = 256
"""Members of a container that are freed between two turns."""

Turn = Callable[[], object]
"""Called between two pieces. What it raises comes out."""

_STRING: Final = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'


def _nested(levels: int) -> bytes:
    """An array or object with so many levels, by its brackets alone."""
    inner = rb"" if levels == 1 else b"|" + _nested(levels - 1)
    return rb'[\[{](?:[^"\[\]{}]++|' + _STRING + inner + rb")*+[\]}]"


_MEMBER_TEXT: Final = rb'(?:[^"\[\]{},]++|' + _STRING + b"|" + _nested(LEVELS) + rb")*+"
_MEMBER: Final = pattern(_MEMBER_TEXT, DOTALL)
_MEMBERS: Final = pattern(rb"(?:" + _MEMBER_TEXT + rb",)*+", DOTALL)
"""Members with the commas behind them: as many as are whole."""
_STRING_PART: Final = pattern(rb'(?:[^"\\]++|\\u.{4}|\\[^u])*+', DOTALL)
_HALF_AT_END: Final = pattern(rb"(?<!\\)(?:\\\\)*(\\u[dD][89abAB][0-9a-fA-F]{2})\Z")
_ESCAPE_AT_END: Final = pattern(rb"(?<!\\)(?:\\\\)*(\\u[0-9a-fA-F]{4})\Z")
_SCALAR: Final = pattern(rb'[^,\[\]{}"\s]*+')
_SPACE: Final = pattern(rb"[ \t\n\r]*+")
_BARE: Final = pattern(rb'(?:[^"]++|' + _STRING + rb")*+", DOTALL)
_WHOLE_STRING: Final = pattern(_STRING, DOTALL)
_FOLLOWING: Final = bytes(range(0x80, 0xC0))
"""Bytes that go on with a character of UTF-8."""
_QUOTE: Final = ord('"')
_OPENING: Final = (ord("["), ord("{"))


class _State(enum.Enum):
    """What the reader stands behind, and what brings the standard library there."""

    START = (b"", b"")
    OPENING = (b"[", b"{")
    COMMA = (b"[0,", b'{"":0,')
    KEY = (b"", b'{""')
    COLON = (b"", b'{"":')
    VALUE = (b"[0 ", b'{"":0 ')
    END = (b"0 ", b"0 ")


class Read(NamedTuple):
    """A value, and the ids of the containers in it that were put together of several pieces; see `let_go`."""

    value: Any
    spine: frozenset[int]


def parse(data: bytes, turn: Turn) -> Read:
    """As `jsontext.parse`, in pieces. Raises JsonError."""
    reader = _Reader(data, turn, keep=True)
    return Read(reader.read(), frozenset(reader.spine))


def check(data: bytes, turn: Turn) -> None:
    """Raises JsonError where `parse` would, and keeps nothing of the value."""
    _Reader(data, turn, keep=False).read()


class _Reader:
    """One text on its way. `_at` is where it is read on, `_state` what stands before that."""

    def __init__(self, data: bytes, turn: Turn, *, keep: bool) -> None:
        self._data, self._size, self._at = data, len(data), 0
        self._turn = turn
        self._keep = keep
        self._root: Any = None
        self._state = _State.START
        self._open: list[list[Any] | dict[str, Any]] = []
        self.spine: set[int] = set()

    def read(self) -> Any:
        self._check_text()
        self._check_width()
        self._value(None)
        while self._open:
            self._skip_space()
            if self._state is _State.VALUE:
                self._behind_value()
            elif not self._members() and not self._last_member():
                self._open_member()
        self._state = _State.END
        self._skip_space()
        if self._at < self._size:
            raise self._wrong()
        return self._root

    # ---- a container's members ----------------------------------------------------------------------------------

    def _members(self) -> bool:
        """Takes all members in the window that are whole and have a comma behind them."""
        end = _end(_MEMBERS.match(self._data, self._at, self._at + WINDOW))
        if end == self._at:
            return False
        self._take(self._data[self._at : end - 1])
        self._at, self._state = end, _State.COMMA
        return True

    def _last_member(self) -> bool:
        """Takes what stands before the end of the container, where that is in the window."""
        limit = min(self._at + WINDOW, self._size)
        end = _end(_MEMBER.match(self._data, self._at, limit))
        if end >= limit or self._data[end] != self._closing:
            return False
        text = self._data[self._at : end]
        if self._state is _State.COMMA or not _is_space(text):
            self._take(text)
        self._at = end + 1
        self._close()
        return True

    def _take(self, text: bytes) -> None:
        """Members, with commas between them. Not even one is an error of the one who wrote two commas."""
        top = self._open[-1]
        piece = b"[%b]" % text if type(top) is list else b"{%b}" % text
        try:
            value: Any = parse_bytes(piece)
        except JsonError:
            value = None
        if not value:
            raise self._wrong()
        if len(self._open) + LEVELS > MAX_DEPTH and len(self._open) - 1 + jsontext.depth(piece) > MAX_DEPTH:
            raise JsonError("nested too deeply")
        if not self._keep:
            pass
        elif isinstance(top, list):
            top.extend(value)
        else:
            top.update(value)
        self._turn()

    def _open_member(self) -> None:
        """Goes into a member that is not to be had in one piece."""
        if type(self._open[-1]) is list:
            self._value(None)
            return
        if self._next != _QUOTE:
            raise self._wrong()
        key = self._string()
        self._state = _State.KEY
        self._skip_space()
        if self._next != ord(":"):
            raise self._wrong()
        self._at, self._state = self._at + 1, _State.COLON
        self._value(key)

    def _behind_value(self) -> None:
        if self._next == ord(","):
            self._at, self._state = self._at + 1, _State.COMMA
        elif self._next == self._closing:
            self._at += 1
            self._close()
        else:
            raise self._wrong()

    def _close(self) -> None:
        self._open.pop()
        self._state = _State.VALUE

    @property
    def _closing(self) -> int:
        return ord("]") if type(self._open[-1]) is list else ord("}")

    # ---- one value ----------------------------------------------------------------------------------------------

    def _value(self, key: str | None) -> None:
        self._skip_space()
        begins = self._next
        if begins in _OPENING:
            self._push([] if begins == _OPENING[0] else {}, key)
            return
        value = self._string() if begins == _QUOTE else self._scalar()
        self._put(value, key)
        self._state = _State.VALUE

    def _push(self, container: "list[Any] | dict[str, Any]", key: str | None) -> None:
        if len(self._open) >= MAX_DEPTH:
            raise JsonError("nested too deeply")
        self._put(container, key)
        self._open.append(container)
        self.spine.add(id(container))
        self._at, self._state = self._at + 1, _State.OPENING

    def _put(self, value: Any, key: str | None) -> None:
        if not self._open:
            self._root = value
        elif self._keep:
            top = self._open[-1]
            if type(top) is list:
                top.append(value)
            else:
                cast("dict[str | None, Any]", top)[key] = value

    def _scalar(self) -> Any:
        end = self._at
        while True:
            limit, end = end + WINDOW, _end(_SCALAR.match(self._data, end, end + WINDOW))
            if end < limit:
                break
        try:
            value = parse_bytes(self._data[self._at : end])
        except JsonError:
            raise self._wrong(until=end) from None
        self._at = end
        return value

    def _string(self) -> str:
        """Of any length, in parts: no character is cut, nor a pair of escapes that stands for one."""
        begin, parts = self._at, []
        self._at += 1
        while True:
            limit = min(self._at + WINDOW, self._size)
            end = _end(_STRING_PART.match(self._data, self._at, limit))
            over = end < limit and self._data[end] == _QUOTE
            if not over:
                end = self._part_end(end)
            if end > self._at:
                parts.append(self._part(end))
            elif not over:
                raise self._unended(begin)
            self._at = end
            if over:
                self._at += 1
                return "".join(parts)
            self._turn()

    def _unended(self, begin: int) -> JsonError:
        """The string that has begun there has no end, or one behind half an escape."""
        escape = _ESCAPE_AT_END.search(self._data, max(begin, self._size - 64))
        if escape is not None:  # the standard library takes one for half of one, if nothing stands behind it
            self._at = escape.start(1)
        if self._size - self._at > 1:
            return self._wrong(b'"')
        self._at = begin
        return self._wrong(text=b'"')

    def _part_end(self, end: int) -> int:
        """The place to cut a string that goes on behind `end`."""
        while end < self._size and self._data[end] in _FOLLOWING:
            end -= 1
        half = _HALF_AT_END.search(self._data, max(self._at, end - 64), end)
        return end if half is None or end == self._size else half.start(1)

    def _part(self, end: int) -> str:
        try:
            part = parse_bytes(b'"%b"' % self._data[self._at : end])
        except JsonError:
            raise self._wrong(b'"') from None
        assert isinstance(part, str)
        return part

    # ---- the text -----------------------------------------------------------------------------------------------

    @property
    def _next(self) -> int:
        """The byte that comes; negative at the end."""
        return self._data[self._at] if self._at < self._size else -1

    def _skip_space(self) -> None:
        limit = self._at
        while limit <= self._at < self._size:
            limit = self._at + WINDOW
            self._at = _end(_SPACE.match(self._data, self._at, limit))

    def _check_text(self) -> None:
        decoder = getincrementaldecoder("utf-8")()
        try:
            for start in range(0, self._size, WINDOW):
                decoder.decode(self._data[start : start + WINDOW])
                self._turn()
            decoder.decode(b"", final=True)
        except UnicodeDecodeError as error:
            raise JsonError("not UTF-8 text") from error

    def _check_width(self) -> None:
        most = jsontext.MAX_CONTAINERS
        if _count(self._data, self._turn) > most and sum(_bare_counts(self._data, self._turn)) > most:
            raise JsonError("too many arrays and objects in it")

    def _wrong(self, inside: bytes = b"", until: int = 0, text: bytes | None = None) -> JsonError:
        """The error that the text has as a whole, for a fault where it is read now: before `until`, or soon. `text`
        has the same fault, where what comes is too long."""
        outer = b"".join(b"[" if type(one) is list else b'{"":' for one in self._open[:-1])
        is_object = bool(self._open) and type(self._open[-1]) is dict
        before = outer + self._state.value[is_object] + inside
        end = min(max(self._at + 2 * WINDOW, until), self._size)
        while end < self._size and self._data[end] in _FOLLOWING:
            end -= 1
        try:
            jsontext.explain(before + (self._data[self._at : end] if text is None else text))
        except JsonError as error:
            cause = error.__cause__
            if not isinstance(cause, json.JSONDecodeError):
                return error
            place = cause.pos - len(before) + _characters(self._data, self._at)
            return JsonError(f"not JSON: {cause.msg} at character {place}")
        return JsonError("not JSON")


def _end(found: Match[bytes] | None) -> int:
    """Where a match ends; the patterns that are asked so can match nothing at all, and so they always match."""
    assert found is not None
    return found.end()


def _is_space(text: bytes) -> bool:
    return not text.strip(b" \t\n\r")


def _count(data: bytes, turn: Turn) -> int:
    found = 0
    for start in range(0, len(data), WINDOW):
        window = data[start : start + WINDOW]
        found += window.count(b"[") + window.count(b"{")
        turn()
    return found


def _bare_counts(data: bytes, turn: Turn) -> Iterator[int]:
    """Brackets outside of strings, window by window."""
    at = 0
    while at < len(data):
        end = _end(_BARE.match(data, at, at + WINDOW))
        bare = _WHOLE_STRING.sub(b"", data[at:end])
        yield bare.count(b"[") + bare.count(b"{")
        at = end if end > at else _string_end(data, at, turn)
        turn()


def _string_end(data: bytes, at: int, turn: Turn) -> int:
    """Behind the string that begins there; the end of the text where it has none."""
    at += 1
    while at < len(data):
        end = _end(_STRING_PART.match(data, at, at + WINDOW))
        if end < len(data) and data[end] == _QUOTE:
            return end + 1
        at = end if end > at else len(data)
        turn()
    return at


def _characters(data: bytes, end: int) -> int:
    """How many characters the text has before that byte."""
    return sum(
        len(data[start : min(start + WINDOW, end)].translate(None, _FOLLOWING)) for start in range(0, end, WINDOW)
    )


# ---- and back --------------------------------------------------------------------------------------------------------


def is_heavy(value: object) -> bool:
    """Whether a JSON value is too large to be written in one go. Takes time for WEIGHT values at most."""
    return _weight(value, WEIGHT) > WEIGHT


def _weight(value: object, budget: int) -> int:
    waiting, weight = [value], 0
    while waiting and weight <= budget:
        one = waiting.pop()
        weight += 1
        if isinstance(one, str | bytes):
            weight += len(one) // SCRAP
        elif isinstance(one, dict):
            weight += len(one)
            if weight <= budget:
                waiting.extend(one.values())
        elif isinstance(one, list | tuple):
            weight += len(one)
            if weight <= budget:
                waiting.extend(one)
    return weight


def write(value: object, turn: Turn) -> bytes:
    """As `jsontext.dump`, in pieces. Raises JsonError."""
    parts: list[bytes] = []
    _write(value, parts, turn, 0)
    return b"".join(parts)


def _write(value: object, parts: list[bytes], turn: Turn, level: int) -> None:
    kind = type(value)
    if level >= OPENED or kind not in _WRITERS or not is_heavy(value):
        parts.append(dump(value))
        turn()
        return
    _WRITERS[kind](value, parts, turn, level)


def _write_string(value: Any, parts: list[bytes], turn: Turn, level: int) -> None:
    parts.append(b'"')
    for start in range(0, len(value), WINDOW):
        parts.append(dump(value[start : start + WINDOW])[1:-1])
        turn()
    parts.append(b'"')


def _write_array(value: Any, parts: list[bytes], turn: Turn, level: int) -> None:
    light: list[Any] = []
    comma, weight = b"[", 0
    for item in value:
        heavy = _weight(item, WEIGHT)
        if light and weight + heavy > WEIGHT:
            parts += (comma, dump(light)[1:-1])
            comma, light, weight = b",", [], 0
            turn()
        if heavy > WEIGHT:
            parts.append(comma)
            comma = b","
            _write(item, parts, turn, level + 1)
        else:
            light.append(item)
            weight += heavy
    if light:
        parts += (comma, dump(light)[1:-1])
        comma = b","
    parts.append(b"[]" if comma == b"[" else b"]")


def _write_object(value: Any, parts: list[bytes], turn: Turn, level: int) -> None:
    light: dict[Any, Any] = {}
    comma, weight = b"{", 0
    for key, item in value.items():
        heavy = _weight(item, WEIGHT)
        if light and weight + heavy > WEIGHT:
            parts += (comma, dump(light)[1:-1])
            comma, light, weight = b",", {}, 0
            turn()
        if heavy > WEIGHT:
            parts += (comma, dump({key: None})[1:-5])
            comma = b","
            _write(item, parts, turn, level + 1)
        else:
            light[key] = item
            weight += heavy + 1
    if light:
        parts += (comma, dump(light)[1:-1])
        comma = b","
    parts.append(b"{}" if comma == b"{" else b"}")


_WRITERS: Final[dict[type, Callable[[Any, list[bytes], Turn, int], None]]] = {
    str: _write_string,
    list: _write_array,
    tuple: _write_array,
    dict: _write_object,
}


# ---- the end of a value ----------------------------------------------------------------------------------------------

_ALONE: Final = 2
"""What `sys.getrefcount` says of an object that one variable alone refers to."""


def let_go(box: list[Any], spine: frozenset[int], turn: Turn) -> None:
    """Frees the values in `box` bit by bit, as far as nobody else has them: Python would free all of one at once.

    Containers that somebody has kept, and all that is in them, stay as they are.
    """
    while box:
        one = box.pop()
        if type(one) is list and sys.getrefcount(one) == _ALONE:
            while one:
                _set_free(one[-FREED:], box, spine)
                del one[-FREED:]
                turn()
        elif type(one) is dict and sys.getrefcount(one) == _ALONE:
            while one:
                _set_free([one.popitem()[1] for _ in range(min(FREED, len(one)))], box, spine)
                turn()


def _set_free(items: list[Any], box: list[Any], spine: frozenset[int]) -> None:
    box.extend(item for item in items if id(item) in spine or (type(item) in (list, dict) and len(item) > WEIGHT))
