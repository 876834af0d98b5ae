"""A typed Python client of a plugin, as source text, from the plugin's schema.

Objects become TypedDicts, methods coroutines or async generators over `rsocket_broker.client.Session`, events one-way
calls. What comes back is not checked again at run time: the broker's handlers made it.
"""

import keyword
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

Schema = Mapping[str, Any]

_TYPES: Final = {
    "null": "None",
    "boolean": "bool",
    "integer": "int",
    "number": "float",
    "string": "str",
    "array": "list[Any]",
    "object": "dict[str, Any]",
}
_SHADOWED: Final = ("bool", "bytes", "dict", "float", "int", "list", "str")
_HEAD: Final = '''"""Calls the plugin {title} of a broker.

Made by `rsocket-broker plugins stubs`: make it anew, do not edit.
"""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any, Literal, NotRequired, TypedDict

from rsocket_broker.client import Session
from rsocket_broker.jsontext import dump, parse
from rsocket_broker.payload import Payload

__all__ = ["{client}"]

{types}
def _read(answer: Payload) -> Any:
    return parse(bytes(answer.data or b"null"))


class {client}:
    """{doc}"""

    def __init__(self, session: Session) -> None:
        self._session = session
'''


def stubs_of(schema: Schema) -> str:
    """The module. `schema` is that of `schema.schema_of`."""
    title, client = schema["title"], f"{_identifier(schema['title'], title=True)}Client"
    doc = _doc(schema.get("description", "")) or f"The plugin {title}."
    types = "".join(f"{_declared(name, one)}\n\n" for name, one in schema["$defs"].items())
    methods = "".join(_method(name, one) for name, one in schema["methods"].items())
    methods += "".join(_event(name, one) for name, one in schema["events"].items())
    names = {_identifier(name) for name in (*schema["methods"], *schema["events"])}
    for name in sorted(names.intersection(_SHADOWED)):  # in the class, the name is the method
        types += f"_{name} = {name}\n\n"
        methods = "".join(_unshadowed(line, name) for line in methods.splitlines(keepends=True))
    return _HEAD.format(title=title, client=client, types=types, doc=doc) + methods


def _unshadowed(line: str, name: str) -> str:
    if line.lstrip().startswith('"'):  # words of the author
        return line
    return re.sub(rf"(?<![\w.'\"])(?<!def ){name}(?=[\[\],) ])", f"_{name}", line)


def type_of(schema: Schema) -> str:
    """What Python calls the values of a schema."""
    if "$ref" in schema:
        return _class_name(schema["$ref"].rpartition("/")[2])
    if "contentMediaType" in schema:
        return "bytes"
    if "enum" in schema:
        return f"Literal[{', '.join(map(repr, schema['enum']))}]"
    if "anyOf" in schema:
        return " | ".join(dict.fromkeys(map(type_of, schema["anyOf"])))
    if "items" in schema and "prefixItems" not in schema:
        return f"list[{type_of(schema['items'])}]"
    if "additionalProperties" in schema:
        return f"dict[str, {type_of(schema['additionalProperties'])}]"
    return _TYPES.get(schema.get("type", ""), "Any")


def _declared(name: str, schema: Schema) -> str:
    """A class of the schema. Keys that are no names of Python need the other way of writing a TypedDict; rows (which
    JSON has no names for) are lists."""
    if schema.get("type") != "object" or "properties" not in schema:
        return f"{_class_name(name)} = {type_of(schema)}\n"
    required = set(schema.get("required", ()))
    members = [
        f"{key!r}: {_quoted(one) if key in required else f'NotRequired[{_quoted(one)}]'}"
        for key, one in schema["properties"].items()
    ]
    return f"{_class_name(name)} = TypedDict({_class_name(name)!r}, {{{', '.join(members)}}})\n"


def _quoted(schema: Schema) -> str:
    """In a class that may come before the one that it names."""
    text = type_of(schema)
    return f'"{text}"' if "Literal" not in text and '"' not in text else text


def _method(name: str, schema: Schema) -> str:
    asked, given = schema["parameters"], schema["result"]
    takes, lines = _parameters(asked)
    body = {
        "request-response": _request,
        "request-stream": _stream,
        "request-channel": _channel,
    }[schema["interaction"]]
    return "\n".join(body(_identifier(name), schema, takes, lines, "contentMediaType" in asked, given)) + "\n"


def _request(name: str, schema: Schema, takes: str, lines: list[str], raw: bool, given: Schema) -> Iterator[str]:
    gives, route, limit = type_of(given), schema["route"], _limit(takes)
    yield f"\n    async def {name}(self{takes}, *, {limit}: float | None = 30.0) -> {gives}:"
    yield from _docstring(schema)
    yield from lines
    if raw or gives == "bytes":
        yield f"        _payload = Payload({'data' if raw else _DUMPED}, None)"
        yield f"        _answer = await self._session.request_payload({route!r}, _payload, timeout={limit})"
        yield from _unpacked(gives)
        return
    yield f"        _answer: {gives} = await self._session.request({route!r}, _value, timeout={limit})"
    yield "        return _answer"


