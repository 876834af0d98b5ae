"""What is kept of a failed test."""

import json
from pathlib import Path

import pytest

from rsocket_broker.pytest_plugin.app import AppUnderTest
from rsocket_broker.pytest_plugin.evidence import MAX_NAME, Evidence, file_name


def test_what_the_app_did_since_the_test_began_is_kept(shop: AppUnderTest, tmp_path: Path) -> None:
    shop.call("Shop", "buy", {"item": "cup"})
    evidence = Evidence(shop, tmp_path / "artifacts", "tests/test_shop.py::test_buying[tea]")
    shop.call("Shop", "buy", {"item": "tea"})
    shop.call("Shop", "crash", {"reason": "no price"})
    while len(told := dict(evidence.collect())) < 2:  # the crash is on its way
        pass
    path = tmp_path / "artifacts" / "tests-test_shop.py-test_buying-tea.har"
    assert told["network"].splitlines() == ["201 POST https://api.shop.example/v1/cart", f"All 1 as HAR: {path}"]
    assert "no price" in told["crashes"]
    (entry,) = json.loads(path.read_text())["log"]["entries"]
    assert "tea" in entry["request"]["postData"]["text"]
    assert path.stat().st_mode & 0o777 == 0o600


def test_where_nothing_happened_there_is_nothing_to_keep(shop: AppUnderTest, tmp_path: Path) -> None:
    assert list(Evidence(shop, tmp_path / "artifacts", "test_nothing").collect()) == []
    assert not (tmp_path / "artifacts").exists()


def test_what_cannot_be_kept_is_said(shop: AppUnderTest, tmp_path: Path) -> None:
    evidence = Evidence(shop, tmp_path / "file" / "artifacts", "test_it")
    (tmp_path / "file").write_text("in the way")
    shop.call("Shop", "buy", {"item": "tea"})
    ((title, text),) = evidence.collect()
    assert title == "app"
    assert "could not be collected" in text


@pytest.mark.parametrize(
    ("test", "name"),
    [
        ("tests/test_a.py::test_b", "tests-test_a.py-test_b"),
        ("../../etc/passwd", "etc-passwd"),
        ("test_ü[\x1b/]", "test_"),
        ("x" * 1000, "x" * MAX_NAME),
    ],
)
def test_a_file_is_named_after_its_test(test: str, name: str) -> None:
    assert file_name(test) == name
