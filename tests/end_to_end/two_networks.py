"""A broker in one network and an app in another, with a cable between them and no way out of either.

Usage: unshare --map-root-user --net python two_networks.py FOLDER

The network that it is started in is the broker's. Prints one line of JSON: what the app was told, and all routes.
"""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

from rsocket_broker import client
from tests.end_to_end.processes import start_broker

BROKER, APP = "10.77.0.1", "10.77.0.2"
WORDS = "over a cable of our own"


def configure(*lines: str, inside: tuple[str, ...] = ()) -> None:
    for line in lines:
        subprocess.run([*inside, "ip", *line.split()], check=True, timeout=10)


def network(process: int) -> Path:
    return Path(f"/proc/{process}/ns/net").readlink()


def routes(inside: tuple[str, ...] = ()) -> list[str]:
    done = subprocess.run([*inside, "ip", "route"], check=True, timeout=10, capture_output=True, text=True)
    return done.stdout.splitlines()


async def app(folder: Path, insecure_port: int, secure_port: int) -> None:
    """The app's part, in a process in its own network."""
    async with client.connect(
        app_id="org.example.cable",
        app="Cable",
        directory=folder,
        host=BROKER,
        insecure_port=insecure_port,
        secure_port=secure_port,
        timeout=20,
    ) as session:
        print(json.dumps(await session.request("echo.request", WORDS)))


def main(folder: Path) -> None:
    with subprocess.Popen(["unshare", "--net", "sleep", "600"]) as there:
        try:
            while network(there.pid) == network(os.getpid()):
                pass  # it takes a moment to enter its network
            across = ("nsenter", "--target", str(there.pid), "--net")
            configure("link set lo up", f"link add here type veth peer name there netns {there.pid}")
            configure(f"addr add {BROKER}/24 dev here", "link set here up")
            configure("link set lo up", f"addr add {APP}/24 dev there", "link set there up", inside=across)
            broker = start_broker(
                folder / "home", "--plugin", "echo", "--host", BROKER, "--insecure-host", BROKER, "--enrollment", "open"
            )
            try:
                ports = [str(broker.insecure_port), str(broker.secure_port)]
                command = [*across, sys.executable, __file__, str(folder), *ports]
                done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
                told = json.loads(done.stdout) if done.returncode == 0 else done.stderr
            finally:
                broker.stop()
            print(json.dumps({"told": told, "routes": [routes(), routes(across)]}))
        finally:
            there.kill()


if __name__ == "__main__":
    if len(sys.argv) == 2:
        main(Path(sys.argv[1]))
    else:
        asyncio.run(app(Path(sys.argv[1]) / "app", int(sys.argv[2]), int(sys.argv[3])))
