"""Shared by the tests of enrolment."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.enrollment.workshop import DesktopApp, Workshop, open_workshop


@pytest.fixture(scope="session")
def first_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with its authority, made once, since making keys is slow. To be copied, not used."""
    home = tmp_path_factory.mktemp("first") / "home"
    with open_workshop(home):
        return home


@pytest.fixture
def home(first_home: Path, tmp_path: Path) -> Path:
    """A home of the test's own, in which nothing has happened yet."""
    return Path(shutil.copytree(first_home, tmp_path / "home"))


@pytest.fixture
def workshop(home: Path) -> Iterator[Workshop]:
    with open_workshop(home) as opened:
        yield opened


@pytest.fixture
def app(tmp_path: Path) -> DesktopApp:
    return DesktopApp(tmp_path / "apps" / "demo")
