"""Commands of others, for devices: lists of arguments and never a shell; bounded in time and in what they print."""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Final, NamedTuple

from rsocket_broker.errors import BrokerError

TIMEOUT_S: Final = 20.0
"""For one command: the first one after a start of the Mac, or of a device's tunnel, takes several seconds."""
MAX_OUTPUT: Final = 1024 * 1024
"""Bytes read of one command: a list of a hundred devices takes 50 KiB."""
MAX_SAID: Final = 300
"""Characters that are passed on of what a command says when it fails."""


class CommandFailed(BrokerError):
    """It could not be run, was not done in time, or has ended with an error; the text has what it said."""


class Output(NamedTuple):
    """What a command has printed."""

    stdout: bytes
    stderr: bytes


async def run(program: str, arguments: Sequence[str], timeout_s: float = TIMEOUT_S) -> Output:
    """What `program` prints, once it has ended well. It is killed when this is cancelled.

    Raises CommandFailed, with the command's own words.
    """
    name = program.rpartition("/")[2]
    what = " ".join([name, *arguments[:2]])
    pipe, none = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
    try:
        child = await asyncio.create_subprocess_exec(program, *arguments, stdin=none, stdout=pipe, stderr=pipe)
    except OSError as error:
        raise CommandFailed(f"{name} cannot be run: {error.strerror}.") from error
    try:
        async with asyncio.timeout(timeout_s):
            output = Output(*await asyncio.gather(_read(child.stdout, what), _read(child.stderr, what)))
            code = await child.wait()
    except TimeoutError:
        raise CommandFailed(f"{what} was not done within {timeout_s:g} s.") from None
    finally:
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        await child.wait()
        child._transport.close()  # type: ignore[attr-defined]  # else its pipes stay open while nobody reads them
    if code != 0:
        said = " ".join(output.stderr.decode("utf-8", "replace").split())[:MAX_SAID]
        raise CommandFailed(f"{what} failed: {said or f'it ended with {code}'}")
    return output


async def _read(reader: asyncio.StreamReader | None, what: str) -> bytes:
    assert reader is not None
    found = bytearray()
    while piece := await reader.read(64 * 1024):
        found += piece
        if len(found) > MAX_OUTPUT:
            raise CommandFailed(f"{what} printed more than {MAX_OUTPUT} bytes.")
    return bytes(found)
