"""A HAR of ours in the network tools of a browser: their own code reads it, in a real Chromium."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from tests.foreign.chromium import FLAGS, PATIENCE, find_browser
from tests.plugins.network.test_har import har

TOOLS = "devtools://devtools/bundled/devtools_app.html"
LISTENING = re.compile(rb"ws://\S+")
READ = """
(async () => {
  const tools = await import("devtools://devtools/bundled/models/har/har.js");
  const root = new tools.HARFormat.HARRoot(JSON.parse(%s));
  const requests = tools.Importer.Importer.requestsFromHARLog(root.log);
  const content = await Promise.all(requests.map((one) => one.requestContentData()));
  return JSON.stringify(requests.map((one, at) => [
    one.requestMethod, one.url(), one.statusCode, content[at].isTextContent ? content[at].text : content[at].base64]));
})()
"""


class Tools:
    """The page of the tools, by the protocol that debuggers speak to it."""

    def __init__(self, line: ClientConnection) -> None:
        self._line = line
        self._number = 0
        self._session: dict[str, str] = {}

    async def ask(self, method: str, **params: object) -> Any:
        self._number += 1
        await self._line.send(json.dumps({"id": self._number, "method": method, "params": params, **self._session}))
        while True:
            answer = json.loads(await self._line.recv())
            if answer.get("id") == self._number:
                return answer.get("result", answer)

    async def open(self) -> None:
        target = await self.ask("Target.createTarget", url=TOOLS)
        found = await self.ask("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = {"sessionId": found["sessionId"]}

    async def read(self, text: str) -> list[list[Any]]:
        """What the tools make of a HAR; asked again while their page is loading."""
        while True:
            answer = await self.ask("Runtime.evaluate", expression=READ % json.dumps(text), awaitPromise=True)
            value = answer.get("result", {}).get("value")
            if value is not None:
                found: list[list[Any]] = json.loads(value)
                return found
            await asyncio.sleep(0.1)


@asynccontextmanager
async def tools(folder: Path) -> AsyncIterator[Tools]:
    process = await asyncio.create_subprocess_exec(
        find_browser(), *FLAGS, f"--user-data-dir={folder}", "about:blank", stderr=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(PATIENCE):
            assert process.stderr is not None
            found = None
            while found is None:
                found = LISTENING.search(await process.stderr.readline())
            async with connect(found[0].decode(), max_size=None) as line:
                made = Tools(line)
                await made.open()
                yield made
    finally:
        process.terminate()
        await process.wait()


async def test_the_tools_of_a_browser_read_our_har(tmp_path: Path) -> None:
    written = har(secrets=True)
    async with tools(tmp_path) as page:
        found = await page.read(json.dumps(written))
    by_address = {address: (method, status, content) for method, address, status, content in found}
    assert len(found) == len(written["log"]["entries"])
    login = by_address["https://api.example.org/login?next=%2Fcart&token=t"]
    assert login == ("POST", 200, '{"access_token": "t", "name": "N"}')
    assert by_address["https://example.org/picture"] == ("GET", 200, "iVBORw0KGgo=")
    assert by_address["http://[::1]:8080/"][:2] == ("GET", 0)
