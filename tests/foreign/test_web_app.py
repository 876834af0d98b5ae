"""The example for web developers, run as its README says: in Node, and in a page of a real browser."""

import asyncio
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from rsocket_broker import client
from tests.end_to_end.processes import BrokerProcess, run_here, start_broker
from tests.foreign.chromium import PATIENCE, browsing, serving
from tests.interop.libraries import node_modules

HERE = Path(__file__).parent / "js_flipper"
EXAMPLE = Path(__file__).parents[2] / "examples" / "web_app"
README = (EXAMPLE / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def packages() -> Path:
    return node_modules(HERE)


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    home = tmp_path_factory.mktemp("web-app") / "home"
    running = start_broker(home, "--browser-port", "0", "--plugin", str(EXAMPLE / "cart_plugin.py"))
    assert f"browser-port={running.ports['browser_port']}" in running.ready
    yield running
    assert running.stop() == 0, running.log.read_text()


def place(broker: BrokerProcess) -> str:
    return f"localhost:{broker.ports['browser_port']}"


async def as_the_readme_says(broker: BrokerProcess, os_name: str, folder: Path) -> None:
    """The shop is there, and its cart is filled by the command in the README, with the answer that stands there."""
    async with (
        client.connect(
            app_id="org.example.reader",
            app="Reader",
            directory=folder / "reader",
            insecure_port=broker.insecure_port,
            secure_port=broker.secure_port,
            timeout=PATIENCE,
        ) as reader,
        asyncio.timeout(PATIENCE),
    ):
        while await reader.request("Cart.carts") != [[]]:
            await asyncio.sleep(0.02)
        shown = next(one for one in await asyncio.to_thread(broker.clients) if one["app_id"] == "Shop")
        assert (shown["proof"], shown["os"], shown["plugins"]) == ("unverified", os_name, ["Cart"])
        found = re.search(r"^\$ rsocket-broker (clients call) (\S+ \S+ \S+) '(.*)'\n(\{.*?^\})", README, re.M | re.S)
        assert found is not None
        code, said = await asyncio.to_thread(run_here, broker.home, *found[1].split(), *found[2].split(), found[3])
        assert (code, json.loads(said)) == (0, json.loads(found[4]))
        while await reader.request("Cart.carts") != [["pear"]]:
            await asyncio.sleep(0.02)
        call = ("clients", "call", "unverified:Shop", "Cart", "add", "{}")
        code, said = await asyncio.to_thread(run_here, broker.home, *call)
        assert (code, "there is no undefined in this shop" in said) == (1, True)


async def gone(broker: BrokerProcess) -> None:
    async with asyncio.timeout(PATIENCE):
        while await asyncio.to_thread(broker.clients):
            await asyncio.sleep(0.05)


@pytest.mark.row("F-25")
async def test_the_shop_in_node(broker: BrokerProcess, packages: Path, tmp_path: Path) -> None:
    assert json.loads((EXAMPLE / "package.json").read_text())["dependencies"]["js-flipper"] == "0.273.0"
    process = await asyncio.create_subprocess_exec(
        "node", str(EXAMPLE / "node.js"), place(broker), env={**os.environ, "NODE_PATH": str(packages)}
    )
    try:
        await as_the_readme_says(broker, "Linux", tmp_path)
    finally:
        process.kill()
        await process.wait()
    await gone(broker)


@pytest.mark.timeout(180)  # a browser, on a machine that may be busy
@pytest.mark.row("F-25", "M-9")
async def test_the_shop_in_a_page(broker: BrokerProcess, packages: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle.js"
    bundle.write_text((HERE / "loader.js").read_text() + "load('/page.js');\n")
    files = {f"/{path.name}": path for path in (*EXAMPLE.glob("*.js"), EXAMPLE / "page.html", bundle)}
    files |= {f"/js-flipper/{path.name}": path for path in (packages / "js-flipper" / "lib").glob("*.js")}
    with serving(files) as site:
        async with browsing(tmp_path / "profile", f"http://localhost:{site.port}/page.html?broker={place(broker)}"):
            await as_the_readme_says(broker, "Browser", tmp_path)
        await gone(broker)
