"""What is kept of a failed test: the app's network traffic since the test began, and its crashes."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rsocket_broker.errors import BrokerError
from rsocket_broker.files import write_private
from rsocket_broker.pytest_plugin.app import AppUnderTest
from rsocket_broker.pytest_plugin.tools import Crashes, Network

MAX_NAME = 150
"""Characters of a file's name that come from the test's: file systems take 255 bytes."""
SHOWN = 20
"""Exchanges that are listed in the report itself; the file has them all."""


class Evidence:
    """Collects from one app, from now on."""

    def __init__(self, app: AppUnderTest, folder: Path, test: str) -> None:
        """`test` is the test's id, after which the file is named."""
        self._path = folder / f"{file_name(test)}.har"
        here = app.plugins
        self._network = Network(app) if Network.plugin in here else None
        self._crashes = Crashes(app) if Crashes.plugin in here else None

    def collect(self) -> Iterator[tuple[str, str]]:
        """(title, text) of each part of a report. An app that is gone by now leaves nothing behind."""
        try:
            yield from self._traffic()
            yield from self._crashed()
        except (BrokerError, TimeoutError, OSError) as error:
            yield "app", f"What the app did could not be collected: {error}"

    def _traffic(self) -> Iterator[tuple[str, str]]:
        if self._network is None:
            return
        har = self._network.har()
        entries = har["log"]["entries"]
        if entries:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_private(self._path, json.dumps(har, indent=1).encode())
            yield "network", "\n".join([*map(line, entries[-SHOWN:]), f"All {len(entries)} as HAR: {self._path}"])

    def _crashed(self) -> Iterator[tuple[str, str]]:
        if self._crashes is not None and (found := self._crashes.all()):
            yield "crashes", "\n\n".join(f"{each['name']}\n{each['callstack']}" for each in found)


def line(entry: dict[str, Any]) -> str:
    """One exchange of a HAR."""
    request, response = entry["request"], entry["response"]
    return f"{response['status'] or '---'} {request['method']} {request['url']}"


def file_name(test: str) -> str:
    """A name that any file system takes, and that two tests of one run seldom share."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", test).strip("-.")[-MAX_NAME:]
