import asyncio
import json
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from rsocket_broker import client
from rsocket_broker.admin.client import AdminLine, admin_line
from rsocket_broker.admin.verbs import TAIL_BACKLOG, follow
from rsocket_broker.broker import Broker
from rsocket_broker.errors import ApplicationError, BrokerError
from tests.until import until

LIST_KEYS = ["id", "app", "app_id", "device", "device_id", "os", "sdk_version"]
LIST_KEYS += ["medium", "proof", "transport", "plugins", "since", "state", "serial"]
LIST_KEYS += ["session", "node", "parent"]


async def test_the_list_has_exactly_the_promised_keys(broker: Broker, session: client.Session, tmp_path: Path) -> None:
    async with admin_line(tmp_path / "home") as line:
        (found,) = await line.call("clients.list")
    assert list(found) == LIST_KEYS
    assert found["app"] == "Example"
    assert found["app_id"] == "com.example.app"
    assert found["proof"] == "filesystem"
    assert found["transport"] == "tls"
    assert found["device_id"] == session.device_id


async def test_show_tells_more_of_one_client(broker: Broker, session: client.Session, tmp_path: Path) -> None:
    await session.request("echo.request", 1)
    async with admin_line(tmp_path / "home") as line:
        (listed,) = await line.call("clients.list")
        shown = await line.call("clients.show", {"client": "com.example.app"})
        assert await line.call("clients.show", {"client": listed["id"]}) != {}
    assert {name: shown[name] for name in LIST_KEYS} == listed
    assert shown["requests_served"] >= 1
    assert shown["tls"] == "TLSv1.3"
    assert shown["address"].startswith(("127.0.0.1:", "[::1]:"))


@pytest.mark.row("A-53")
async def test_show_tells_how_the_line_stands(broker: Broker, session: client.Session, tmp_path: Path) -> None:
    (live,) = broker.sessions
    await until(lambda: live.started and not live.connection.streams_open)
    async with admin_line(tmp_path / "home") as line:
        shown = await line.call("clients.show", {"client": "com.example.app"})
    assert shown["alpn"] is None
    assert shown["keepalive_seconds"] == live.connection.keepalive > 0
    assert 0 <= shown["silent_seconds"] < 10
    assert shown["resumable"] is live.connection.resumable
    assert live.connection.bytes_in >= shown["bytes_in"] > shown["frames_in"] > 0
    assert shown["bytes_out"] > shown["frames_out"] > 0
    for name in ("times_resumed", "streams_open", "streams_waiting", "bytes_waiting", "requests_relayed"):
        assert shown[name] == 0, name
    assert shown["stalled_seconds"] == shown["held_seconds"] == 0
    assert shown["bytes_held"] == {}
    assert shown["identity_bytes_held"] == 0 < shown["identity_bytes"]
    assert shown["waits_for_room"] is False
    assert shown["fed_too_fast_by"] == shown["held_for"] == shown["relays_with"] == []


@pytest.mark.parametrize("spec", ["{id}", "com.example.app", "com.example.app@{device_id}"])
async def test_a_call_reaches_the_app_by_every_name_of_it(
    broker: Broker, session: client.Session, tmp_path: Path, spec: str
) -> None:
    (live,) = broker.sessions
    name = spec.format(id=live.id, device_id=session.device_id)
    async with admin_line(tmp_path / "home") as line:
        about = {"client": name, "plugin": "Counter", "method": "add", "params": {"a": 1, "b": 2}}
        assert await line.call("clients.call", about) == {"sum": 3}


async def test_the_apps_own_words_come_back(broker: Broker, session: client.Session, tmp_path: Path) -> None:
    async with admin_line(tmp_path / "home") as line:
        with pytest.raises(ApplicationError, match="no such counter"):
            await line.call("clients.call", {"client": "com.example.app", "plugin": "Counter", "method": "fail"})
        with pytest.raises(ApplicationError, match="Receiver nothing not found"):
            await line.call("clients.call", {"client": "com.example.app", "plugin": "Counter", "method": "nothing"})


