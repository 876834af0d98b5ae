"""A file that only a passphrase opens: scrypt makes the key, AES-256-GCM seals the content piece by piece.

    MAGIC, 32 bytes of salt, then pieces of PIECE bytes, each followed by its tag of 16; the last one may be shorter

The nonce of a piece is its number and whether it is the last (the STREAM construction of Hoang, Reyhanitabar, Rogaway
and Vizár), so that a piece changed, moved, repeated or cut off is noticed. A salt serves one file, so no key is ever
used with one nonce twice.
"""

import io
import os
from typing import BinaryIO

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from rsocket_broker.errors import HomeError

MAGIC = b"rsocket-broker sealed backup 1\n"
PIECE = 1 << 20
"""Bytes that are held in memory at a time."""
_TAG = 16
_SALT = 32
_COST, _BLOCK, _PARALLEL = 1 << 17, 8, 1
"""128 MiB and about half a second for each guess. They are fixed by the number in MAGIC: a file that names its own
cost could ask for all the memory there is."""


def is_sealed(start: bytes) -> bool:
    """Whether a file that begins like this is sealed; len(MAGIC) bytes are enough."""
    return start.startswith(MAGIC)


class Sealer(io.RawIOBase):
    """What is written here goes sealed to `target`, which stays open; `close` writes the last piece."""

    def __init__(self, target: BinaryIO, passphrase: bytes) -> None:
        super().__init__()
        salt = os.urandom(_SALT)
        self._target = target
        self._key = _key(passphrase, salt)
        self._pending = bytearray()
        self._number = 0
        target.write(MAGIC + salt)

    def writable(self) -> bool:
        return True

    def write(self, data: object, /) -> int:
        view = memoryview(data)  # type: ignore[arg-type]  # whatever holds bytes
        self._pending += view
        while len(self._pending) > PIECE:  # never all of it: the last piece has a nonce of its own
            self._seal(self._pending[:PIECE], last=False)
            del self._pending[:PIECE]
        return view.nbytes

    def close(self) -> None:
        if not self.closed:
            self._seal(self._pending, last=True)
        super().close()

    def _seal(self, piece: bytes | bytearray, *, last: bool) -> None:
        self._target.write(self._key.encrypt(_nonce(self._number, last), bytes(piece), MAGIC))
        self._number += 1


class Opener(io.RawIOBase):
    """The content of a sealed file. Reading raises HomeError where it is damaged, or the passphrase is another."""

    def __init__(self, source: BinaryIO, passphrase: bytes) -> None:
        """`source` stands behind MAGIC."""
        super().__init__()
        salt = source.read(_SALT)
        if len(salt) != _SALT:
            raise HomeError("The backup ends too early.")
        self._source = source
        self._key = _key(passphrase, salt)
        self._ahead = source.read(PIECE + _TAG)
        self._open = b""
        self._number = 0
        self._ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object, /) -> int:
        target = memoryview(buffer).cast("B")  # type: ignore[arg-type]  # whatever can be written into
        if not self._open and not self._ended:
            self._next()
        count = min(len(target), len(self._open))
        target[:count] = self._open[:count]
        self._open = self._open[count:]
        return count

    def _next(self) -> None:
        piece, self._ahead = self._ahead, self._source.read(PIECE + _TAG)
        self._ended = not self._ahead
        try:
            self._open = self._key.decrypt(_nonce(self._number, self._ended), piece, MAGIC)
        except (InvalidTag, ValueError) as error:
            raise HomeError("The backup does not open: the passphrase is another, or the file is damaged.") from error
        self._number += 1


def _key(passphrase: bytes, salt: bytes) -> AESGCM:
    return AESGCM(Scrypt(salt, 32, _COST, _BLOCK, _PARALLEL).derive(passphrase))


def _nonce(number: int, last: bool) -> bytes:
    return number.to_bytes(11, "big") + bytes([last])
