"""What a plugin answers to, as JSON Schema (draft 2020-12), from the annotations of its handlers.

    {"$schema": ..., "title": ID, "methods": {NAME: {...}}, "events": {NAME: {...}}, "$defs": {CLASS: {...}}}

A method has `route`, `interaction` (request-response, request-stream, request-channel), `parameters`, `result` (of a
stream: each of them) and, for a channel, `incoming`; an event has `parameters`. Bytes are `{"contentMediaType":
"application/octet-stream"}`. An annotation that stands for no JSON says nothing: `{}`.
"""

import collections.abc
import dataclasses
import enum
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, Final

import attrs

from rsocket_broker.payload import Payload
from rsocket_broker.plugin_api.inspection import NOTHING, Outline, outlines
from rsocket_broker.plugin_api.plugin import Kind, Plugin

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
RAW: Final[Mapping[str, object]] = {"contentMediaType": "application/octet-stream"}

Schema = dict[str, Any]

_SIMPLE: Final[dict[object, str]] = {
    None: "null",
    types.NoneType: "null",
    bool: "boolean",
    int: "integer",
    float: "number",
    str: "string",
    list: "array",
    tuple: "array",
    dict: "object",
}
_ARRAYS: Final = (list, set, frozenset, collections.abc.Sequence, collections.abc.Iterable)
_OBJECTS: Final = (dict, collections.abc.Mapping)


def schema_of(plugin: Plugin) -> Schema:
    """The schema of all handlers; without any for a plugin that takes whatever comes."""
    builder = _Builder()
    found: dict[Kind, Schema] = {Kind.METHOD: {}, Kind.EVENT: {}}
    for outline in outlines(plugin):
        found[outline.kind][outline.name] = builder.handler(plugin.id, outline)
    text = (type(plugin).__doc__ or "").strip()
    return {
        "$schema": DIALECT,
        "title": plugin.id,
        "description": " ".join(text.split("\n\n")[0].split()),
        "methods": found[Kind.METHOD],
        "events": found[Kind.EVENT],
        "$defs": builder.defs,
    }


class _Builder:
    """The schemas of one plugin; classes go into `defs`, each once, and may hold themselves."""

    def __init__(self) -> None:
        self.defs: Schema = {}
        self._names: dict[type, str] = {}

    def handler(self, plugin_id: str, outline: Outline) -> Schema:
        found: Schema = {"route": f"{plugin_id}.{outline.name}"}
        if outline.doc:
            found["description"] = " ".join(outline.doc.split("\n\n")[0].split())
        found["parameters"] = self._parameters(outline)
        if outline.kind is Kind.EVENT:
            return found
        channel = outline.incoming is not NOTHING
        found["interaction"] = (
            "request-channel" if channel else "request-stream" if outline.shape.streams else "request-response"
        )
        if channel:
            found["incoming"] = self.of(outline.incoming)
        found["result"] = dict(RAW) if outline.raw and outline.gives is NOTHING else self.of(outline.gives)
        return found

    def _parameters(self, outline: Outline) -> Schema:
        if outline.raw is not None:
            return dict(RAW)
        if outline.whole is not NOTHING:
            return self.of(outline.whole)
        members = ((name, annotation, default) for name, (annotation, default) in outline.named.items())
        return self._object(members)

    def of(self, annotation: object) -> Schema:
        """The schema of whatever an annotation allows."""
        origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
        if origin in (typing.Annotated, typing.Required, typing.NotRequired, typing.ClassVar):
            return self.of(arguments[0])
        if isinstance(annotation, collections.abc.Hashable) and annotation in _SIMPLE:
            return {"type": _SIMPLE[annotation]}
        if origin in (typing.Union, types.UnionType):
            return {"anyOf": [self.of(one) for one in arguments]}
        if origin is typing.Literal:
            return {"enum": list(arguments)}
        if origin is tuple and arguments[-1:] != (Ellipsis,):
            return self._row(arguments)
        if origin is tuple or origin in _ARRAYS:
            return {"type": "array", "items": self.of(arguments[0])}
        if origin in _OBJECTS:
            return {"type": "object", "additionalProperties": self.of(arguments[1])}
        return self._class(annotation) if isinstance(annotation, type) else {}

    def _class(self, cls: type) -> Schema:
        if issubclass(cls, Payload | bytes | bytearray | memoryview):
            return dict(RAW)
        if issubclass(cls, enum.Enum):
            return {"enum": [member.value for member in cls]}
        members = _members(cls)
        if members is None:
            return {}
        if cls not in self._names:
            self._names[cls] = name = self._free_name(cls.__name__)
            self.defs[name] = {}
            hints = typing.get_type_hints(cls, include_extras=True)
            typed = [(key, hints.get(own, Any), default) for key, own, default in members]
            if issubclass(cls, tuple):
                self.defs[name] = self._row([hint for _, hint, _ in typed], [key for key, _, _ in typed])
            else:
                self.defs[name] = self._object(typed)
        return {"$ref": f"#/$defs/{self._names[cls]}"}

    def _free_name(self, name: str) -> str:
        number = sum(one.rstrip("0123456789") == name for one in self.defs)
        return f"{name}{number + 1}" if number else name

    def _row(self, items: Iterable[object], names: Iterable[str] = ()) -> Schema:
        schemas = [self.of(item) for item in items]
        for name, schema in zip(names, schemas, strict=False):
            schema["title"] = name
        return {"type": "array", "prefixItems": schemas, "minItems": len(schemas), "items": False}

    def _object(self, members: Iterable[tuple[str, object, object]]) -> Schema:
        properties: Schema = {}
        required = []
        for key, annotation, default in members:
            properties[key] = self.of(annotation)
            if default is NOTHING:
                required.append(key)
            elif default is None or type(default) in (bool, int, float, str):
                properties[key]["default"] = default
        found: Schema = {"type": "object", "properties": properties}
        return {**found, "required": required} if required else found


def _members(cls: type) -> list[tuple[str, str, object]] | None:
    """The members of a class that has a JSON shape: the name that JSON has for it, its own, and its default."""
    if attrs.has(cls):
        fields = attrs.fields(cls)
        return [(one.alias, one.name, NOTHING if one.default is attrs.NOTHING else one.default) for one in fields]
    if dataclasses.is_dataclass(cls):
        return [(one.name, one.name, _default(one)) for one in dataclasses.fields(cls)]
    if typing.is_typeddict(cls):
        needed: frozenset[str] = getattr(cls, "__required_keys__", frozenset())
        return [(key, key, NOTHING if key in needed else ...) for key in cls.__annotations__]
    names = getattr(cls, "_fields", None)
    return [(key, key, NOTHING) for key in names] if issubclass(cls, tuple) and names is not None else None


def _default(field: "dataclasses.Field[Any]") -> object:
    if field.default_factory is not dataclasses.MISSING:
        return ...
    return NOTHING if field.default is dataclasses.MISSING else field.default
