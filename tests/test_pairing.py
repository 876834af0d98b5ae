"""Every source module has a test module of its own, or stands in the list of debts, which may only shrink."""

from pathlib import Path

ROOT = Path(__file__).parent.parent

DEBTS: dict[str, str] = {
    "rsocket_broker/__init__.py": "a version and nothing else",
    "rsocket_broker/payload.py": "names of another library",
}


def test_module_for(source: Path) -> Path:
    """tests/x/test_y.py for rsocket_broker/x/y.py; tests/plugins/x/test_y.py for plugins/x/y.py."""
    inside = source.relative_to(ROOT)
    parts = inside.parts[1:] if inside.parts[0] == "rsocket_broker" else inside.parts
    return ROOT.joinpath("tests", *parts[:-1], f"test_{parts[-1]}")


test_module_for.__test__ = False  # type: ignore[attr-defined]  # a helper whose name says what it finds


def sources() -> list[Path]:
    found = [*(ROOT / "rsocket_broker").rglob("*.py"), *(ROOT / "plugins").rglob("*.py")]
    return sorted(
        path for path in found if path.name != "__init__.py" or path.read_text(encoding="utf-8").count("\n") > 40
    )


def test_every_module_has_its_tests() -> None:
    missing = {
        str(path.relative_to(ROOT)): str(test_module_for(path).relative_to(ROOT))
        for path in sources()
        if not test_module_for(path).exists()
    }
    undeclared = {source: test for source, test in missing.items() if source not in DEBTS}
    assert not undeclared, f"no test module for: {undeclared}"


def test_no_debt_is_kept_after_it_is_paid() -> None:
    for name in DEBTS:
        source = ROOT / name
        assert source.exists(), f"{name} is gone: take it off the list"
        assert not test_module_for(source).exists(), f"{name} has its tests now: take it off the list"
