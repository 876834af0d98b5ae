"""Shared by the tests of enrolment."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.enrollment.workshop import DesktopApp, Workshop, open_workshop


@pytest.fixture
def workshop(tmp_path: Path) -> Iterator[Workshop]:
    with open_workshop(tmp_path / "home") as opened:
        yield opened


@pytest.fixture
def app(tmp_path: Path) -> DesktopApp:
    return DesktopApp(tmp_path / "apps" / "demo")
