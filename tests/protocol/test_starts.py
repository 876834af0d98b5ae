"""The start of a frame, and runs of frames that start alike: in Python and, where it could be built, in C."""

import shutil
import struct
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsocket_broker.protocol import starts
from rsocket_broker.protocol.starts import Cut, Pack, Start
from tests.playbook import wire

ROOT = Path(__file__).parents[2]
HUGE = 1 << 30


@attrs.frozen
class Engine:
    name: str
    read_start: Start
    pack_start: Pack
    cut: Cut


_START = struct.Struct("!BHIH")
PYTHON = Engine("python", _START.unpack_from, _START.pack, starts.cut_in_python)
COMPILED: list[Engine] = []
if starts._starts is not None:
    COMPILED.append(Engine("compiled", starts._starts.read_start, starts._starts.pack_start, starts._starts.cut))
ENGINES = [PYTHON, *COMPILED]


@pytest.fixture(params=ENGINES, ids=lambda engine: engine.name)
def engine(request: pytest.FixtureRequest) -> Engine:
    found = request.param
    assert isinstance(found, Engine)
    return found


def frame(stream_id: int, opening: bytes, body: bytes) -> bytes:
    size = 4 + len(opening) + len(body)
    return size.to_bytes(3, "big") + (stream_id & 0xFFFFFFFF).to_bytes(4, "big") + opening + body


def cut_slowly(data: bytes, at: int, stream_id: int, opening: bytes, most: int) -> tuple[list[bytes], int]:
    """What `cut` means, one thing after the other."""
    bodies = []
    while True:
        rest = data[at:]
        length = 3 + int.from_bytes(rest[:3], "big")
        whole = rest[:length]
        if len(rest) < 3 or len(whole) < length or length > most or int.from_bytes(whole[3:7], "big") != stream_id:
            return bodies, at
        if len(whole) < 7 or not whole[7:].startswith(opening):
            return bodies, at
        bodies.append(whole[7 + len(opening) :])
        at, stream_id = at + length, stream_id + 2


@pytest.mark.row("A-31")
def test_a_start_is_read_as_it_was_written(engine: Engine) -> None:
    for numbers in ((0, 6, 1, 0x1000), (0xFF, 0xFFFF, 0xFFFFFFFF, 0xFFFF), (0, 0, 0, 0), (1, 2, 0x80000003, 4)):
        data = engine.pack_start(*numbers)
        assert data == PYTHON.pack_start(*numbers)
        assert engine.read_start(data, 0) == numbers
        assert engine.read_start(b"before" + data + b"behind", 6) == numbers


@pytest.mark.row("A-31")
def test_frames_that_begin_alike_are_cut_up_to_the_first_that_does_not(engine: Engine) -> None:
    known = b"\x10\x00\x00\x00\x02me"
    run = frame(5, known, b"one") + frame(7, known, b"") + frame(9, known, b"x" * 70_000)
    whole = len(run)
    assert engine.cut(run, 0, 5, known, HUGE) == ([b"one", b"", b"x" * 70_000], whole)
    assert engine.cut(b"??" + run, 2, 5, known, HUGE)[1] == whole + 2
    assert engine.cut(run, whole, 11, known, HUGE) == ([], whole)
    first = len(frame(5, known, b"one"))
    for after in (
        frame(9, known, b"an id too far"),
        frame(7, b"\x10\x20" + known[2:], b"another flag"),
        frame(7, known[:-1] + b"t", b"other metadata"),
        frame(7, known[:-1], b""),
        frame(7, known, b"not whole")[:-1],
        frame(7, known, b"longer than allowed"),
        b"\x00\x00\x00" + frame(7, known, b"")[3:],
        b"\x00",
    ):
        assert engine.cut(run[:first] + after, 0, 5, known, 25) == ([b"one"], first)


