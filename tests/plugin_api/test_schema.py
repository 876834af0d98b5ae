"""The schema of a plugin says what its handlers take and give, and nothing that they would refuse."""

import dataclasses
import enum
from collections.abc import AsyncIterator, Iterator
from typing import Any, Literal, NamedTuple, NotRequired, TypedDict

import attrs
import pytest

from rsocket_broker.payload import Payload
from rsocket_broker.plugin_api import App, Plugin, event, method
from rsocket_broker.plugin_api.mount import mount
from rsocket_broker.plugin_api.schema import DIALECT, RAW, schema_of


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@attrs.frozen
class Tree:
    """Holds itself."""

    name: str
    _hidden: int = 3
    children: "list[Tree]" = attrs.field(factory=list)


@dataclasses.dataclass
class Dot:
    x: float
    y: float = 0.0


class Page(TypedDict):
    rows: list[Dot]
    next: NotRequired[str | None]


class Pair(NamedTuple):
    left: int
    right: str


class Typed(Plugin):
    """Takes everything.

    And more.
    """

    id = "typed"

    @method("simple")
    def simple(self, app: App, a: int, b: float = 1.5, c: str | None = None) -> bool:
        """Adds up."""
        return True

    @method("tree")
    def tree(self, app: App, root: Tree, colour: Colour, how: Literal["a", 1]) -> Pair:
        return Pair(1, "")

    @method("page")
    async def page(self, app: App, params: dict[str, int]) -> Page:
        return {"rows": []}

    @method("raw")
    def raw(self, app: App, payload: Payload) -> Payload:
        return payload

    @method("each")
    def each(self, app: App) -> Iterator[tuple[int, ...]]:
        yield ()

    @method("both")
    async def both(self, app: App, start: int, incoming: AsyncIterator[Dot]) -> AsyncIterator[bytes]:
        yield b""

    @method("anything")
    def anything(self, app: App, value: Any) -> Any: ...

    @event("told")
    def told(self, app: App, n: int) -> None: ...


@pytest.fixture
def schema() -> dict[str, Any]:
    return schema_of(Typed())


@pytest.mark.row("D-13", "M-7")
def test_parameters_and_results_come_from_the_annotations(schema: dict[str, Any]) -> None:
    assert (schema["$schema"], schema["title"], schema["description"]) == (DIALECT, "typed", "Takes everything.")
    assert schema["methods"]["simple"] == {
        "route": "typed.simple",
        "description": "Adds up.",
        "interaction": "request-response",
        "parameters": {
            "type": "object",
            "properties": {
                "a": {"type": "integer"},
                "b": {"type": "number", "default": 1.5},
                "c": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
            },
            "required": ["a"],
        },
        "result": {"type": "boolean"},
    }
    assert schema["events"]["told"]["parameters"]["required"] == ["n"]
    assert schema["methods"]["anything"]["result"] == {}


def test_classes_are_defined_once_and_may_hold_themselves(schema: dict[str, Any]) -> None:
    asked = schema["methods"]["tree"]["parameters"]["properties"]
    assert asked["root"] == {"$ref": "#/$defs/Tree"}
    assert asked["colour"] == {"enum": ["red", "blue"]}
    assert asked["how"] == {"enum": ["a", 1]}
    assert schema["$defs"]["Tree"] == {
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "hidden": {"type": "integer", "default": 3},
            "children": {"type": "array", "items": {"$ref": "#/$defs/Tree"}},
        },
        "required": ["name"],
    }
    assert schema["$defs"]["Pair"]["prefixItems"] == [
        {"type": "integer", "title": "left"},
        {"type": "string", "title": "right"},
    ]
    assert schema["$defs"]["Page"]["required"] == ["rows"]
    assert schema["$defs"]["Dot"]["properties"]["y"] == {"type": "number", "default": 0.0}


def test_raw_messages_streams_and_channels_are_named(schema: dict[str, Any]) -> None:
    methods = schema["methods"]
    assert methods["raw"]["parameters"] == methods["raw"]["result"] == dict(RAW)
    assert methods["page"]["parameters"] == {"type": "object", "additionalProperties": {"type": "integer"}}
    assert (methods["each"]["interaction"], methods["each"]["result"]["items"]) == (
        "request-stream",
        {"type": "integer"},
    )
    assert methods["both"]["interaction"] == "request-channel"
    assert methods["both"]["incoming"] == {"$ref": "#/$defs/Dot"}
    assert methods["both"]["result"] == dict(RAW)


def test_a_plugin_that_takes_whatever_comes_has_an_empty_schema() -> None:
    from rsocket.request_handler import BaseRequestHandler

    found = schema_of(mount(BaseRequestHandler, "legacy"))
    assert (found["methods"], found["events"]) == ({}, {})
