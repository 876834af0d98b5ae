"""JSON into typed Python, by annotation. A check is built once, when a plugin is loaded, and run per message.

What an annotation may say:

    Any, object                     as it came
    None, bool, int, str            that JSON type; true is not a number, 1 is not true
    float                           any JSON number
    list, list[T], tuple[T, ...]    a JSON array
    dict, dict[str, T]              a JSON object
    Literal[...], an Enum           one of the values
    A | B, Optional[A]              the first that fits
    a dataclass, a TypedDict        an object with its fields
    an attrs class                  an object with its fields (under their `alias`); unknown keys are ignored in
                                    messages, since apps grow fields, and refused in settings, which people misspell
"""

import collections.abc
import dataclasses
import difflib
import enum
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import attrs

Check = Callable[[object], Any]
"""Gives the value as its type asks, or raises Mismatch."""


class Mismatch(Exception):
    """A value that does not fit. `path` leads to it from the outside in (`items`, `[2]`, `name`)."""

    def __init__(self, wanted: str, got: str, path: str = "") -> None:
        super().__init__(wanted, got, path)
        self.wanted = wanted
        self.got = got
        self.path = path

    def inside(self, key: str | int) -> "Mismatch":
        """The same fault, seen from the container that holds the value under `key`."""
        step = f"[{key}]" if isinstance(key, int) else key
        joined = f"{step}{'' if not self.path or self.path.startswith('[') else '.'}{self.path}"
        return Mismatch(self.wanted, self.got, joined)

    def __str__(self) -> str:
        return f"{self.path or 'the parameters'}: wanted {self.wanted}, got {self.got}"


class UnknownAnnotation(Exception):
    """An annotation that stands for no JSON; its text says which, and what would do."""

    def __init__(self, annotation: object) -> None:
        super().__init__(
            f"{type_name(annotation)} stands for no JSON type (use str, int, float, bool, None, list, dict, Literal, "
            "an Enum, an attrs class, or a union of them)"
        )


def type_name(annotation: object) -> str:
    """An annotation as its author wrote it, near enough."""
    if annotation is None or annotation is types.NoneType:
        return "None"
    if typing.get_origin(annotation) is None and isinstance(annotation, type):
        return annotation.__name__
    return str(annotation).replace("typing.", "").replace("collections.abc.", "")


def described(value: object) -> str:
    """The type of a JSON value for a message. Never the value: it may be a secret."""
    return "None" if value is None else type(value).__name__


def checker(annotation: object, *, strict: bool = False) -> Check:
    """The check for `annotation`. `strict` refuses unknown keys of attrs classes. Raises UnknownAnnotation."""
    return _Builder(strict).build(annotation)


def fields_checker(fields: Mapping[str, tuple[object, bool]]) -> Check:
    """A check for a JSON object with these keys, each given as (annotation, required); gives a dict of them alone."""
    builder = _Builder(strict=False)
    table = [
        _Field(key, builder.build(annotation), required, type_name(annotation))
        for key, (annotation, required) in fields.items()
    ]
    return _object_check(table)


@attrs.frozen(slots=True)
class _Field:
    """A key of a JSON object."""

    key: str
    check: Check
    required: bool
    wanted: str


def _refuse(wanted: str, value: object) -> NoReturn:
    raise Mismatch(wanted, described(value))


def _exactly(kind: type) -> Check:
    """Exact types, for JSON makes no others; this is what keeps true apart from 1."""
    name = type_name(kind)

    def check(value: object) -> object:
        if type(value) is not kind:
            _refuse(name, value)
        return value

    return check


def _number(value: object) -> object:
    if type(value) is int:
        return float(value)
    if type(value) is not float:
        _refuse("float", value)
    return value


def _as_it_came(value: object) -> object:
    return value


_SIMPLE: dict[object, Check] = {
    Any: _as_it_came,
    object: _as_it_came,
    None: _exactly(types.NoneType),
    types.NoneType: _exactly(types.NoneType),
    bool: _exactly(bool),
    int: _exactly(int),
    float: _number,
    str: _exactly(str),
    list: _exactly(list),
    dict: _exactly(dict),
}
_ARRAYS = (list, collections.abc.Sequence)
_OBJECTS = (dict, collections.abc.Mapping)


