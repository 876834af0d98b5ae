"""Prints which tests prove which requirement row: `python tests/rows.py [ROW ...]`.

With rows named, prints those and exits 1 if one of them has no test.
"""

import ast
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).parent


def marked_rows(node: ast.AST) -> Iterator[str]:
    """The row ids in the `@pytest.mark.row(...)` decorators (or a module's `pytestmark`) of one definition."""
    marks = getattr(node, "decorator_list", [])
    for call in (part for mark in marks for part in ast.walk(mark)):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "row":
            yield from (str(argument.value) for argument in call.args if isinstance(argument, ast.Constant))


def tests_of(path: Path) -> Iterator[tuple[str, str]]:
    """(row, test id) for every marked test or test class in one file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            for row in marked_rows(node):
                yield row, f"{path.relative_to(TESTS.parent)}::{node.name}"


def in_order(row: str) -> tuple[str, int]:
    kind, _, number = row.partition("-")
    return kind, int(number)


def table() -> dict[str, list[str]]:
    """row → the tests that name it, both in order."""
    found: dict[str, list[str]] = {}
    for path in sorted(TESTS.rglob("test_*.py")):
        if "node_modules" not in path.parts:
            for row, test in tests_of(path):
                found.setdefault(row, []).append(test)
    bad = [row for row in found if not re.fullmatch(r"[FMWAD]-\d+", row)]
    if bad:
        sys.exit(f"not a requirement row: {', '.join(bad)}")
    return dict(sorted(found.items(), key=lambda item: in_order(item[0])))


def main(wanted: list[str]) -> int:
    rows = table()
    for row in wanted or rows:
        print(row, *rows.get(row, ["no test"]), sep="\n    ")
    return 1 if any(row not in rows for row in wanted) else 0


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `make rows | head` ends without a word
    sys.exit(main(sys.argv[1:]))
