"""What every test shares: requirement rows, the portion of a long test that runs today, and the rule about skips."""

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

from tests.interop.libraries import HERE as INTEROP
from tests.interop.libraries import node_modules

pytest_plugins = ["tests.emulated_device.fixtures"]

SEED = int(os.environ.get("RSOCKET_BROKER_TEST_SEED", "20"))
EVERYDAY_EXAMPLES = 40
EVERYDAY_SHARE = 10
"""One in ten of a long test's cases runs every day; `make soak` runs all of them."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--soak", action="store_true", help="run every case of the long tests, not a seeded tenth")
    parser.addoption(
        "--no-skips", action="store_true", help="fail when a test was skipped for want of something that can be had"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Property tests that ask for no number of their own try fewer examples every day than in a soak."""
    settings.register_profile("everyday", max_examples=EVERYDAY_EXAMPLES, deadline=None)
    settings.register_profile("soak", max_examples=1000, deadline=None)
    settings.load_profile("soak" if config.getoption("--soak") else "everyday")


def pytest_report_header(config: pytest.Config) -> str:
    share = "every case" if config.getoption("--soak") else f"one case in {EVERYDAY_SHARE}"
    return f"long tests: {share}, seed {SEED} (RSOCKET_BROKER_TEST_SEED)"


@pytest.fixture
def portion(request: pytest.FixtureRequest) -> Callable[[int], list[int]]:
    """`portion(500)`: the case numbers of a long test to run now: all of them in a soak, else a seeded tenth."""

    def choose(cases: int) -> list[int]:
        if request.config.getoption("--soak"):
            return list(range(cases))
        return sorted(random.Random(SEED).sample(range(cases), max(1, cases // EVERYDAY_SHARE)))

    return choose


@pytest.fixture(scope="session")
def node_path() -> Path:
    """The folder of the JavaScript packages: those of the library in Flipper's own server."""
    return node_modules(INTEROP / "js" / "rsocket-0")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """A machine that promises every tool (`--no-skips`) fails where a test says that it "needs" one."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if not session.config.getoption("--no-skips") or reporter is None or exitstatus != pytest.ExitCode.OK:
        return
    wanting = [report.longrepr[2] for report in reporter.stats.get("skipped", []) if "needs " in report.longrepr[2]]
    if wanting:
        reporter.write_line("skipped for want of a tool that this machine should have:")
        for reason in sorted(set(wanting)):
            reporter.write_line(f"  {reason}")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
