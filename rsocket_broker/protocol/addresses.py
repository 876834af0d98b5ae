"""The address at the head of a route, found in the bytes of a frame without putting anything together."""

from typing import Final

from rsocket_broker.protocol.frames import PREFIX
from rsocket_broker.protocol.metadata import CLIENT, IDS, MAX_PARTS, ROUTING

ADDRESS: Final = CLIENT.encode()
_BY_ID: Final = 0x80
_ROUTING_ID: Final = _BY_ID | IDS[ROUTING]
_ROUTING_NAME: Final = bytes((len(ROUTING) - 1,)) + ROUTING.encode()


def address(buffer: bytes, begin: int, end: int) -> bytes | None:
    """The first routing tag of the composite metadata in `buffer[begin:end]`, where it is an address, else None.

    The metadata may be cut off anywhere behind the tag: what comes in later fragments does not matter. No more than
    MAX_PARTS entries are looked at, as everywhere.
    """
    at = begin
    for _ in range(MAX_PARTS):
        if at >= end:
            break
        first = buffer[at]
        content = at + 4 if first & _BY_ID else at + 5 + first
        if content > end:
            return None
        size = int.from_bytes(buffer[content - 3 : content], "big")
        if first == _ROUTING_ID or (first == _ROUTING_NAME[0] and buffer.startswith(_ROUTING_NAME, at)):
            if content >= end or not buffer.startswith(ADDRESS, content + 1):
                return None
            after = content + 1 + buffer[content]
            return buffer[content + 1 : after] if after <= min(end, content + size) else None
        at = content + size
    return None


def address_of(buffer: bytes, begin: int, end: int) -> bytes | None:
    """As `address`, for the metadata with its length in front that begins at `begin` in a frame that ends at `end`."""
    metadata = begin + PREFIX
    return address(buffer, metadata, min(end, metadata + int.from_bytes(buffer[begin:metadata], "big")))


def is_addressed(buffer: bytes, begin: int, end: int) -> bool:
    """Whether `address_of` finds one."""
    return address_of(buffer, begin, end) is not None
