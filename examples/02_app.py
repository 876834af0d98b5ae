"""An app in Python: enrols on its first run, holds its secure session, and works with the plugin of example 1.

Run it, while the broker of example 1 runs:

    python examples/02_app.py

Its key and certificates stay in ~/.thermostat-example, so the second run needs no enrolment. Stop it with Ctrl-C, or
stop the broker and start it again: the app comes back by itself.
"""

import argparse
import asyncio
from contextlib import suppress
from pathlib import Path

from rsocket_broker import client


class Thermostat(client.AppPlugin):
    id = "Thermostat"
    background = True  # the broker starts it as soon as the app is connected

    target = 19.0

    async def on_init(self) -> None:
        self.emit("reading", {"celsius": 18.5})
        self.emit("reading", {"celsius": 19.5})

    @client.method("setTarget")
    async def set_target(self, params: dict[str, float]) -> dict[str, float]:
        before, self.target = self.target, params["celsius"]
        return {"before": before, "now": self.target}


async def try_it(session: client.Session) -> None:
    """Some calls to the plugin of example 1."""
    while True:  # the broker starts our plugin, and its first readings arrive, at a moment of its own
        with suppress(client.ApplicationError):
            print("average:", await session.request("Thermostat.average"))
            break
        await asyncio.sleep(0.05)
    print("set:", await session.request("Thermostat.set", {"celsius": 21}))
    print("history:", [celsius async for celsius in session.stream("Thermostat.history")])
    try:
        await session.request("Thermostat.set", {"celsius": 99})
    except client.ApplicationError as error:
        print("refused:", error)


async def main(options: argparse.Namespace) -> None:
    async with client.connect(
        app_id="org.example.thermostat",
        app="Thermostat",
        directory=options.directory,
        host=options.host,
        insecure_port=options.insecure_port,
        secure_port=options.secure_port,
        plugins=[Thermostat()],
    ) as session:
        print(f"connected as {session.device_id}", flush=True)
        if options.once:
            await try_it(session)
        else:
            await asyncio.Event().wait()  # until Ctrl-C


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A thermostat that has a line to its broker.")
    parser.add_argument("--directory", type=Path, default=Path.home() / ".thermostat-example")
    parser.add_argument("--host", default="localhost")
    parser.add_argument("--insecure-port", type=int, default=8089)
    parser.add_argument("--secure-port", type=int, default=8088)
    parser.add_argument("--once", action="store_true", help="make some calls and leave")
    with suppress(KeyboardInterrupt):
        asyncio.run(main(parser.parse_args()))
