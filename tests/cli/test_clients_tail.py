"""What `clients tail` shows of what it hears; that it follows a session at all is in test_clients.py."""

import io
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from rich.console import Console

from rsocket_broker.cli.clients_tail import KINDS, MAX_ROWS, OTHERS, RATE_S, Filter, Tally, show_message, tail
from rsocket_broker.plugin_api.handlers import Model

ROOT = Path(__file__).parents[2]

NOON = 1_777_896_000.0


def message(**changes: Any) -> dict[str, Any]:
    about = {"client": "c1", "direction": "in", "kind": "event", "plugin": "Network", "method": "newRequest"}
    return {**about, "bytes": 100, **changes}


@pytest.mark.parametrize(
    ("wanted", "fitting"),
    [
        (Filter(), True),
        (Filter(plugin="Net*"), True),
        (Filter(plugin="network"), False),
        (Filter(method="new*"), True),
        (Filter(method="new"), False),
        (Filter(kinds=("call", "event")), True),
        (Filter(kinds=("call",)), False),
        (Filter(direction="out"), False),
        (Filter(at_least=100), True),
        (Filter(at_least=101), False),
        (Filter(plugin="Network", direction="in", at_least=50), True),
    ],
    ids=str,
)
def test_a_message_fits_what_is_asked_for(wanted: Filter, fitting: bool) -> None:
    assert wanted.fits(message()) is fitting


def test_a_size_that_is_not_known_is_none() -> None:
    assert Filter().fits(message(bytes=None))
    assert not Filter(at_least=1).fits(message(bytes=None))


def shown(tally: Tally, now: float) -> str:
    out = io.StringIO()
    Console(file=out, width=120).print(tally.table(now))
    return out.getvalue()


def test_messages_of_one_kind_are_summed_up() -> None:
    tally = Tally()
    for second in range(10):
        tally.add(message(), NOON + second)
    tally.add(message(direction="out", kind="call", method="getAll", bytes=None), NOON + 3)
    first, second = [line.split("│")[1:-1] for line in shown(tally, NOON + 9).splitlines() if "Network." in line]
    assert [cell.strip() for cell in first][:6] == ["<-", "event", "Network.newRequest", "10", "1.0", "1000"]
    assert [cell.strip() for cell in second][:6] == ["->", "call", "Network.getAll", "1", "0.0", "0"]


def test_a_rate_ends_with_the_messages() -> None:
    tally = Tally()
    tally.add(message(), NOON)
    (row,) = tally.rows.values()
    assert row.rate(NOON + 1) == 1 / RATE_S
    assert row.rate(NOON + RATE_S) == 0


def test_an_app_that_makes_names_up_fills_no_table() -> None:
    tally = Tally()
    for number in range(3 * MAX_ROWS):
        tally.add(message(method=f"m{number}"), NOON)
    assert len(tally.rows) == MAX_ROWS + 1
    assert tally.rows["", "", OTHERS].count == 2 * MAX_ROWS


def test_what_came_too_fast_is_told() -> None:
    tally = Tally()
    tally.add({"dropped": 7}, NOON)
    assert "7 messages" in shown(tally, NOON)


def test_no_name_can_move_the_cursor_or_colour_the_screen(capsys: pytest.CaptureFixture[str]) -> None:
    tally = Tally()
    tally.add(message(method="[red]\x1b[2J"), NOON)
    assert r"[red]\x1b[2J" in shown(tally, NOON)
    show_message(message(method="\x1b[2J"), as_json=False)
    assert "\x1b" not in capsys.readouterr().out


def test_every_kind_that_the_broker_tells_of_can_be_asked_for() -> None:
    sources = "".join(path.read_text() for path in (ROOT / "rsocket_broker" / "routing").glob("*.py"))
    told = set(re.findall(r'\.note\("(?:in|out)", "([^"]+)"', sources))
    assert told
    assert told | {model.value for model in Model} == set(KINDS)
    done = CliRunner().invoke(tail, ["c1", "--kind", "evnet"])
    assert (done.exit_code, "'evnet' is not one of 'event'" in done.output) == (2, True)