@st.composite
def conversations(draw: st.DrawFn) -> tuple[bytes, int, int, bytes, int]:
    """Frames that mostly begin alike, with a few bytes changed and an end that may be missing."""
    opening = draw(st.binary(min_size=1, max_size=12))
    stream_id = draw(st.integers(1, 9)) if draw(st.booleans()) else 0xFFFFFFFB
    sizes = draw(st.lists(st.integers(0, 300), max_size=8))
    pieces = [frame(stream_id + 2 * n, opening, bytes(size)) for n, size in enumerate(sizes)]
    data = bytearray(b"".join(pieces) + draw(st.binary(max_size=8)))
    for _ in range(draw(st.integers(0, 2)) if data else 0):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    end = draw(st.integers(0, len(data)))
    at = draw(st.sampled_from([0, 0, len(pieces[0]) if pieces else 0, end]))
    return bytes(data[:end]), min(at, end), stream_id, opening, draw(st.sampled_from([HUGE, 200, 20, 0]))


@pytest.mark.row("A-31")
@given(given=conversations())
def test_any_bytes_are_cut_as_the_slow_way_cuts_them(given: tuple[bytes, int, int, bytes, int]) -> None:
    wanted = cut_slowly(*given)
    for engine in ENGINES:
        assert engine.cut(*given) == wanted, engine.name


WRONG: list[tuple[str, tuple[Any, ...]]] = [
    ("read_start", (b"x" * 8, 0)),
    ("read_start", (b"x" * 9, 1)),
    ("read_start", (b"x" * 9, 10)),
    ("read_start", (b"x" * 9, -1)),
    ("read_start", (b"x" * 9, 1 << 40)),
    ("read_start", (b"x" * 9, 1 << 80)),
    ("read_start", ("x" * 9, 0)),
    ("read_start", (b"x" * 9, None)),
    ("read_start", (b"x" * 9,)),
    ("pack_start", (256, 0, 0, 0)),
    ("pack_start", (0, 65536, 0, 0)),
    ("pack_start", (0, 0, 1 << 32, 0)),
    ("pack_start", (0, 0, 1 << 80, 0)),
    ("pack_start", (0, 0, 0, 65536)),
    ("pack_start", (0, 0, -1, 0)),
    ("pack_start", (0, 0, None, 0)),
    ("pack_start", (0, 0, 0)),
    ("cut", ("text", 0, 1, b"", 9)),
    ("cut", (None, 0, 1, b"", 9)),
    ("cut", (b"x" * 9, 0, 1, "text", 9)),
    ("cut", (b"x" * 9, None, 1, b"", 9)),
    ("cut", (b"x" * 9, -1, 1, b"", 9)),
    ("cut", (b"x" * 9, 10, 1, b"", 9)),
    ("cut", (b"x" * 9, -(1 << 40), 1, b"", 9)),
    ("cut", (b"x" * 9, 0, 1, b"")),
]


@pytest.mark.row("A-31")
@pytest.mark.parametrize(("name", "arguments"), WRONG)
def test_what_makes_no_sense_raises_and_touches_no_memory(name: str, arguments: tuple[Any, ...]) -> None:
    for engine in COMPILED:
        with pytest.raises((TypeError, ValueError, OverflowError)):
            getattr(engine, name)(*arguments)


def test_cutting_keeps_nothing(engine: Engine) -> None:
    known, data = b"\x14\x00", wire(5, 1, b"x" * 50) * 2
    before = sys.getrefcount(known), sys.getrefcount(data)
    for _ in range(100):
        engine.cut(data, 0, 1, known, HUGE)
        engine.read_start(data, 0)
    assert (sys.getrefcount(known), sys.getrefcount(data)) == before


def test_it_is_compiled_where_that_is_possible(tmp_path: Path) -> None:
    """`make` installs again when the source has changed; so does `pip install --editable .`."""
    if starts.ENGINE == "python":
        compiler = (sysconfig.get_config_var("CC") or "cc").split()[0]
        source = str(ROOT / "rsocket_broker" / "protocol" / "_starts.c")
        command = [compiler, "-shared", "-fPIC", "-I", sysconfig.get_path("include"), source, "-o", str(tmp_path / "x")]
        possible = shutil.which(compiler) is not None and subprocess.run(command, capture_output=True).returncode == 0
        assert not possible, "a compiler is here: install again"


def test_without_a_compiler_it_is_done_in_python() -> None:
    program = (
        "import sys; sys.modules['rsocket_broker.protocol._starts'] = None\n"
        "from rsocket_broker.protocol import starts\n"
        "assert starts.cut is starts.cut_in_python\n"
        "print(starts.ENGINE)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split() == ["python"]
