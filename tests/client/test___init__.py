"""What an app may import: these names, and no more without a decision."""

import ast
import inspect
from pathlib import Path

import pytest

from rsocket_broker import client

NAMES = {
    "AppPlugin", "ApplicationError", "Backoff", "BrokerError", "ConnectionClosed", "Enrolled", "EnrollmentRefused",
    "Invalid", "Lease", "Observer", "Pairing", "Payload", "Progress", "Rejected", "RequestFailed", "Session",
    "SetupRefused", "Stage", "Upload", "connect", "connect_child", "enroll", "method",
}  # fmt: skip


def test_the_public_names() -> None:
    assert set(client.__all__) == NAMES


@pytest.mark.parametrize("name", sorted(NAMES - {"Payload", "Observer"}))
def test_each_public_name_says_what_it_is(name: str) -> None:
    assert inspect.getdoc(getattr(client, name))


@pytest.mark.row("F-36")
def test_every_public_call_takes_its_settings_by_name() -> None:
    for function in (client.connect, client.enroll):
        kinds = {parameter.kind for parameter in inspect.signature(function).parameters.values()}
        assert kinds == {inspect.Parameter.KEYWORD_ONLY}


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parents[2] / "examples").glob("*.py")), ids=lambda path: path.name
)
def test_the_examples_use_public_names_only(path: Path) -> None:
    used = {
        node.attr
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "client"
    }
    assert used <= NAMES
