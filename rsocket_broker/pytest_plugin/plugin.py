"""What pytest loads: the options, the fixtures, and the evidence that is kept when a test fails.

    def test_login(app, network):
        app.call("Login", "submit", {"user": "ada"})
        exchange = network.wait(method="POST", url="/login", status=200)

A broker runs in the test run's own process from the first test on that asks for `app` or `broker`. Who starts the app
is up to the project: it overrides `launch_app`. Names of fixtures that a project defines itself win over those here.
"""

from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from rsocket_broker.pytest_plugin.app import AppUnderTest
    from rsocket_broker.pytest_plugin.broker import BrokerUnderTest
    from rsocket_broker.pytest_plugin.evidence import Evidence
    from rsocket_broker.pytest_plugin.tools import (
        Crashes,
        Databases,
        Images,
        Layout,
        Leaks,
        Logs,
        Navigation,
        Network,
        Preferences,
    )

OPTIONS = (
    (
        "rsocket_home",
        "DIR",
        "Home of the broker that the tests run; kept, so that apps stay enrolled (default: in pytest's cache)",
    ),
    (
        "rsocket_serve",
        "ARGUMENTS",
        "Options of `rsocket-broker serve` for it, such as '--plugin ./my_plugin.py --adb off'",
    ),
    ("rsocket_app", "APP_ID[@DEVICE_ID]", "The app that the tests drive (default: the only one that is connected)"),
    ("rsocket_timeout", "SECONDS", "How long the app may take to connect (default: 30)"),
    (
        "rsocket_artifacts",
        "DIR",
        "Where the network traffic of failed tests is kept, as HAR (default: rsocket-artifacts)",
    ),
)
"""Each is an option of the command line and, under the same name, a line of pytest's configuration."""
CONNECT_S = 30.0
ARTIFACTS = "rsocket-artifacts"

_EVIDENCE: "pytest.StashKey[Evidence]" = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("rsocket-broker", "apps through an RSocket broker")
    for name, metavar, text in OPTIONS:
        parser.addini(name, text)
        group.addoption(f"--{name.replace('_', '-')}", dest=name, metavar=metavar, help=f"{text}.")


def setting(config: pytest.Config, name: str) -> str:
    """The option as given on the command line, else as configured, else ""."""
    given = config.getoption(name)
    return str(config.getini(name) or "") if given is None else str(given)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """While the app of a failed test is still there, what it said on the network is written down."""
    report = yield
    evidence = item.stash.get(_EVIDENCE, None)
    if evidence is not None and report.when == "call" and report.failed:
        for title, text in evidence.collect():
            report.sections.append((title, text))
            item.user_properties.append((title, text))
    return report


@pytest.fixture(scope="session")
def broker(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> "Iterator[BrokerUnderTest]":
    """The broker of the test run: `home`, `ports`, `app(name)`. Stopped at its end; its home is kept."""
    from rsocket_broker.pytest_plugin.broker import BrokerUnderTest, broker_settings

    named, cache = setting(pytestconfig, "rsocket_home"), getattr(pytestconfig, "cache", None)  # it can be switched off
    kept = tmp_path_factory.mktemp("rsocket-broker") if cache is None else cache.mkdir("rsocket-broker")
    settings = broker_settings(Path(named) if named else kept / "home", setting(pytestconfig, "rsocket_serve"))
    with BrokerUnderTest(settings, _timeout(pytestconfig)) as broker:
        yield broker


def _timeout(config: pytest.Config) -> float:
    text = setting(config, "rsocket_timeout")
    try:
        return float(text or CONNECT_S)
    except ValueError:
        raise pytest.UsageError(f"rsocket_timeout must be a number of seconds, not {text!r}.") from None


@pytest.fixture(scope="session")
def launch_app() -> None:
    """Starts the app, and ends it at the end of the test run. Override it; this one trusts that the app runs already.

    Ask for `broker` in it where the app needs to know the ports.
    """


@pytest.fixture
def app(
    broker: "BrokerUnderTest", launch_app: object, request: pytest.FixtureRequest, pytestconfig: pytest.Config
) -> "AppUnderTest":
    """The app, connected."""
    from rsocket_broker.pytest_plugin.evidence import Evidence

    found = broker.app(setting(pytestconfig, "rsocket_app")).wait_connected()
    folder = Path(setting(pytestconfig, "rsocket_artifacts") or ARTIFACTS)
    request.node.stash[_EVIDENCE] = Evidence(found, pytestconfig.invocation_params.dir / folder, request.node.nodeid)
    return found


@pytest.fixture
def network(app: "AppUnderTest") -> "Network":
    """What the app asks of its servers, from the beginning of the test on."""
    from rsocket_broker.pytest_plugin import tools

    return tools.Network(app)


@pytest.fixture
def databases(app: "AppUnderTest") -> "Databases":
    """The app's SQL databases."""
    from rsocket_broker.pytest_plugin import tools

    return tools.Databases(app)


@pytest.fixture
def preferences(app: "AppUnderTest") -> "Preferences":
    """The app's preferences. What a test has set is put back at its end only by `with preferences.kept():`."""
    from rsocket_broker.pytest_plugin import tools

    return tools.Preferences(app)


@pytest.fixture
def navigation(app: "AppUnderTest") -> "Navigation":
    """Which screen the app shows, and the way to another."""
    from rsocket_broker.pytest_plugin import tools

    return tools.Navigation(app)


@pytest.fixture
def crashes(app: "AppUnderTest") -> "Crashes":
    """What the app, or the log of its device, has reported as a crash."""
    from rsocket_broker.pytest_plugin import tools

    return tools.Crashes(app)


@pytest.fixture
def leaks(app: "AppUnderTest") -> "Leaks":
    """Objects that the app's LeakCanary has found to be kept in memory."""
    from rsocket_broker.pytest_plugin import tools

    return tools.Leaks(app)


@pytest.fixture
def layout(app: "AppUnderTest") -> "Layout":
    """The app's views."""
    from rsocket_broker.pytest_plugin import tools

    return tools.Layout(app)


@pytest.fixture
def images(app: "AppUnderTest") -> "Images":
    """The images in the app's caches."""
    from rsocket_broker.pytest_plugin import tools

    return tools.Images(app)


@pytest.fixture
def logs(app: "AppUnderTest") -> "Logs":
    """What the app writes into the log of its device."""
    from rsocket_broker.pytest_plugin import tools

    return tools.Logs(app)