def _stream(name: str, schema: Schema, takes: str, lines: list[str], raw: bool, given: Schema) -> Iterator[str]:
    gives, route = type_of(given), schema["route"]
    yield f"\n    async def {name}(self{takes}) -> AsyncGenerator[{gives}, None]:"
    yield from _docstring(schema)
    yield from lines
    if raw or gives == "bytes":
        payload = f"Payload({'data' if raw else _DUMPED}, None)"
        yield f"        async with aclosing(self._session.stream_payloads({route!r}, {payload})) as answers:"
        yield "            async for _answer in answers:"
        yield (
            "                yield bytes(_answer.data or b'')"
            if gives == "bytes"
            else f"                yield {_LOADED}"
        )
        return
    yield f"        async with aclosing(self._session.stream({route!r}, _value)) as answers:"
    yield "            async for _answer in answers:"
    yield "                yield _answer"


def _channel(name: str, schema: Schema, takes: str, lines: list[str], raw: bool, given: Schema) -> Iterator[str]:
    """The first payload carries the parameters, if the handler has any; else it is the first item."""
    gives, route, item = type_of(given), schema["route"], type_of(schema["incoming"])
    bare = not takes
    yield f"\n    async def {name}(self{takes}, incoming: AsyncIterator[{item}]) -> AsyncGenerator[{gives}, None]:"
    yield from _docstring(schema)
    yield from [] if bare else lines
    yield "\n        async def outgoing() -> AsyncIterator[Payload]:"
    if not bare:
        yield f"            yield Payload({'data' if raw else _DUMPED}, None)"
    yield "            async for one in incoming:"
    yield f"                yield Payload({'one' if item == 'bytes' else _DUMPED.replace('_value', 'one')}, None)"
    yield f"\n        async with aclosing(self._session.channel_payloads({route!r}, outgoing())) as answers:"
    yield "            async for _answer in answers:"
    yield "                yield bytes(_answer.data or b'')" if gives == "bytes" else f"                yield {_LOADED}"


def _event(name: str, schema: Schema) -> str:
    asked = schema["parameters"]
    takes, lines = _parameters(asked)
    raw = "contentMediaType" in asked
    sent = (
        f"self._session.send_payload({schema['route']!r}, Payload(data, None))"
        if raw
        else f"self._session.send({schema['route']!r}, _value)"
    )
    head = f"\n    async def {_identifier(name)}(self{takes}) -> None:"
    return "\n".join([head, *_docstring(schema), *lines, f"        await {sent}"]) + "\n"


_DUMPED: Final = "dump(_value)"
_LOADED: Final = "_read(_answer)"


def _unpacked(gives: str) -> Iterator[str]:
    if gives == "bytes":
        yield "        return bytes(_answer.data or b'')"
        return
    yield f"        _found: {gives} = _read(_answer)"
    yield "        return _found"


def _parameters(schema: Schema) -> tuple[str, list[str]]:
    """The parameters of the Python function, and the lines that make `value` of them."""
    if "contentMediaType" in schema:
        return ", data: bytes", []
    if "properties" not in schema:
        if schema.get("type") == "object" and "additionalProperties" not in schema:
            return (", params: dict[str, Any]", ["        _value = params"])
        return f", params: {type_of(schema)}", ["        _value = params"]
    required = set(schema.get("required", ()))
    order = sorted(schema["properties"], key=lambda key: key not in required)
    takes, always, sometimes = "", [], []
    for key in order:
        one, name = schema["properties"][key], _identifier(key)
        if key in required or "default" in one:
            takes += f", {name}: {type_of(one)}" + ("" if key in required else f" = {one['default']!r}")
            always.append(f"{key!r}: {name}")
        else:
            takes += f", {name}: {type_of(one)} | None = None"
            sometimes.append(f"        if {name} is not None:\n            _value[{key!r}] = {name}")
    return takes, [f"        _value: dict[str, Any] = {{{', '.join(always)}}}", *sometimes]


def _limit(takes: str) -> str:
    return "call_timeout" if ", timeout:" in takes else "timeout"


def _docstring(schema: Schema) -> Iterator[str]:
    text = _doc(schema.get("description", ""))
    if text:
        yield f'        """{text}"""'


def _doc(text: str) -> str:
    """Words of a plugin's author, which must not end the docstring that they stand in."""
    return text.replace("\\", "\\\\").replace('"""', "'''").rstrip('"')


def _class_name(name: str) -> str:
    return _identifier(name)


def _identifier(name: str, *, title: bool = False) -> str:
    found = re.sub(r"\W", "_", name, flags=re.ASCII)
    if title:
        found = found[:1].upper() + found[1:]
    if not found or found[0].isdigit():
        found = f"_{found}"
    return f"{found}_" if keyword.iskeyword(found) or found in ("self", "session") else found


def outline_of(schema: Schema) -> list[tuple[str, str, str, str]]:
    """For people: route, kind, and the Python types of what each takes and gives."""
    methods = [
        (one["route"], one["interaction"], _taken(one["parameters"]), type_of(one["result"]))
        for one in schema["methods"].values()
    ]
    return methods + [(one["route"], "event", _taken(one["parameters"]), "") for one in schema["events"].values()]


def _taken(schema: Schema) -> str:
    if "properties" not in schema:
        return type_of(schema)
    required = set(schema.get("required", ()))
    return ", ".join(
        f"{key}{'' if key in required else '?'}: {type_of(one)}" for key, one in schema["properties"].items()
    )
