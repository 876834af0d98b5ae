import io
from collections.abc import Callable

import pytest

from rsocket_broker.backup import sealing
from rsocket_broker.backup.sealing import MAGIC, PIECE, Opener, Sealer
from rsocket_broker.errors import HomeError

PASSPHRASE = b"open sesame"
COST = sealing._COST


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


HEAD = len(MAGIC) + 32
WHOLE = PIECE + 16


@pytest.mark.parametrize(
    "damage",
    [
        lambda sealed: sealed[:-1],
        lambda sealed: sealed[: HEAD + WHOLE],
        lambda sealed: sealed[: HEAD + 2 * WHOLE],
        lambda sealed: sealed[:HEAD],
        lambda sealed: sealed[: HEAD - 5],
        lambda sealed: sealed + b"more",
        lambda sealed: sealed[:HEAD] + sealed[HEAD + WHOLE :],
        lambda sealed: sealed[:HEAD] + sealed[HEAD : HEAD + WHOLE] * 2 + sealed[HEAD + WHOLE :],
        lambda sealed: sealed[: HEAD + 7] + bytes([sealed[HEAD + 7] ^ 1]) + sealed[HEAD + 8 :],
    ],
    ids=["short", "cut 1", "cut 2", "empty", "no salt", "longer", "piece gone", "piece twice", "changed"],
)
def test_what_was_changed_moved_or_cut_off_is_noticed(damage: Callable[[bytes], bytes]) -> None:
    sealed = seal(bytes(PIECE) * 2 + b"end")
    with pytest.raises(HomeError, match=r"damaged|too early"):
        unseal(damage(sealed))


def test_no_byte_can_be_changed() -> None:
    sealed = seal(b"x" * 40)
    for position in range(len(MAGIC), len(sealed)):
        changed = bytearray(sealed)
        changed[position] ^= 1 << position % 8
        with pytest.raises(HomeError):
            unseal(bytes(changed))


def test_a_guess_costs_what_it_should(monkeypatch: pytest.MonkeyPatch) -> None:
    """128 MiB each, so that guessing does not pay; a file that was sealed so opens only so."""
    cheap = seal(b"content")
    monkeypatch.setattr(sealing, "_COST", COST)
    assert COST * 8 * 128 == 128 << 20
    assert unseal(seal(b"content")) == b"content"
    with pytest.raises(HomeError):
        unseal(cheap)
