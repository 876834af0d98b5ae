"""The adb transport's messages: 24 bytes of little-endian header, then the payload."""

import asyncio
import struct
from enum import IntEnum

import attrs

HEADER = struct.Struct("<6I")
CHECKED = 0x01000000
"""Protocol version in which every payload carries the sum of its bytes."""
UNCHECKED = 0x01000001
"""Protocol version in which the sum is not looked at, once both ends have said that they speak it."""
MAX_PAYLOAD = 256 * 1024
MASK = 0xFFFFFFFF


class Command(IntEnum):
    """Four ASCII letters each, as a little-endian number."""

    AUTH = 0x48545541
    CLSE = 0x45534C43
    CNXN = 0x4E584E43
    OKAY = 0x59414B4F
    OPEN = 0x4E45504F
    WRTE = 0x45545257


class BrokenWire(Exception):
    """What came is not an adb message, or its checksum does not match."""


@attrs.frozen
class Message:
    """`arg0` and `arg1` mean: version and largest payload (CNXN); sender's and receiver's stream id (the rest)."""

    command: Command
    arg0: int = 0
    arg1: int = 0
    payload: bytes = b""

    def encode(self, *, checked: bool) -> bytes:
        total = sum(self.payload) & MASK if checked else 0
        head = HEADER.pack(self.command, self.arg0, self.arg1, len(self.payload), total, self.command ^ MASK)
        return head + self.payload


async def read_message(reader: asyncio.StreamReader, *, checked: bool) -> Message:
    """Raises BrokenWire for nonsense and asyncio.IncompleteReadError at the end of the stream."""
    command, arg0, arg1, size, total, magic = HEADER.unpack(await reader.readexactly(HEADER.size))
    if magic != command ^ MASK or size > MAX_PAYLOAD:
        raise BrokenWire(f"bad header: command {command:#x}, {size} bytes")
    payload = await reader.readexactly(size)
    if checked and sum(payload) & MASK != total:
        raise BrokenWire(f"bad checksum in {Command(command).name}")
    return Message(Command(command), arg0, arg1, payload)
