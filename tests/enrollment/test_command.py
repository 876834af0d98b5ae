"""Commands of others: what they print, how they fail, and that none of them lasts or floods."""

import sys

import pytest

from rsocket_broker.enrollment.command import MAX_OUTPUT, CommandFailed, run, started

PYTHON = sys.executable


async def test_what_it_prints_and_that_nothing_of_it_is_a_shells() -> None:
    output = await run(PYTHON, ["-c", "import sys; print(sys.argv[1:]); sys.stderr.write('e')", "$HOME; ls", "*"])
    assert output.stdout == b"['$HOME; ls', '*']\n"
    assert output.stderr == b"e"


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("import sys; sys.exit('no such device\\n  here')", "failed: no such device here"),
        ("raise SystemExit(3)", "ended with 3"),
        (f"print('x' * {MAX_OUTPUT + 1})", "printed more than"),
        ("import time; time.sleep(60)", "was not done within 0.5 s"),
    ],
)
async def test_how_it_fails(code: str, says: str) -> None:
    with pytest.raises(CommandFailed, match=says):
        await run(PYTHON, ["-c", code], 0.5 if "sleep" in code else 20)


async def test_one_that_is_not_there() -> None:
    with pytest.raises(CommandFailed, match="idb cannot be run: No such file"):
        await run("/nowhere/idb", [])


async def test_one_whose_lines_are_read_ends_with_its_reader() -> None:
    endless = "import time\nwhile True: print('x', flush=True); time.sleep(0.01)"
    async with started(PYTHON, ["-c", endless]) as child:
        assert child.stdout is not None
        assert await child.stdout.readline() == b"x\n"
        assert child.returncode is None
    assert child.returncode is not None


async def test_how_much_it_may_print_is_up_to_the_caller() -> None:
    with pytest.raises(CommandFailed, match="printed more than 10 bytes"):
        await run(PYTHON, ["-c", "print('x' * 10)"], max_output=10)
    assert (await run(PYTHON, ["-c", "print('x' * 9)"], max_output=10)).stdout == b"x" * 9 + b"\n"
