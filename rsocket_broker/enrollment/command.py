"""Commands of others, for devices: lists of arguments and never a shell; bounded in time and in what they print."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence
from typing import Final, NamedTuple

from rsocket_broker.errors import BrokerError

TIMEOUT_S: Final = 20.0
"""For one command: the first one after a start of the Mac, or of a device's tunnel, takes several seconds."""
MAX_OUTPUT: Final = 1024 * 1024
"""Bytes read of one command: a list of a hundred devices takes 50 KiB."""
LINE_LIMIT: Final = 64 * 1024
"""Bytes of a line, for whoever reads a command's output by lines."""
MAX_SAID: Final = 300
"""Characters that are passed on of what a command says when it fails."""


class CommandFailed(BrokerError):
    """It could not be run, was not done in time, or has ended with an error; the text has what it said."""


class Output(NamedTuple):
    """What a command has printed."""

    stdout: bytes
    stderr: bytes


async def run(
    program: str, arguments: Sequence[str], timeout_s: float = TIMEOUT_S, max_output: int = MAX_OUTPUT
) -> Output:
    """What `program` prints, once it has ended well. It is killed when this is cancelled.

    Raises CommandFailed, with the command's own words.
    """
    what = " ".join([program.rpartition("/")[2], *arguments[:2]])
    async with started(program, arguments) as child:
        try:
            async with asyncio.timeout(timeout_s):
                read = (_read(stream, what, max_output) for stream in (child.stdout, child.stderr))
                output = Output(*await asyncio.gather(*read))
                code = await child.wait()
        except TimeoutError:
            raise CommandFailed(f"{what} was not done within {timeout_s:g} s.") from None
    if code != 0:
        raise CommandFailed(f"{what} failed: {words(output.stderr) or f'it ended with {code}'}")
    return output


@contextlib.asynccontextmanager
async def started(
    program: str, arguments: Sequence[str], line_limit: int = LINE_LIMIT
) -> AsyncGenerator[asyncio.subprocess.Process, None]:
    """A command that has ended at the end of the block, if need be by force. `line_limit`: bytes of its longest line.

    Raises CommandFailed where it cannot be run.
    """
    pipe, none = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
    try:
        child = await asyncio.create_subprocess_exec(
            program, *arguments, stdin=none, stdout=pipe, stderr=pipe, limit=line_limit
        )
    except OSError as error:
        raise CommandFailed(f"{program.rpartition('/')[2]} cannot be run: {error.strerror}.") from error
    try:
        yield child
    finally:
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        await child.wait()
        child._transport.close()  # type: ignore[attr-defined]  # else its pipes stay open while nobody reads them


def words(said: bytes) -> str:
    """What a command has said, on one line and not too long."""
    return " ".join(said.decode("utf-8", "replace").split())[:MAX_SAID]


async def _read(reader: asyncio.StreamReader | None, what: str, most: int) -> bytes:
    assert reader is not None
    found = bytearray()
    while piece := await reader.read(64 * 1024):
        found += piece
        if len(found) > most:
            raise CommandFailed(f"{what} printed more than {most} bytes.")
    return bytes(found)
