import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rsocket_broker.backup import sealing
from rsocket_broker.backup.sealing import MAGIC, PIECE, Opener, Sealer
from rsocket_broker.errors import HomeError

PASSPHRASE = b"open sesame"


def seal(data: bytes, passphrase: bytes = PASSPHRASE) -> bytes:
    target = io.BytesIO()
    with Sealer(target, passphrase) as sealer:
        for start in range(0, len(data), 100_001):
            sealer.write(data[start : start + 100_001])
    return target.getvalue()


def unseal(sealed: bytes, passphrase: bytes = PASSPHRASE) -> bytes:
    assert sealing.is_sealed(sealed)
    return io.BufferedReader(Opener(io.BytesIO(sealed[len(MAGIC) :]), passphrase)).read()


@pytest.mark.parametrize("size", [0, PIECE, PIECE + 1])
def test_what_is_sealed_opens_and_says_nothing(size: int) -> None:
    data = (b"a known text " * (size // 13 + 1))[:size]
    sealed = seal(data)
    assert b"known" not in sealed
    assert unseal(sealed) == data


def test_two_files_of_one_content_share_nothing() -> None:
    one, other = seal(b"the same" * 100), seal(b"the same" * 100)
    assert one[len(MAGIC) :] != other[len(MAGIC) :]


def test_another_passphrase_opens_nothing() -> None:
    with pytest.raises(HomeError, match="the passphrase is another"):
        unseal(seal(b"content"), b"open barley")


SEALED = seal(bytes(PIECE) * 2 + b"end")
_HEAD = len(MAGIC) + 32
_WHOLE = PIECE + 16


@pytest.mark.parametrize(
    "damaged",
    [
        SEALED[:-1],
        SEALED[: _HEAD + _WHOLE],
        SEALED[: _HEAD + 2 * _WHOLE],
        SEALED[:_HEAD],
        SEALED[: _HEAD - 5],
        SEALED + b"more",
        SEALED[:_HEAD] + SEALED[_HEAD + _WHOLE :],
        SEALED[:_HEAD] + SEALED[_HEAD : _HEAD + _WHOLE] * 2 + SEALED[_HEAD + _WHOLE :],
        SEALED[: _HEAD + 7] + b"\xff" + SEALED[_HEAD + 8 :],
    ],
    ids=["short", "cut 1", "cut 2", "empty", "no salt", "longer", "piece gone", "piece twice", "changed"],
)
def test_what_was_changed_moved_or_cut_off_is_noticed(damaged: bytes) -> None:
    with pytest.raises(HomeError, match=r"damaged|too early"):
        unseal(damaged)


SHORT = seal(b"x" * 40)


@settings(max_examples=4, deadline=None)
@given(st.integers(len(MAGIC), len(SHORT) - 1), st.integers(1, 255))
def test_no_byte_can_be_changed(position: int, change: int) -> None:
    sealed = bytearray(SHORT)
    sealed[position] ^= change
    with pytest.raises(HomeError):
        unseal(bytes(sealed))
