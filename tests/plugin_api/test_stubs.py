"""Generated clients: strictly typed, and able to talk to a broker."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rsocket_broker.plugin_api.schema import schema_of
from rsocket_broker.plugin_api.stubs import outline_of, stubs_of, type_of
from rsocket_broker.routing.registry import load_plugins

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ({"type": "integer"}, "int"),
        ({}, "Any"),
        ({"enum": ["a", 1]}, "Literal['a', 1]"),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, "str | None"),
        ({"type": "array", "items": {"$ref": "#/$defs/Row"}}, "list[Row]"),
        ({"type": "object", "additionalProperties": {"type": "number"}}, "dict[str, float]"),
        ({"contentMediaType": "application/octet-stream"}, "bytes"),
        ({"type": "array", "prefixItems": [], "items": False}, "list[Any]"),
    ],
)
def test_each_schema_has_its_type(schema: dict[str, Any], text: str) -> None:
    assert type_of(schema) == text


def awkward() -> dict[str, Any]:
    """Names that are none in Python, or others' names there."""
    whole = {"type": "object", "properties": {"class": {"type": "integer"}, "timeout": {"type": "number"}}}
    whole["required"] = ["class"]  # type: ignore[assignment]
    method = {"route": "x.y-z", "interaction": "request-response", "parameters": whole, "result": {"$ref": "#/$defs/A"}}
    method["description"] = 'It says """this""" and ends with a "quote"'
    names = {"type": "object", "properties": {"not a name": {"type": "null"}, "self": {"$ref": "#/$defs/A"}}}
    return {
        "title": "x",
        "methods": {"y-z": method, "list": {**method, "result": {"type": "array", "items": {"type": "string"}}}},
        "events": {"import": {"route": "x.import", "parameters": {"contentMediaType": "application/octet-stream"}}},
        "$defs": {"A": names},
    }


@pytest.mark.row("D-13")
def test_the_stubs_of_every_bundled_plugin_are_strictly_typed(tmp_path: Path) -> None:
    from tests.plugin_api.test_schema import Typed

    texts = {loaded.id: stubs_of(schema_of(loaded.plugin)) for loaded in load_plugins()}
    texts |= {"typed": stubs_of(schema_of(Typed())), "awkward": stubs_of(awkward())}
    for name, text in texts.items():
        compile(text, name, "exec")
        (tmp_path / f"{name.replace('-', '_')}_client.py").write_text(text)
    command = [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", str(tmp_path)]
    command += ["--config-file", str(ROOT / "pyproject.toml"), "--cache-dir", str(ROOT / ".mypy_cache" / "stubs")]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, env={**os.environ, "MYPYPATH": str(ROOT)}
    )
    assert done.returncode == 0, done.stdout


def test_the_outline_is_for_people() -> None:
    assert outline_of(awkward()) == [
        ("x.y-z", "request-response", "class: int, timeout?: float", "A"),
        ("x.y-z", "request-response", "class: int, timeout?: float", "list[str]"),
        ("x.import", "event", "bytes", ""),
    ]