class _Builder:
    """Builds the checks of one annotation; remembers the classes it has met, so that a class may hold itself."""

    def __init__(self, strict: bool) -> None:
        self._strict = strict
        self._classes: dict[type, Check] = {}

    def build(self, annotation: object) -> Check:
        if isinstance(annotation, collections.abc.Hashable) and annotation in _SIMPLE:
            return _SIMPLE[annotation]
        origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
        if origin is typing.Annotated:
            return self.build(arguments[0])
        if origin in (typing.Union, types.UnionType):
            return self._union(annotation, arguments)
        if origin is typing.Literal:
            return _literal(arguments)
        if origin in _ARRAYS and len(arguments) == 1:
            return self._array(arguments[0], list)
        if origin is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
            return self._array(arguments[0], tuple)
        if origin in _OBJECTS and arguments[:1] == (str,):
            return self._mapping(arguments[1])
        if isinstance(annotation, type):
            return self._type(annotation)
        raise UnknownAnnotation(annotation)

    def _type(self, cls: type) -> Check:
        if issubclass(cls, enum.Enum):
            return _enumeration(cls)
        if attrs.has(cls):
            return self._class(cls)
        if dataclasses.is_dataclass(cls):
            return self._dataclass(cls)
        if typing.is_typeddict(cls):
            return self._typed_dict(cls)
        raise UnknownAnnotation(cls)

    def _dataclass(self, cls: type) -> Check:
        hints = typing.get_type_hints(cls)
        table = [
            _Field(one.name, self.build(hints[one.name]), _is_needed(one), type_name(hints[one.name]))
            for one in dataclasses.fields(cls)
            if one.init
        ]
        gather = _object_check(table, wanted=cls.__name__, refuse_unknown=self._strict)
        return lambda value: cls(**gather(value))

    def _typed_dict(self, cls: type) -> Check:
        """Only the keys that it has."""
        needed: frozenset[str] = getattr(cls, "__required_keys__", frozenset())
        hints = typing.get_type_hints(cls)
        table = [_Field(key, self.build(hint), key in needed, type_name(hint)) for key, hint in hints.items()]
        return _object_check(table, wanted=cls.__name__, refuse_unknown=self._strict)

    def _union(self, annotation: object, members: Sequence[object]) -> Check:
        wanted = type_name(annotation)
        checks = [self.build(member) for member in members]

        def check(value: object) -> object:
            deepest: Mismatch | None = None
            for one in checks:
                try:
                    return one(value)
                except Mismatch as mismatch:
                    deepest = mismatch if mismatch.path else deepest
            if deepest is not None:  # a member that fits but for something inside it: say what
                raise deepest
            _refuse(wanted, value)

        return check

    def _array(self, item: object, make: Callable[[list[object]], object]) -> Check:
        inner = self.build(item)
        wanted = f"list[{type_name(item)}]"

        def check(value: object) -> object:
            if type(value) is not list:
                _refuse(wanted, value)
            items = []
            for index, one in enumerate(value):
                try:
                    items.append(inner(one))
                except Mismatch as mismatch:
                    raise mismatch.inside(index) from None
            return make(items)

        return check

    def _mapping(self, item: object) -> Check:
        inner = self.build(item)
        wanted = f"dict[str, {type_name(item)}]"

        def check(value: object) -> object:
            if type(value) is not dict:
                _refuse(wanted, value)
            result = {}
            for key, one in value.items():
                try:
                    result[key] = inner(one)
                except Mismatch as mismatch:
                    raise mismatch.inside(_shown_key(key)) from None
            return result

        return check

    def _class(self, cls: type) -> Check:
        if cls in self._classes:
            return lambda value: self._classes[cls](value)  # the class is still being built, or holds itself
        self._classes[cls] = _as_it_came
        hints = typing.get_type_hints(cls)
        table = [
            _Field(
                field.alias,
                self.build(hints.get(field.name, Any)),
                field.default is attrs.NOTHING,
                type_name(hints.get(field.name, Any)),
            )
            for field in attrs.fields(cls)
            if field.init
        ]
        gather = _object_check(table, wanted=cls.__name__, refuse_unknown=self._strict)

        def check(value: object) -> object:
            try:
                return cls(**gather(value))
            except (TypeError, ValueError) as error:  # one of its own validators
                raise Mismatch(f"a value that {cls.__name__} accepts", "one that it refuses") from error

        self._classes[cls] = check
        return check


def _is_needed(field: "dataclasses.Field[Any]") -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _object_check(
    table: Sequence[_Field], *, wanted: str = "dict", refuse_unknown: bool = False
) -> Callable[[object], dict[str, Any]]:
    known = {field.key for field in table}

    def check(value: object) -> dict[str, Any]:
        if type(value) is not dict:
            _refuse(wanted, value)
        if refuse_unknown and not known.issuperset(value):
            _refuse_unknown(value, known)
        result = {}
        for field in table:
            if field.key in value:
                try:
                    result[field.key] = field.check(value[field.key])
                except Mismatch as mismatch:
                    raise mismatch.inside(field.key) from None
            elif field.required:
                raise Mismatch(field.wanted, "nothing", field.key)
        return result

    return check


def _refuse_unknown(value: Mapping[str, object], known: set[str]) -> NoReturn:
    name = next(key for key in value if key not in known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f" (did you mean {near[0]}?)" if near else ""
    listed = ", ".join(sorted(known)) or "no key at all"
    raise Mismatch(f"one of {listed}", f"an unknown key{hint}", _shown_key(name))


def _shown_key(key: str) -> str:
    """A key from outside, fit for a message: no control characters, no length to speak of."""
    return key[:64] if key[:64].isprintable() else ascii(key[:64])


def _literal(values: Sequence[object]) -> Check:
    wanted = "one of " + ", ".join(repr(value) for value in values)

    def check(value: object) -> object:
        for one in values:
            if type(one) is type(value) and one == value:
                return one
        _refuse(wanted, value)

    return check


def _enumeration(cls: type[enum.Enum]) -> Check:
    wanted = "one of " + ", ".join(repr(member.value) for member in cls)
    members = [(member.value, member) for member in cls]

    def check(value: object) -> object:
        for one, member in members:
            if type(one) is type(value) and one == value:
                return member
        _refuse(wanted, value)

    return check
