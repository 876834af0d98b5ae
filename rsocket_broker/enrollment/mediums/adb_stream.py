"""What a command on a device prints, as it prints it: for logs, which never end, and for pictures, which are large.

Spoken to the adb server by ourselves, two short requests of its protocol: adbutils would hold a thread for as long as
somebody reads, and read on for somebody who does not. Here the device waits for its reader.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from rsocket_broker.enrollment.mediums.adb_shell import (
    COMMAND_LIMIT,
    AdbLineLost,
    AdbRefused,
    AdbTimedOut,
    Address,
    absent,
    shell_line,
)

CHUNK = 64 * 1024
MAX_LINE = 16 * 1024
"""Bytes of a line that are kept: Android cuts a log entry at 4 KiB."""
MAX_REFUSAL = 1024
"""Bytes of the server's reason that are read."""


async def output(address: Address, serial: str, arguments: Sequence[str]) -> AsyncGenerator[bytes, None]:
    """The raw output of a command, both streams mixed, until it ends or the generator is closed, which stops it.

    Raises AdbProblem when it cannot be started. A device that leaves ends the output like a command that is done.
    """
    line = shell_line(arguments)
    try:
        async with asyncio.timeout(COMMAND_LIMIT):
            reader, writer = await asyncio.open_connection(*address)
    except OSError as error:  # TimeoutError is one
        raise absent(address) from error
    try:
        async with asyncio.timeout(COMMAND_LIMIT):
            for request in (f"host:transport:{serial}", f"exec:{line}"):
                await _ask(reader, writer, request.encode())
        while piece := await reader.read(CHUNK):
            yield piece
    except TimeoutError:
        raise AdbTimedOut(f"no answer within {COMMAND_LIMIT:g} seconds") from None
    except (asyncio.IncompleteReadError, OSError) as error:
        raise AdbLineLost("the line to the device dropped") from error
    finally:
        writer.close()


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> None:
    writer.write(b"%04x%b" % (len(request), request))
    status = await reader.readexactly(4)
    if status == b"OKAY":
        return
    if status != b"FAIL":
        raise AdbLineLost("the adb server said something that is not its protocol")
    size = await reader.readexactly(4)
    reason = await reader.read(MAX_REFUSAL)
    raise AdbRefused(reason[: int(size, 16)].decode("utf-8", "replace") if size.isalnum() else "it was refused")


async def lines(address: Address, serial: str, arguments: Sequence[str]) -> AsyncGenerator[str, None]:
    """The same line by line, without line ends; what is longer than MAX_LINE bytes is cut."""
    rest = bytearray()
    async with aclosing(output(address, serial, arguments)) as pieces:
        async for piece in pieces:
            rest += piece
            *whole, rest = rest.split(b"\n")
            for line in whole:
                yield line[:MAX_LINE].decode("utf-8", "replace").rstrip("\r")
            del rest[MAX_LINE:]
    if rest:
        yield rest.decode("utf-8", "replace").rstrip("\r")


async def whole(address: Address, serial: str, arguments: Sequence[str], most: int, limit: float) -> bytes:
    """All of a command's output. Raises AdbRefused for more than `most` bytes, AdbTimedOut after `limit` seconds."""
    found = bytearray()
    try:
        async with asyncio.timeout(limit), aclosing(output(address, serial, arguments)) as pieces:
            async for piece in pieces:
                found += piece
                if len(found) > most:
                    raise AdbRefused(f"the device sent more than {most} bytes")
    except TimeoutError:
        raise AdbTimedOut(f"not done within {limit:g} seconds") from None
    return bytes(found)
