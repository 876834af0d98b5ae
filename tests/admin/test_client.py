import asyncio
import socket
from pathlib import Path

import attrs
import pytest

from rsocket_broker.admin import client
from rsocket_broker.admin.run_folder import Ports, RunFolder
from rsocket_broker.broker import Broker
from rsocket_broker.errors import BrokerError, HomeError

NEXT_STEP = r"no broker runs on .*rsocket-broker serve(.|\n)*--home"


def test_where_nobody_runs_the_next_step_is_said(tmp_path: Path) -> None:
    with pytest.raises(HomeError, match=NEXT_STEP):
        client.ask(tmp_path, "status")
    with pytest.raises(HomeError, match=NEXT_STEP):
        client.ask(tmp_path / "not" / "there", "status")


@pytest.mark.parametrize("admin", ["SOCKET", "127.0.0.1:1", "nonsense", "127.0.0.1:x"])
def test_what_a_killed_broker_left_is_no_broker(tmp_path: Path, admin: str) -> None:
    folder = RunFolder(tmp_path)
    tmp_path.chmod(0o700)
    folder.acquire()
    folder.make_token()
    where = str(folder.socket_path()) if admin == "SOCKET" else admin
    folder.publish(Ports(pid=1, started=1.0, host="localhost", admin=where))
    with pytest.raises(HomeError, match=NEXT_STEP):
        client.ask(tmp_path, "status")
    folder.release()


async def test_questions_from_code_without_a_loop(broker: Broker, tmp_path: Path) -> None:
    status = await asyncio.to_thread(client.ask, tmp_path / "home", "status")
    assert status["ports"]["pid"] == broker.ports.pid


async def test_a_stream_for_code_without_a_loop(broker: Broker, session: object, tmp_path: Path) -> None:
    seen: list[object] = []
    (live,) = broker.sessions
    follow = asyncio.to_thread(client.follow, tmp_path / "home", "clients.tail", {"client": live.id}, seen.append)
    following = asyncio.ensure_future(follow)
    async with asyncio.timeout(5):
        while not live.observed:
            await asyncio.sleep(0.01)
        live.note("in", "event", "P", "m", 1)
        while not seen:
            await asyncio.sleep(0.01)
        await live.connection.close()
        await following


async def test_a_broker_that_hangs_is_not_waited_for_for_ever(broker: Broker, tmp_path: Path) -> None:
    """The socket is there and accepts, but nobody behind it answers."""
    folder = RunFolder(tmp_path / "home")
    path = tmp_path / "deaf.sock"
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(str(path))
        deaf.listen()
        folder.ports_path.write_bytes(attrs.evolve(broker.ports, admin=str(path)).to_json())
        (folder.path / "admin.token").touch(mode=0o600)
        folder.socket_path = lambda: path  # type: ignore[method-assign]
        connection = await client._connect(folder)
        with pytest.raises(BrokerError, match=r"did not answer within 0\.2 s"):
            await client.AdminLine(connection).call("status", patience=0.2)
        await connection.close(grace=0.1)
