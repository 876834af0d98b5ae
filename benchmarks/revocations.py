"""How long a revocation takes: of one session after the other while others call, and of very many at once."""

import asyncio
import contextlib
import functools
import ssl
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import attrs
from helpers import crowd, helper
from load import client_context, quantile
from measures import Figures, Limit, Result, Scale, Workshop, result
from servers import APP_ID, Contestant, broker
from sessions import MANY, MANY_NOTE, open_session

from rsocket_broker.admin.client import admin_line
from rsocket_broker.authority import Authority
from rsocket_broker.credentials import make_signing_request
from rsocket_broker.identity import Principal, Proof
from rsocket_broker.moments import utc_now
from rsocket_broker.state import STATE_FILE, State

VICTIMS = 200
CALLERS = 200
PAUSE = 0.02
"""Seconds between two revocations: each is to be felt by itself."""
PATIENCE = 120.0
VICTIM_APP = "org.example.bench.victim"
EARLIER = timedelta(days=1)

ONE_REACHES = (Limit("p99", 100, "ms"),)


@attrs.frozen
class Victims:
    """Certificates of one key, each for a device of its own."""

    pems: list[Path]
    serials: list[str]


def issue(home: Path, count: int) -> Victims:
    """By the home itself, before a broker runs on it: a command for each would take minutes."""
    made = make_signing_request(VICTIM_APP)
    pems, serials = [], []
    with State.open(home / STATE_FILE) as state:
        authority = Authority.open(home, state, create=False, clock=utc_now)
        checked = authority.check_request(made.csr_pem)
        for number in range(count):
            issued = authority.issue(checked, Principal(VICTIM_APP, f"d{number}", Proof.OPERATOR))
            pems.append(home.parent / f"victim-{number}.pem")
            pems[-1].write_bytes(issued.certificate_pem + made.key_pem)
            serials.append(f"{issued.serial:x}")
        authority.audit.close()
    return Victims(pems, serials)


def connect(server: Contestant, victims: Victims) -> list[ssl.SSLSocket]:
    lines = []
    for pem in victims.pems:
        context = client_context(server)
        context.load_cert_chain(pem)
        lines.append(open_session(server, context))
    return lines


def one_by_one(workshop: Workshop, victims: int, callers: int) -> Figures:
    """Milliseconds from the arrival of the command in the broker to the last frame, as its receipts say."""
    home = workshop.copied_home()
    issued = issue(home, victims)

    async def revoke() -> list[float]:
        found = []
        async with admin_line(home) as line:
            for serial in issued.serials:
                receipt = await line.call("ca.revoke", {"by": "serial", "value": serial}, PATIENCE)
                assert receipt["sessions"] == 1, receipt
                found.append(receipt["last_frame_ms"])
                await asyncio.sleep(PAUSE)
        return found

    with broker(home, workshop.secrets, *MANY) as server, contextlib.ExitStack() as stack:
        for line in connect(server, issued):
            stack.enter_context(line)
        with helper("callers", server, callers) as load:
            begun = time.perf_counter()
            found = asyncio.run(revoke())
            elapsed = time.perf_counter() - begun
            load.end()
            rate = int(load.line()) / elapsed
    return {"rate": rate, "p50": quantile(found, 0.5), "p99": quantile(found, 0.99), "samples": float(len(found))}


def all_at_once(workshop: Workshop, count: int) -> Figures:
    """So many sessions of one app, that do nothing and do not read: each has its 50 ms to take the goodbye."""
    home = workshop.copied_home()

    async def revoke() -> float:
        async with admin_line(home) as line:
            receipt = await line.call("ca.revoke", {"by": "app", "value": APP_ID}, PATIENCE)
        assert receipt["sessions"] == count, receipt
        return float(receipt["last_frame_ms"]) / 1e3

    with broker(home, workshop.secrets, *MANY) as server, crowd(server, count):
        seconds = asyncio.run(revoke())
    return {"seconds": seconds, "rate": count / seconds}


def measure(workshop: Workshop, scale: Scale) -> Iterator[Result]:
    """Each round has a broker of its own, since a home remembers what was revoked on it."""
    victims, callers = scale.amount(VICTIMS, least=8), scale.amount(CALLERS, least=8)
    name = f"one revocation while {callers} sessions call"
    if scale.wants(name):
        job = functools.partial(one_by_one, workshop, victims, callers)
        note = f"{victims} one by one; rate: calls of the others"
        yield result(name, {"broker": [job() for _ in range(scale.rounds)]}, ONE_REACHES, note)
    for count in (1_000, 10_000) if scale.full else (1_000,):
        name = f"revocation of {count:,} sessions at once"
        if scale.wants(name):
            amount = scale.amount(count, least=20)
            found = [all_at_once(workshop, amount) for _ in range(scale.rounds)]
            yield result(name, {"broker": found}, (Limit("seconds", 5, "s"),), MANY_NOTE)
