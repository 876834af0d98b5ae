"""Figures."""

from rsocket_broker.plugins.network.statistics import MAX_HOSTS, statistics
from tests.plugins.network.shapes import answered, asked, traffic


def test_figures_are_told_in_all_and_by_host() -> None:
    told = []
    for number in range(20):
        told += [asked(f"{number}"), answered(f"{number}", timestamp=1_718_000_000_001 + number, data="aGk=")]
    found = statistics(
        traffic(*told, asked("x", "https://cdn.example.org/"), asked("y", "http://[::1"), answered("z", 500))
    )
    whole = {name: found[name] for name in ("exchanges", "unanswered", "statuses", "request_bytes", "response_bytes")}
    assert whole == {
        "exchanges": 23,
        "unanswered": 2,
        "statuses": {"2xx": 20, "5xx": 1},
        "request_bytes": 0,
        "response_bytes": 40,
    }
    assert (found["median"], found["p95"], found["slowest"]) == (10, 19, 20)
    assert [(host["host"], host["exchanges"]) for host in found["hosts"]] == [
        ("api.example.org", 20),
        ("", 2),
        ("cdn.example.org", 1),
    ]


def test_nothing_has_figures_too() -> None:
    assert statistics(traffic()) == {
        **dict.fromkeys(("exchanges", "unanswered", "request_bytes", "response_bytes"), 0),
        **dict.fromkeys(("median", "p95", "slowest")),
        "statuses": {},
        "hosts": [],
    }


def test_hosts_have_an_end() -> None:
    told = [asked(f"{number}", f"https://h{number}/") for number in range(MAX_HOSTS + 1)]
    assert len(statistics(traffic(*told))["hosts"]) == MAX_HOSTS
