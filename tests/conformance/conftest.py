"""Runs the suite against the broker, or against the one target that CONFORMANCE_TARGET names (see `score.py`)."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance import targets
from tests.conformance.deviations import DEVIATIONS
from tests.conformance.targets import FOREIGN, Target
from tests.conformance.wire import Peer
from tests.end_to_end.processes import BrokerProcess

CHOSEN = os.environ.get("CONFORMANCE_TARGET", "")
"""One of "broker", "plain" and the names in FOREIGN; nothing for the first two."""


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "applies(*what): only to targets that have all of this; see targets.py")
    config.addinivalue_line("markers", "lacks(what): only to targets that do not have this")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "judged" not in metafunc.fixturenames:
        return
    both = {"broker": targets.BROKER, "plain": targets.PLAIN}
    fitting = [name for name, has in both.items() if not _unfit(metafunc.definition, has)]
    metafunc.parametrize("judged", [CHOSEN] if CHOSEN else fitting, indirect=True, scope="package")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        params = getattr(getattr(item, "callspec", None), "params", {})
        name = item.name.split("[")[0]
        reason = DEVIATIONS.get(name)
        if reason and params.get("judged") in ("broker", "plain"):
            item.add_marker(pytest.mark.xfail(reason=reason, strict=True, raises=AssertionError))


def _unfit(item: pytest.Item, has: frozenset[str]) -> str:
    """Why a rule does not apply to a target that has these; "" when it does."""
    wanted = {what for mark in item.iter_markers("applies") for what in mark.args}
    unwanted = {what for mark in item.iter_markers("lacks") for what in mark.args}
    reasons = [f"it has no {what}" for what in sorted(wanted - has)] + [f"it has {what}" for what in unwanted & has]
    return ", ".join(reasons)


@pytest.fixture(scope="package")
def judged_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    running = targets.start_judged_broker(tmp_path_factory.mktemp("conformance"))
    yield running
    assert running.stop() == 0, running.log.read_text()
    assert "Traceback" not in running.log.read_text()


@pytest.fixture(scope="package")
def plain_target(judged_broker: BrokerProcess) -> Iterator[Target]:
    """The plain endpoint. Its loiterers come with the broker, so that nobody has to wait for them in the end."""
    target = targets.plain(judged_broker)
    target.let_loiter()
    yield target
    target.stop_loitering()


class Servers:
    """The process behind the target; started again when the test before has killed it."""

    def __init__(self, name: str, request: pytest.FixtureRequest) -> None:
        self.name = name
        self._request = request
        self._target: Target | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def target(self) -> Target:
        if self._target is None or not self._target.alive() or self._is_stuck(self._target):
            self._forget()
            self._target = self._started()
            if not self._target.loiterers:
                self._target.let_loiter()
        return self._target

    def _is_stuck(self, target: Target) -> bool:
        """A server of another library that does not answer a stranger any more fails the test before, not this one."""
        if self.name not in FOREIGN or target.answers():
            return False
        assert self._process is not None
        self._process.kill()
        return True

    def _forget(self) -> None:
        if self._target is not None and self.name != "plain":  # that one's belong to `plain_target`
            self._target.stop_loitering()

    def stop(self) -> None:
        self._forget()
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _started(self) -> Target:
        if self.name in FOREIGN:
            if self._process is not None:
                self._process.wait()
            target, self._process = targets.start_foreign(FOREIGN[self.name], self.name)
            return target
        plain: Target = self._request.getfixturevalue("plain_target")
        if self.name == "plain":
            return plain
        broker: BrokerProcess = self._request.getfixturevalue("judged_broker")
        folder: Path = self._request.getfixturevalue("tmp_path_factory").mktemp("client") / "folder"
        return targets.secure(broker, targets.certificate(broker, folder))


@pytest.fixture(scope="package")
def judged(request: pytest.FixtureRequest) -> Iterator[Servers]:
    one = Servers(request.param, request)
    yield one
    one.stop()


@pytest.fixture
def target(judged: Servers, request: pytest.FixtureRequest) -> Iterator[Target]:
    try:
        one = judged.target()
    except targets.Unavailable as reason:
        pytest.skip(str(reason))
    unfit = _unfit(request.node, one.has)
    if unfit:
        pytest.skip(f"not applicable: {unfit}")
    yield one
    one.hang_up()
    assert one.alive(), "the server did not survive this"


@pytest.fixture
def stranger(target: Target) -> Peer:
    """A connection on which nothing has been said."""
    return target.stranger()


@pytest.fixture
def peer(target: Target) -> Peer:
    """A connection whose SETUP has been sent."""
    return target.join()
