"""The architecture as tests: what import-linter cannot say (it runs on the wheel, see the Makefile)."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "rsocket_broker"
SOURCES = sorted([*PACKAGE.rglob("*.py"), *(ROOT / "plugins").rglob("*.py"), *(ROOT / "certs").rglob("*.py")])

CLOCKS_AND_SOCKETS = {"asyncio", "ssl", "socket", "time", "select", "threading"}
SANS_IO = [
    "protocol/*.py",
    "sessions/*.py",
    "policy/*.py",
    "browser/*.py",
    "enrollment/exchange.py",
    "authority/issue.py",
    "client/reconnect.py",
    "pairing_sides.py",
]


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, at the top or inside a function."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def calls(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute | ast.Name):
            yield node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id


def shown(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("pattern", SANS_IO)
def test_a_pure_core_opens_nothing_and_asks_no_clock(pattern: str) -> None:
    paths = sorted(PACKAGE.glob(pattern))
    assert paths, f"{pattern} names no file"
    for path in paths:
        found = {name.partition(".")[0] for name in imports(path)} & CLOCKS_AND_SOCKETS
        assert not found, f"{shown(path)} imports {', '.join(sorted(found))}"


@pytest.mark.parametrize("path", SOURCES, ids=shown)
def test_a_library_stays_in_its_place(path: Path) -> None:
    names = set(imports(path))
    roots = {name.partition(".")[0] for name in names}
    where = shown(path)
    assert "click" not in roots or where.startswith("rsocket_broker/cli/"), "only the command line knows click"
    assert "adbutils" not in roots or where.startswith("rsocket_broker/enrollment/"), "only enrolment knows adb"
    assert not {"plugins", "certs"} & roots, "they install as rsocket_broker.plugins and rsocket_broker.certs"


@pytest.mark.parametrize("path", sorted((ROOT / "plugins").rglob("*.py")), ids=shown)
def test_a_bundled_plugin_sees_only_what_every_author_sees(path: Path) -> None:
    ours = {name for name in imports(path) if name.startswith("rsocket_broker")}
    assert all(name.startswith(("rsocket_broker.plugin_api", "rsocket_broker.plugins")) for name in ours)


@pytest.mark.parametrize("path", SOURCES, ids=shown)
def test_only_the_command_line_prints_or_exits(path: Path) -> None:
    if shown(path).startswith("rsocket_broker/cli/") or path.name == "__main__.py":
        return
    assert not {"print", "exit"} & set(calls(path)), f"{shown(path)} prints or exits"


@pytest.mark.parametrize("path", SOURCES, ids=shown)
def test_no_module_outgrows_one_idea(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= 700, "a module of more than 700 lines holds more than one idea"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            size = (node.end_lineno or 0) - node.lineno + 1
            assert size <= 80, f"{node.name} has {size} lines"
