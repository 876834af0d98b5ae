"""Bodies without their compression, as text where they are text."""

import base64
import gzip
import zlib

import brotli
import pytest

from rsocket_broker.plugins.network import bodies
from rsocket_broker.plugins.network.bodies import PIECE, as_text, decoded, joined
from rsocket_broker.plugins.network.messages import Encoded, body, size

PLAIN = b'{"items": [' + b"1, " * 500 + b"1]}"


def raw_deflate(data: bytes) -> bytes:
    work = zlib.compressobj(wbits=-15)
    return work.compress(data) + work.flush()


@pytest.mark.parametrize(
    ("encoding", "data"),
    [
        ("gzip", gzip.compress(PLAIN)),
        ("GZIP", gzip.compress(PLAIN)),
        ("x-gzip", gzip.compress(PLAIN)),
        ("deflate", zlib.compress(PLAIN)),
        ("deflate", raw_deflate(PLAIN)),
        ("br", brotli.compress(PLAIN)),
        ("gzip, br", brotli.compress(gzip.compress(PLAIN))),
        ("identity", PLAIN),
        ("", PLAIN),
        ("unheard-of", PLAIN),
        # What iOS and OkHttp's outer interceptors tell: the header stays, the compression is gone.
        ("gzip", PLAIN),
        ("deflate", PLAIN),
        ("br", PLAIN),
        ("gzip", b""),
    ],
    ids=range(14),  # gzip writes the time down, and names must be the same in every process
)
def test_a_body_is_decompressed_where_it_is_compressed(encoding: str, data: bytes) -> None:
    found = decoded(data, (("content-ENCODING", encoding),))
    assert found == (PLAIN if data else b"", "")


@pytest.mark.parametrize(("encoding", "compress"), [("gzip", gzip.compress), ("br", brotli.compress)])
def test_a_body_that_the_app_has_cut_is_shown_as_far_as_it_goes(encoding: str, compress: type) -> None:
    noise = bytes(index * index % 251 for index in range(40_000))
    data = compress(noise)
    found = decoded(data[: len(data) // 2], (("Content-Encoding", encoding),))
    assert found.data
    assert noise.startswith(found.data)
    assert found.note == "cut off by the app"


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br"])
def test_a_bomb_is_cut_off(monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    monkeypatch.setattr(bodies, "MAX_BODY", 100_000)
    data = {"gzip": gzip.compress, "deflate": zlib.compress, "br": brotli.compress}[encoding](bytes(1_000_000))
    found = decoded(data, (("Content-Encoding", encoding),))
    assert len(found.data) == 100_000
    assert found.note == "cut off after 100000 bytes"


def test_text_is_what_its_type_says_or_what_it_looks_like() -> None:
    assert as_text("é".encode(), "application/json") == "é"
    assert as_text("é".encode("latin-1"), "text/plain; charset=ISO-8859-1") == "é"
    assert as_text("é".encode("latin-1"), 'text/plain; charset="latin1"; x=y') == "é"
    assert as_text(b"plain", "") == "plain"
    assert as_text(b"plain", "text/html; charset=nonsense") == "plain"
    for data, kind in ((b"\xff\xfe\x00", ""), (b"GIF89a", "image/gif"), (b"a\0b", "text/plain"), (b"\xe9", "text/x")):
        assert as_text(data, kind) is None
    assert as_text(b"\xe9", "text/plain; charset=nonsense") is None


@pytest.mark.parametrize("encode", [base64.encodebytes, base64.b64encode])
@pytest.mark.parametrize("more", [0, 1, 2, 3])
def test_a_large_body_is_read_in_pieces(encode: type, more: int) -> None:
    data = bytes(range(256)) * (PIECE * 2 // 256) + b"x" * more
    told = body(encode(data).decode())
    assert isinstance(told, Encoded)
    assert size(told) == len(data)
    assert joined([b"before", told, b"behind"]) == b"before" + data + b"behind"


def test_of_a_large_body_that_is_none_the_good_pieces_are_shown() -> None:
    text = base64.b64encode(bytes(PIECE)).decode()
    told = body(text + "!" + text)
    assert told is not None
    assert set(joined([told])) == {0}
    assert 0 < len(joined([told])) < 2 * PIECE


@pytest.mark.parametrize(
    "charset", ["punycode", "idna", "unicode_escape", "rot13", "zlib", "no\0name", "\ud83d", "x" * 9999]
)
def test_a_charset_that_no_body_has_is_not_asked_for(charset: str) -> None:
    text = b"a" * 50_000 + b"-" + b"zzzzb" * 50_000  # of which punycode makes something in minutes
    assert as_text(text, f"text/plain; charset={charset}") == text.decode()


@pytest.mark.parametrize("charset", ["utf-8", "ISO-8859-15", "windows-1252", "gb18030", "shift_jis", "cp437"])
def test_charsets_of_bodies_are_read(charset: str) -> None:
    assert as_text("text".encode(charset), f"text/plain; charset={charset}") == "text"
