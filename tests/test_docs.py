"""The documentation, held to the product: commands exist, Python compiles, plugins load, links lead somewhere."""

import ast
import importlib
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import click
import pytest

from rsocket_broker.cli.main import root
from rsocket_broker.cli.scaffold import Scaffold

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", ROOT / "benchmarks" / "README.md", *(ROOT / "docs").rglob("*.md")])
BLOCK = re.compile(r"^( *)```(\w+)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
HELP = ["-h", "--help"]
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")


def shown(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(language: str) -> Iterator[tuple[Path, str]]:
    for page in PAGES:
        for indent, name, text in BLOCK.findall(page.read_text(encoding="utf-8")):
            if name == language:
                yield page, "\n".join(line.removeprefix(indent) for line in text.splitlines()) + "\n"


def commands() -> Iterator[tuple[str, list[str]]]:
    """Every `$ rsocket-broker ...` line, without its comment."""
    for page, text in blocks("console"):
        for line in text.replace("\\\n", " ").splitlines():
            if line.startswith("$ rsocket-broker"):
                yield shown(page), shlex.split(line.removeprefix("$ "), comments=True)


def check(words: list[str]) -> None:
    """The command exists and takes these options; nothing is run."""
    command, parent = (
        root,
        click.Context(root, info_name="rsocket-broker", resilient_parsing=True, help_option_names=HELP),
    )
    words = words[1:]
    while isinstance(command, click.Group):
        while words and words[0].startswith("-"):
            if words[0] == "--version":
                return
            words = words[2:] if words[0] == "--home" else words[1:]
        child = command.get_command(parent, words[0])
        assert child is not None, f"no command {words[0]}"
        parent = click.Context(child, info_name=words[0], parent=parent, resilient_parsing=True)
        command, words = child, words[1:]
    for operator in ("|", "&", ">", ";"):
        words = words[: words.index(operator)] if operator in words else words
    parser = command.make_parser(parent)
    parser.parse_args(args=list(words))


@pytest.mark.parametrize(
    ("page", "words"), list(commands()), ids=lambda value: " ".join(value) if isinstance(value, list) else value
)
def test_a_command_in_the_docs_exists(page: str, words: list[str]) -> None:
    check(words)


@pytest.mark.parametrize(("page", "text"), [(shown(page), text) for page, text in blocks("python")])
def test_python_in_the_docs_compiles_and_its_imports_exist(page: str, text: str) -> None:
    tree = ast.parse(text)
    lines = [ast.unparse(node) for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    exec(compile("\n".join(lines), page, "exec"), {})


@pytest.mark.parametrize(("page", "text"), [(shown(p), t) for p, t in blocks("python") if "(Plugin)" in t])
def test_a_plugin_in_the_docs_loads(page: str, text: str, tmp_path: Path) -> None:
    from click.testing import CliRunner

    path = tmp_path / "documented.py"
    path.write_text(text, encoding="utf-8")
    home = tmp_path / "home"
    done = CliRunner().invoke(root, ["--home", str(home), "plugins", "check", str(path)], standalone_mode=False)
    assert done.exit_code == 0, done.output or done.exception


@pytest.mark.parametrize("page", PAGES, ids=shown)
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{shown(page)} links to {target}"


def test_every_page_can_be_found_from_another() -> None:
    linked = {(page.parent / link).resolve() for page in PAGES for link in LINK.findall(page.read_text("utf-8"))}
    assert [shown(page) for page in PAGES if page not in linked and page.name != "README.md"] == []


def test_what_plugins_new_writes_is_what_the_next_lines_name() -> None:
    seen = 0
    for page, text in blocks("console"):
        for name in re.findall(r"rsocket-broker plugins new (\w+)", text):
            module = Scaffold.named(name).module
            path = f"{module.removesuffix('_plugin')}/{module}.py"
            named = re.findall(r"(?:check|--plugin) (\S+)", text)
            assert named == [path] * len(named), shown(page)
            seen += len(named)
    assert seen


UNITS = {"": 1, "bytes": 1, "characters": 1, "KiB": 1024, "MiB": 1024**2, "s": 1, "h": 3600}
NUMBER = re.compile(r"([\d.]+) ?(\w*)")
CONSTANT = re.compile(r"`(?:(rsocket_broker[\w.]*):)?([A-Z][\w.()]+)`")


def limits() -> Iterator[tuple[str, str, str]]:
    """(number, module, constant) of every row of the page of limits."""
    default = ""
    for line in (ROOT / "docs" / "reference" / "limits.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if found := re.search(r"constants of `([\w.]+)`", line):
            default = found[1]
        constants = [pair for cell in cells[1:] for pair in CONSTANT.findall(cell)]
        for number, (module, name) in zip(cells[1:], constants, strict=False):
            yield number, module or default, name


@pytest.mark.parametrize(("number", "module", "name"), list(limits()))
def test_a_limit_is_the_number_in_the_code(number: str, module: str, name: str) -> None:
    found = NUMBER.fullmatch(number)
    assert found is not None, number
    value = eval(name, vars(importlib.import_module(module)))
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    assert float(found[1]) * UNITS[found[2]] == seconds


def test_the_page_of_limits_was_read() -> None:
    assert len(list(limits())) > 40


def test_the_command_line_reference_is_what_the_help_says() -> None:
    """In a process of its own: click keeps the first --help that it was asked for with a command."""
    reference = (ROOT / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")
    made = subprocess.run([sys.executable, __file__], capture_output=True, check=True, encoding="utf-8", cwd=ROOT)
    assert reference == made.stdout, "run: python tests/test_docs.py > docs/reference/cli.md"


def command_line_reference() -> str:
    """docs/reference/cli.md, made from the help texts."""
    pages = ["# The command line\n\nMade from the help texts; `tests/test_docs.py` holds it to them.\n"]
    pages += [f"## `{path}`\n\n```text\n{text}\n```\n" for path, text in help_texts(root, "rsocket-broker", None)]
    return "\n".join(pages)


def help_texts(command: click.Command, path: str, parent: click.Context | None) -> Iterator[tuple[str, str]]:
    context = click.Context(
        command,
        info_name=path.rpartition(" ")[2],
        parent=parent,
        help_option_names=HELP,
        terminal_width=100,
        max_content_width=100,
    )
    text = command.get_help(context)
    yield path, "\n".join(line.rstrip() for line in text.splitlines())
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            assert child is not None
            yield from help_texts(child, f"{path} {name}", context)


if __name__ == "__main__":
    print(command_line_reference(), end="")
