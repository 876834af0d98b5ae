"""Numbers of the wire: frame types, flags, error codes (RSocket 1.0, "Frame Types" and "Error Codes")."""

import enum
from typing import Final

from rsocket_broker.payload import ErrorCode

__all__ = ["CONNECTION_CLOSE", "ErrorCode", "FrameType", "Interaction"]


class FrameType(enum.IntEnum):
    """The six-bit type of a frame. Types that are not listed are unknown to this engine."""

    SETUP = 0x01
    LEASE = 0x02
    KEEPALIVE = 0x03
    REQUEST_RESPONSE = 0x04
    REQUEST_FNF = 0x05
    REQUEST_STREAM = 0x06
    REQUEST_CHANNEL = 0x07
    REQUEST_N = 0x08
    CANCEL = 0x09
    PAYLOAD = 0x0A
    ERROR = 0x0B
    METADATA_PUSH = 0x0C
    RESUME = 0x0D
    RESUME_OK = 0x0E
    EXT = 0x3F


class Interaction(enum.IntEnum):
    """What a request asks for. The value is the type of the frame that starts it."""

    REQUEST_RESPONSE = FrameType.REQUEST_RESPONSE
    FIRE_AND_FORGET = FrameType.REQUEST_FNF
    REQUEST_STREAM = FrameType.REQUEST_STREAM
    REQUEST_CHANNEL = FrameType.REQUEST_CHANNEL


IGNORE: Final = 0x200
METADATA: Final = 0x100
FOLLOWS: Final = 0x80
RESUME: Final = 0x80
"""The same bit as FOLLOWS, in a SETUP frame."""
RESPOND: Final = 0x80
"""The same bit as FOLLOWS, in a KEEPALIVE frame."""
COMPLETE: Final = 0x40
LEASE: Final = 0x40
"""The same bit as COMPLETE, in a SETUP frame."""
NEXT: Final = 0x20

TYPE_SHIFT: Final = 10
FLAGS_MASK: Final = 0x3FF
MAX_31: Final = 0x7FFF_FFFF
"""Stream ids, request-n and times are unsigned numbers of 31 bits."""

MAJOR_VERSION: Final = 1
MINOR_VERSION: Final = 0

CONNECTION_CLOSE: Final = int(ErrorCode.CONNECTION_ERROR_NO_RETRY)
"""0x102 under the specification's name; rsocket-py calls the same number CONNECTION_ERROR_NO_RETRY."""

SETUP_ERRORS: Final = frozenset(
    {
        int(ErrorCode.INVALID_SETUP),
        int(ErrorCode.UNSUPPORTED_SETUP),
        int(ErrorCode.REJECTED_SETUP),
        int(ErrorCode.REJECTED_RESUME),
    }
)
"""Codes that mean something only while a connection is being established."""