@pytest.mark.parametrize(
    ("verb", "more"),
    [("show", {}), ("kick", {}), ("call", {"plugin": "P", "method": "m"})],
)
async def test_an_unknown_client_is_named(broker: Broker, tmp_path: Path, verb: str, more: dict[str, str]) -> None:
    async with admin_line(tmp_path / "home") as line:
        with pytest.raises(ApplicationError, match=r'"nobody@x" .*clients list'):
            await line.call(f"clients.{verb}", {"client": "nobody@x", **more})


async def test_a_kicked_client_hears_why(broker: Broker, tmp_path: Path) -> None:
    lost: list[str] = []
    connecting = client.connect(
        app_id="com.example.app",
        app="Example",
        directory=tmp_path / "app",
        insecure_port=broker.ports.insecure_port or 0,
        secure_port=broker.ports.secure_port or 0,
        observer=lambda progress: lost.append(progress.detail) if progress.stage is client.Stage.LOST else None,
        timeout=10,
    )
    async with connecting, admin_line(tmp_path / "home") as line:
        (before,) = await line.call("clients.list")
        kicked = await line.call("clients.kick", {"client": "com.example.app", "reason": "test is over"})
        assert kicked == {"id": before["id"], "app_id": "com.example.app"}
        async with asyncio.timeout(5):
            while not lost:
                await asyncio.sleep(0.01)
    assert "test is over" in lost[0]


async def test_a_tail_shows_each_message_and_none_of_its_words(
    broker: Broker, session: client.Session, tmp_path: Path
) -> None:
    async with (
        admin_line(tmp_path / "home") as line,
        aclosing(line.stream("clients.tail", {"client": "com.example.app"})) as items,
    ):
        first = asyncio.ensure_future(anext(items))
        await observed(broker)
        await session.request("echo.request", {"password": "hunter2"})
        message = await asyncio.wait_for(first, 5)
        assert (message["direction"], message["plugin"], message["method"]) == ("in", "echo", "request")
        assert message["bytes"] == len(json.dumps({"password": "hunter2"}, separators=(",", ":")))
        assert "hunter2" not in json.dumps(message)
        await line.call("clients.call", {"client": "com.example.app", "plugin": "Counter", "method": "add",
                                         "params": {"a": 1, "b": 1}})  # fmt: skip
        kinds = [(await asyncio.wait_for(anext(items), 5))["direction"] for _ in range(2)]
        assert kinds == ["out", "in"]
    async with asyncio.timeout(5):
        while next(iter(broker.sessions)).observed:
            await asyncio.sleep(0.01)


async def test_a_tail_ends_with_its_session(broker: Broker, session: client.Session, tmp_path: Path) -> None:
    async with admin_line(tmp_path / "home") as line:
        tail = asyncio.ensure_future(everything(line))
        await observed(broker)
        await line.call("clients.kick", {"client": "com.example.app"})
        await asyncio.wait_for(tail, 5)


async def test_a_slow_follower_costs_no_memory_and_is_told(broker: Broker, session: client.Session) -> None:
    (live,) = broker.sessions
    async with aclosing(follow(live)) as items:
        first = asyncio.ensure_future(anext(items))
        await asyncio.sleep(0)
        for number in range(TAIL_BACKLOG + 50):
            live.note("in", "event", "P", str(number), 0)
        assert (await first) == {"dropped": 50}
        kept: Any = [await anext(items) for _ in range(TAIL_BACKLOG)]
        assert [item["method"] for item in kept] == [str(number) for number in range(50, TAIL_BACKLOG + 50)]


async def test_a_wish_for_a_long_wait_is_bounded(broker: Broker, session: client.Session, tmp_path: Path) -> None:
    async with admin_line(tmp_path / "home") as line:
        about = {"client": "com.example.app", "plugin": "Counter", "method": "add", "params": {"a": 1, "b": 2}}
        assert await line.call("clients.call", about | {"timeout": 1e300}) == {"sum": 3}
        with pytest.raises(BrokerError, match="within 0 s"):
            await line.call("clients.call", about | {"timeout": -5})


async def everything(line: AdminLine) -> list[Any]:
    return [item async for item in line.stream("clients.tail", {"client": "com.example.app"})]


async def observed(broker: Broker) -> None:
    """Until somebody follows the one session."""
    (live,) = broker.sessions
    async with asyncio.timeout(5):
        while not live.observed:
            await asyncio.sleep(0.01)
