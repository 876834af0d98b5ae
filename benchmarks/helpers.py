"""Processes of `prober.py`, which make the load of a measure or feel it, and idle crowds that several of them open."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator

import attrs
from servers import HERE, Contestant


class Helper:
    """A process of `prober.py`, talked to in lines."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process

    def line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "a helper of the measure has failed; its words are above"
        return line

    def tell(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def end(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()


@contextlib.contextmanager
def helper(role: str, server: Contestant, amount: float) -> Iterator[Helper]:
    told = {**attrs.asdict(server), "secrets": str(server.secrets)}
    command = [sys.executable, str(HERE / "prober.py"), role, json.dumps(told), str(amount)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        one = Helper(process)
        try:
            assert one.line() == "ready\n"
            yield one
        finally:
            process.terminate()


@contextlib.contextmanager
def crowd(server: Contestant, count: int) -> Iterator[None]:
    """`count` sessions that do nothing, each after one call; they end with the block.

    A process for each core opens its share of them: one alone is slower than the server.
    """
    many = min(os.cpu_count() or 1, count)
    shares = [count // many + (number < count % many) for number in range(many)]
    with contextlib.ExitStack() as stack:
        helpers = [stack.enter_context(helper("idle", server, share)) for share in shares]
        for one in helpers:
            one.tell()
        for one, share in zip(helpers, shares, strict=True):
            assert int(one.line()) == share
        yield
        for one in helpers:
            one.end()
