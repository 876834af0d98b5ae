"""Tokens of child sessions: opaque, shown once, and kept as a keyed digest alone.

The digest covers the channel that the token is for. On any other one it is the token of nobody, so that it cannot be
used there even by whoever has it; and the table is searched by the digest, so that the time that it takes says nothing
of the tokens in it.
"""

import hashlib
import secrets
from typing import Final

from rsocket_broker.transports.base import Channel

PREFIX: Final = "rsb_"
"""What every token begins with, so that one that has leaked into a log or a repository can be found there."""
TOKEN_BYTES: Final = 32
"""Of chance in a token: nobody guesses one of 2^256."""
MAX_TOKEN: Final = 512
"""Bytes of a token that are looked at: ten times as many as one has."""
KEY_BYTES: Final = 32


def new_token() -> str:
    """A token that nobody has had before. A secret: it goes to its owner and nowhere else."""
    return PREFIX + secrets.token_urlsafe(TOKEN_BYTES)


def new_key() -> bytes:
    return secrets.token_bytes(KEY_BYTES)


def new_id() -> str:
    """The name of a child session; no secret. Other than a root's it means the same after a restart."""
    return "s-" + secrets.token_hex(6)


def token_digest(key: bytes, channel: Channel, token: bytes) -> bytes:
    """What stands for a token in memory and on the disk."""
    name = channel.value.encode()
    return hashlib.blake2b(bytes((len(name),)) + name + token[:MAX_TOKEN], key=key, digest_size=32).digest()
