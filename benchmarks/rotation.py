"""Clients that a rotation brings along in a second: new anchors, then new certificates, over their live sessions.

The references do the same work for each client with no network and no broker: the files alone, the signature alone.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from enrolments import Applicant, signing_loop
from measures import Figures, Outdo, Reach, Result, Scale, Workshop, result
from servers import CpuMeter, serving

from rsocket_broker import client
from rsocket_broker.admin.client import AdminLine, admin_line
from rsocket_broker.client.folder import AppFolder

CLIENTS = 200
STARTING = 16
"""Clients that enrol at a time, before the clock starts."""
PATIENCE = 300.0
ROOMY = ("--enrollments-per-minute", "1000000")
ANCHORS: tuple[Reach, ...] = (Outdo(0.2, "files alone", ("rate",)),)
CERTIFICATES: tuple[Reach, ...] = (Outdo(0.2, "signing loop", ("rate",)),)


@contextlib.asynccontextmanager
async def connected(folder: Path, ports: dict[str, int], count: int) -> AsyncIterator[list[client.Session]]:
    """So many apps with our SDK, each with a session."""
    turn = asyncio.Semaphore(STARTING)
    async with contextlib.AsyncExitStack() as stack:

        async def one(number: int) -> client.Session:
            line = client.connect(
                app_id=f"org.example.rotation{number}",
                app="Bench",
                directory=folder / str(number),
                insecure_port=ports["insecure_port"],
                secure_port=ports["secure_port"],
                timeout=PATIENCE,
            )
            async with turn:
                return await stack.enter_async_context(line)

        yield await asyncio.gather(*(one(number) for number in range(count)))


async def step(line: AdminLine, verb: str, part: str, count: int) -> float:
    """Takes a step of the rotation. Seconds from its end to that of the round behind it, which leaves nobody out."""
    began, parts = 0.0, []
    async for said in line.stream(verb):
        began, parts = began or time.perf_counter(), said.get("parts", [])
    elapsed = time.perf_counter() - began
    (found,) = [one for one in parts if one["what"] == part]
    assert (found["done"], found["failed"], found["later"]) == (count, 0, 0), found
    return elapsed


async def rotate(home: Path, pid: int, sessions: list[client.Session]) -> tuple[Figures, Figures]:
    """One whole rotation: what its two rounds cost."""
    count = len(sessions)
    async with asyncio.timeout(PATIENCE), admin_line(home) as line:
        meter = CpuMeter(pid)
        anchors = await step(line, "rotate.prepare", "anchors", count)
        spent = meter.seconds()
        meter = CpuMeter(pid)
        certificates = await step(line, "rotate.switch", "certificates", count)
        used = meter.seconds()
        async for _ in line.stream("rotate.finish"):
            pass
    assert all(session.connections == 1 for session in sessions), "a session was interrupted"
    return (
        {"rate": count / anchors, "cpu": spent / count * 1e6},
        {"rate": count / certificates, "cpu": used / count * 1e6},
    )


def files_alone(folders: list[Path]) -> Figures:
    """What the client does with new anchors, and nothing else."""
    apps = [AppFolder(path) for path in folders]
    trust = (folders[0] / "sonarCA.crt").read_bytes()
    began, used = time.perf_counter(), time.process_time()
    for app in apps:
        app.store_trust(trust)
    return {
        "rate": len(apps) / (time.perf_counter() - began),
        "cpu": (time.process_time() - used) / len(apps) * 1e6,
    }


def measure(workshop: Workshop, scale: Scale) -> Iterator[Result]:
    names = "rotation, new anchors over live sessions", "rotation, new certificates over live sessions"
    if not any(scale.wants(name) for name in names):
        return
    folder, count = workshop.folder / "rotation", scale.amount(CLIENTS, least=4)
    home, signing_home = folder / "home", workshop.copied_home()
    anchors: dict[str, list[Figures]] = {"broker": [], "files alone": []}
    certificates: dict[str, list[Figures]] = {"broker": [], "signing loop": []}

    async def rounds(pid: int, ports: dict[str, int]) -> None:
        async with connected(folder / "apps", ports, count) as sessions:
            folders = [folder / "apps" / str(number) for number in range(count)]
            applicants = [Applicant("", path, (path / "app.csr").read_bytes()) for path in folders]
            for _ in range(scale.rounds):
                first, second = await rotate(home, pid, sessions)
                anchors["broker"].append(first)
                certificates["broker"].append(second)
                anchors["files alone"].append(await asyncio.to_thread(files_alone, folders))
                certificates["signing loop"].append(await asyncio.to_thread(signing_loop, signing_home, applicants))

    with serving(home, *ROOMY) as (pid, ports):
        asyncio.run(rounds(pid, ports))
    note = f"{count} sessions; serve {' '.join(ROOMY)}"
    yield result(names[0], anchors, ANCHORS, note)
    yield result(names[1], certificates, CERTIFICATES, note)
