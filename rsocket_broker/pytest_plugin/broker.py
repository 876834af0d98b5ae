"""The broker of a test run, as its fixtures see it."""

import shlex
from pathlib import Path
from types import TracebackType

from rsocket_broker.admin.run_folder import Ports
from rsocket_broker.broker import Broker
from rsocket_broker.cli.serve import settings_of_words
from rsocket_broker.errors import ConfigurationError
from rsocket_broker.pytest_plugin.app import AppUnderTest, Wanted
from rsocket_broker.pytest_plugin.broker_thread import BrokerThread
from rsocket_broker.settings import Settings

WHERE = "rsocket_serve, the options of `rsocket-broker serve`"


def broker_settings(home: Path, arguments: str = "") -> Settings:
    """What `rsocket-broker --home HOME serve ARGUMENTS` runs with. Raises ConfigurationError."""
    try:
        return settings_of_words(home, shlex.split(arguments))
    except ConfigurationError as error:
        raise ConfigurationError(f"{WHERE}: {error.public}") from error
    except ValueError as error:  # of shlex
        raise ConfigurationError(f"{WHERE}: {error}.") from error


class BrokerUnderTest:
    """A broker that runs from `with` on until the end of it."""

    def __init__(self, settings: Settings, timeout: float) -> None:
        """`timeout` is how many seconds apps may take to connect."""
        self._settings = settings
        self._timeout = timeout
        self._thread = BrokerThread(settings)

    def __enter__(self) -> "BrokerUnderTest":
        try:
            self._thread.start()
        except BaseException:
            self._thread.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.stop()

    @property
    def running(self) -> Broker:
        """The broker itself. What is not said to be for any thread is for its own: see `AppUnderTest.ask`."""
        return self._thread.broker

    @property
    def home(self) -> Path:
        """Its home: `rsocket-broker --home HOME …` is for the same broker while the tests run."""
        return self._settings.home

    @property
    def ports(self) -> Ports:
        """Where it listens."""
        return self._thread.broker.ports

    @property
    def clients(self) -> list[str]:
        """Who is connected: `app_id@device_id (proof)` each."""
        return sorted(str(session.identity.principal) for session in self._thread.sessions())

    def app(self, name: str = "") -> AppUnderTest:
        """An app by `app_id` or `app_id@device_id`, connected or not; "" is the only one that is connected."""
        return AppUnderTest(self._thread, Wanted(name), self._timeout)
