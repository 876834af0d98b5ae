"""`app network …` with an app that is connected."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

from rsocket_broker.cli.app.network import named, show_item
from tests.cli.app.conftest import Phone
from tests.end_to_end.processes import clean_environment, program
from tests.plugins.network import har_schema

URL = "https://api.example.org/v1/cart?token=secret"


@pytest.fixture(scope="module", autouse=True)
def told(phone: Phone) -> None:
    phone.say("network", "clear")
    phone.exchange("POST", URL, 201, b'{"a": "\\u001b[2J"}', headers={"Authorization": "Bearer b"}, body=b"x=y")
    phone.exchange("GET", "https://api.example.org/missing", 404)
    phone.do(lambda: phone.network.request("GET", "https://api.example.org/open"))
    while json.loads(phone.say("network", "list", "--json").stdout)["fitting"] < 3:
        pass


def test_the_traffic_is_listed_and_filtered(phone: Phone) -> None:
    lines = phone.say("network", "list").stdout.splitlines()
    assert lines[0].split() == ["NUMBER", "TIME", "METHOD", "STATUS", "DURATION", "BYTES", "URL"]
    assert [line.split()[2:4] for line in lines[1:]] == [["POST", "201"], ["GET", "404"], ["GET", "open"]]
    assert "secret" not in lines[1]
    assert "secret" in phone.say("network", "list", "--with-secrets", "--method", "post").stdout
    found = json.loads(phone.say("network", "list", "--json", "--status", "4xx,open").stdout)
    assert [one["method"] for one in found["exchanges"]] == ["GET", "GET"]
    done = phone.say("network", "list", "--limit", "1")
    assert "2 older ones fit too" in done.stderr
    assert "No exchange fits" in phone.say("network", "list", "--url", "nowhere").stderr
    done = phone.say("network", "list", "--status", "soon")
    assert (done.returncode, "status: wanted" in done.stderr) == (1, True)


def test_a_har_is_written_for_its_owner_alone(phone: Phone, tmp_path: Path) -> None:
    path = tmp_path / "traffic.har"
    done = phone.say("network", "har", "--out", str(path))
    assert (done.returncode, done.stdout) == (0, "")
    assert "Wrote 3 exchanges" in done.stderr
    assert path.stat().st_mode & 0o777 == 0o600
    har_schema.check(json.loads(path.read_text()))
    assert "Bearer" not in path.read_text()
    done = phone.say("network", "har", "--with-secrets", "--url", "cart")
    assert "Bearer b" in done.stdout
    assert len(json.loads(done.stdout)["log"]["entries"]) == 1


def test_one_exchange_is_shown_and_made_a_command(phone: Phone) -> None:
    number = json.loads(phone.say("network", "list", "--json", "--url", "cart").stdout)["exchanges"][0]["number"]
    said = phone.say("network", "show", str(number)).stdout
    for part in ("request  POST", "response  201", "Authorization: [redacted]", "x=y"):
        assert part in said
    assert "\x1b" not in said
    assert json.loads(phone.say("network", "show", str(number), "--json").stdout)["_number"] == number
    assert phone.say("network", "curl", str(number)).stdout.startswith("curl --globoff --header")
    later = json.loads(phone.say("network", "list", "--json", "--after", str(number)).stdout)["exchanges"]
    assert all(one["number"] > number for one in later)
    entries = json.loads(phone.say("network", "har", "--after", str(number)).stdout)["log"]["entries"]
    assert len(entries) == len(later)
    done = phone.say("network", "show", "999")
    assert (done.returncode, "no such exchange" in done.stderr) == (1, True)


def test_figures_are_told(phone: Phone) -> None:
    lines = phone.say("network", "statistics").stdout.splitlines()
    assert lines[0].split()[:4] == ["HOST", "COUNT", "OPEN", "MEDIAN"]
    assert lines[1].split()[:3] == ["all", "3", "1"]
    assert lines[2].split()[0] == "api.example.org"
    assert json.loads(phone.say("network", "statistics", "--json").stdout)["exchanges"] == 3


def test_mock_routes_are_set_listed_and_cleared(phone: Phone, tmp_path: Path) -> None:
    body = tmp_path / "body.json"
    body.write_text("{}")
    done = phone.say("network", "mock", "set", "/v1/cart", "--status", "500", "--header", "Retry-After: 5")
    assert (done.returncode, done.stderr) == (0, "")
    phone.say("network", "mock", "set", "/v1", "--body-file", str(body))
    assert [route["status"] for route in phone.network.routes] == [500, 200]
    assert phone.network.routes[1]["data"] == b"{}"
    done = phone.say("network", "mock", "list")
    assert done.stdout.splitlines()[1].split() == ["GET", "/v1/cart", "500", "yes", "0"]
    assert "Warning: GET /v1/cart and /v1" in done.stderr
    assert len(json.loads(phone.say("network", "mock", "list", "--json").stdout)["mocks"]) == 2
    phone.say("network", "mock", "clear", "/v1")
    assert "no mock routes" in phone.say("network", "mock", "clear").stderr
    assert phone.network.routes == []
    done = phone.say("network", "mock", "set", "/x", "--header", "nonsense")
    assert (done.returncode, "write NAME: VALUE" in done.stderr) == (2, True)


async def test_the_traffic_is_followed(phone: Phone) -> None:
    command = program(phone.broker.home, "app", "network", "follow", "--known", "--json", "--status", "404")
    process = await asyncio.create_subprocess_exec(
        *command, stdout=subprocess.PIPE, stderr=sys.stderr, env=clean_environment()
    )
    assert process.stdout is not None
    async with asyncio.timeout(20):
        known = json.loads(await process.stdout.readline())
        assert (known["event"], known["exchange"]["status"]) == ("known", 404)
        await asyncio.to_thread(phone.exchange, "GET", "https://api.example.org/later", 404)
        item = json.loads(await process.stdout.readline())
        assert item["exchange"]["url"] == "https://api.example.org/later"
        process.terminate()
        await process.wait()


def test_items_are_lines_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    exchange = {"number": 1, "time": 0, "method": "GET", "status": 200, "state": "done", "duration": 1.5}
    exchange |= {"response_bytes": 5, "url": "https://x\x1b[2J", "mock": True}
    show_item({"event": "response", "exchange": exchange})
    show_item({"event": "request", "exchange": exchange})
    show_item({"dropped": 3})
    said = capsys.readouterr()
    assert "200 (mock)" in said.out
    assert said.out.count("\n") == 1
    assert "\x1b" not in said.out
    assert "3 were left out" in said.err


@pytest.mark.parametrize(("typed", "meant"), [("17", 17), ("a-b", "a-b"), ("9" * 19, "9" * 19), ("", "")])
def test_what_is_typed_is_a_number_where_it_is_one(typed: str, meant: int | str) -> None:
    assert named(typed) == meant
