import os
import socket
import stat
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from rsocket_broker.errors import ConfigurationError
from rsocket_broker.transports import binding
from rsocket_broker.transports.binding import Options, bind_tcp, bind_unix

needs_ipv6 = pytest.mark.skipif(not socket.has_ipv6 or not Path("/proc/net/if_inet6").exists(), reason="needs IPv6")


@pytest.fixture
def closing() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def names(sockets: list[socket.socket], closing: ExitStack) -> list[tuple[str, int]]:
    return [closing.enter_context(bound).getsockname()[:2] for bound in sockets]


@needs_ipv6
@pytest.mark.row("A-12")
async def test_localhost_is_both_loopback_addresses_on_one_port(closing: ExitStack) -> None:
    (four, port), (six, same) = names(await bind_tcp("localhost", 0), closing)
    assert (four, six, port) == ("127.0.0.1", "::1", same)


@needs_ipv6
async def test_a_free_port_is_drawn_again_until_both_addresses_have_it(
    closing: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first draw hits a number that someone else holds on ::1."""
    blocker = closing.enter_context(socket.create_server(("::1", 0), family=socket.AF_INET6))
    taken = blocker.getsockname()[1]
    real, draws = binding._bind_one, iter([taken])

    def bind_one(family: socket.AddressFamily, address: str, port: int, backlog: int) -> socket.socket:
        return real(family, address, port or next(draws, 0), backlog)

    monkeypatch.setattr(binding, "_bind_one", bind_one)
    (_, port), (_, same) = names(await bind_tcp("localhost", 0), closing)
    assert port == same != taken


async def test_a_machine_without_ipv6_serves_the_other_loopback(
    closing: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = binding._bind_one

    def bind_one(family: socket.AddressFamily, address: str, port: int, backlog: int) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(97, "Address family not supported by protocol")
        return real(family, address, port, backlog)

    monkeypatch.setattr(binding, "_bind_one", bind_one)
    assert [host for host, _ in names(await bind_tcp("localhost", 0), closing)] == ["127.0.0.1"]


@pytest.mark.row("A-12")
@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "0.0.0.0"])
async def test_any_other_host_is_taken_at_its_word(host: str, closing: ExitStack) -> None:
    assert [found for found, _ in names(await bind_tcp(host, 0), closing)] == [host]


@pytest.mark.parametrize("family", [socket.AF_INET, pytest.param(socket.AF_INET6, marks=needs_ipv6)])
async def test_a_taken_port_names_its_holder_and_the_option(family: socket.AddressFamily, closing: ExitStack) -> None:
    host = "::1" if family == socket.AF_INET6 else "127.0.0.1"
    taken = closing.enter_context(socket.create_server((host, 0), family=family)).getsockname()[1]
    with pytest.raises(ConfigurationError) as refusal:
        await bind_tcp("localhost", taken, options=Options(port="--secure-port"))
    text = refusal.value.public
    assert f"Port {taken}" in text and "--secure-port" in text
    if Path("/proc/net/tcp").exists():
        assert f"process {os.getpid()} (" in text
    with socket.socket() as free:
        if family == socket.AF_INET6:
            free.bind(("127.0.0.1", taken))  # the half that could be had was let go


async def test_a_port_taken_by_a_process_that_hides_is_still_explained(
    closing: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = closing.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1]
    monkeypatch.setattr(binding, "port_holder", lambda port: None)
    with pytest.raises(ConfigurationError, match=f"Port {taken} on 127.0.0.1 is taken by another process"):
        await bind_tcp("127.0.0.1", taken)


@pytest.mark.parametrize(
    ("host", "says"),
    [
        ("", "is empty"),
        ("no-such-host.invalid", "no such host"),
        ("192.0.2.1", "not an address of this machine"),
        ("x" * 70 + ".example", "no such host"),
    ],
)
async def test_a_host_that_cannot_be_listened_on_is_explained(host: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says) as refusal:
        await bind_tcp(host, 0, options=Options(host="--bind-to"))
    assert "--bind-to" in refusal.value.public or "Use 0.0.0.0" in refusal.value.public


async def test_a_forbidden_port_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object) -> socket.socket:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(binding, "_bind_one", forbidden)
    with pytest.raises(ConfigurationError, match="above 1023 with --port"):
        await bind_tcp("127.0.0.1", 80)


async def test_accepted_sockets_do_not_wait_to_fill_packets(closing: ExitStack) -> None:
    """asyncio turns Nagle's delay off only where the socket says that it is TCP."""
    (bound,) = await bind_tcp("127.0.0.1", 0)
    closing.enter_context(bound)
    assert bound.proto == socket.IPPROTO_TCP


def test_a_unix_socket_is_for_this_user_only(tmp_path: Path, closing: ExitStack) -> None:
    before = os.umask(0)
    closing.callback(os.umask, before)
    closing.enter_context(bind_unix(tmp_path / "s"))
    assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o600


def test_a_dead_unix_socket_is_replaced_and_a_living_one_is_not(tmp_path: Path, closing: ExitStack) -> None:
    path = tmp_path / "s"
    bind_unix(path).close()
    assert path.exists()
    closing.enter_context(bind_unix(path))
    with pytest.raises(ConfigurationError, match="Another process listens"):
        bind_unix(path)


def test_a_living_unix_socket_with_a_full_queue_is_living(tmp_path: Path, closing: ExitStack) -> None:
    path = tmp_path / "s"
    closing.enter_context(bind_unix(path, backlog=0))
    for _ in range(3):
        client = closing.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        client.setblocking(False)
        client.connect_ex(str(path))
    with pytest.raises(ConfigurationError, match="Another process listens"):
        bind_unix(path)


def test_a_file_in_the_place_of_a_unix_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "s"
    path.write_text("precious")
    with pytest.raises(ConfigurationError, match="not a socket"):
        bind_unix(path)
    assert path.read_text() == "precious"


def test_a_path_too_long_for_a_unix_socket_is_explained(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="too long"):
        bind_unix(tmp_path / ("x" * 120))
