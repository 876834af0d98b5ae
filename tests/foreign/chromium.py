"""Pages in a real browser: a server of files, Debian's Chromium without a window, and what pages tell."""

import asyncio
import contextlib
import json
import shutil
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
TYPES = {".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8"}
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-port=0",
)
"""The last keeps it running, since it waits for commands that never come."""
TEST_HOSTS = "MAP *.test 127.0.0.1"
"""Names under .test are this machine, for this browser alone."""
PATIENCE = 30.0
"""Seconds: a browser starts slowly on a busy machine."""

Told = dict[str, Any]


class Site:
    """Serves files under names, and keeps what pages post to /told."""

    def __init__(self, files: Mapping[str, Path]) -> None:
        self.told: list[Told] = []
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = files.get(self.path.partition("?")[0])
                self._answer(404 if path is None else 200, b"" if path is None else path.read_bytes(), path)

            def do_POST(self) -> None:
                site.told.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
                self._answer(204, b"", None)

            def _answer(self, status: int, body: bytes, path: Path | None) -> None:
                self.send_response(status)
                if path is not None:
                    self.send_header("content-type", TYPES[path.suffix])
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Nobody reads it."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def found(self, **fields: object) -> list[Told]:
        return [one for one in tuple(self.told) if fields.items() <= one.items()]

    async def heard(self, **fields: object) -> Told:
        """The first thing told, so far or soon, with these fields."""
        try:
            async with asyncio.timeout(PATIENCE):
                while not (found := self.found(**fields)):
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(f"no page told {fields}; they told {self.told}") from None
        return found[0]


@contextlib.contextmanager
def serving(files: Mapping[str, Path]) -> Iterator[Site]:
    site = Site(files)
    try:
        yield site
    finally:
        site.close()


def find_browser() -> str:
    """Skips the test where there is none. The word "needs" says that .ci/run provides it."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip("needs chromium: apt-get install chromium")
    return found


@contextlib.asynccontextmanager
async def browsing(profile: Path, address: str) -> AsyncIterator[None]:
    """A browser with a new profile in that folder, and the page at an address."""
    command = [find_browser(), *FLAGS, f"--host-resolver-rules={TEST_HOSTS}", f"--user-data-dir={profile}", address]
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
