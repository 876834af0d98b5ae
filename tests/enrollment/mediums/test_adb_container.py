"""One container on a device: looking, writing, renaming, undoing, through both ways in."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from rsocket_broker.enrollment.mediums.adb_container import INNER_PATH, PACKAGE, AppContainer, ContainerProblem
from rsocket_broker.enrollment.mediums.adb_shell import AdbServer, Output
from rsocket_broker.enrollment.mediums.base import Bundle
from rsocket_broker.enrollment.mediums.paths import AndroidPath
from tests import emulated_device
from tests.emulated_device import AppSandbox, EmulatedDevice, Trouble
from tests.enrollment.mediums.android import app_on, leftovers, pair

BUNDLE = Bundle(csr="the request", trust_pem=b"anchor\n", certificate_pem=b"'certificate'; $(touch pwned)\n")


@pytest.fixture(params=[True, False], ids=["v2", "plain"])
async def app(
    tmp_path: Path, adb_server: emulated_device.AdbServer, request: pytest.FixtureRequest
) -> AsyncIterator[AppSandbox]:
    phone = EmulatedDevice(tmp_path / "phone", shell_v2=request.param, su="aosp")
    async with adb_server.attached(phone) as device:
        yield app_on(device)


@pytest.fixture
def server(adb_server: emulated_device.AdbServer) -> AdbServer:
    return AdbServer(adb_server.address)


async def entered(server: AdbServer, app: AppSandbox) -> AppContainer:
    place = AndroidPath(app.user, app.package, "files/sonar")
    return (await AppContainer.enter(server, app.device.serial, place))[0]


async def test_looking_finds_files_and_leaves_out_links(server: AdbServer, app: AppSandbox) -> None:
    container = await entered(server, app)
    assert await container.look() == {"app.csr": app.csr.strip().encode()}
    app.file("sonarCA.crt").write_bytes(b"old anchor\n")
    app.file("sonarCA.crt.new").write_bytes(b"")
    assert await container.look() == {
        "app.csr": app.csr.strip().encode(),
        "sonarCA.crt": b"old anchor",
        "sonarCA.crt.new": b"",
    }
    app.file("app.csr").unlink()
    app.file("app.csr").symlink_to("/etc/hostname")
    assert "app.csr" not in await container.look()


@pytest.mark.row("D-7", "F-13")
async def test_a_pair_is_delivered_whole_and_delivered_again(server: AdbServer, app: AppSandbox) -> None:
    container = await entered(server, app)
    app.file("device.crt.new").write_text("left over")
    for _ in range(2):
        await container.deliver(BUNDLE)
        assert pair(app) == (BUNDLE.trust_pem, BUNDLE.certificate_pem)
        assert leftovers(app) == set()
    assert not list(app.device.sandbox.root.rglob("pwned"))


@pytest.mark.row("D-7")
async def test_nothing_is_renamed_when_a_file_cannot_take_its_place(server: AdbServer, app: AppSandbox) -> None:
    container = await entered(server, app)
    app.file("device.crt").mkdir()
    with pytest.raises(ContainerProblem, match="a folder stands where a certificate should be"):
        await container.deliver(BUNDLE)
    assert not app.file("sonarCA.crt").exists()
    await container.undo()
    await container.undo()
    assert leftovers(app) == set()


async def test_a_link_in_the_place_of_a_file_is_replaced_and_not_followed(server: AdbServer, app: AppSandbox) -> None:
    victim = app.container / "victim"
    victim.write_text("mine")
    for name in ("sonarCA.crt", "sonarCA.crt.new", "device.crt"):
        app.file(name).symlink_to(victim)
    await (await entered(server, app)).deliver(BUNDLE)
    assert victim.read_text() == "mine"
    assert pair(app) == (BUNDLE.trust_pem, BUNDLE.certificate_pem)


async def test_a_read_back_that_differs_is_a_failure(server: AdbServer, app: AppSandbox) -> None:
    """A file in the place of which a pipe stands cannot be read back; here, one that the shell's `cat` changes."""
    tools = app.device.sandbox.root / "system" / "bin" / "cat"
    tools.write_text('#!/bin/sh\n/bin/cat "$@" | tr a-z A-Z\n')
    tools.chmod(0o755)
    with pytest.raises(ContainerProblem, match="does not read back"):
        await (await entered(server, app)).write("sonarCA.crt", b"anchor\n")


async def test_su_is_the_second_way(server: AdbServer, app: AppSandbox) -> None:
    app.trouble(Trouble.NOT_DEBUGGABLE)
    container = await entered(server, app)
    assert container.way.name == "su"
    await container.deliver(BUNDLE)
    assert pair(app) == (BUNDLE.trust_pem, BUNDLE.certificate_pem)
    app.device.sandbox.facts["su"] = None
    app.device.sandbox.save()
    with pytest.raises(ContainerProblem, match="not debuggable"):
        await entered(server, app)


async def test_a_folder_or_container_that_is_not_there_is_gone(server: AdbServer, app: AppSandbox) -> None:
    for package, inner in [(app.package, "files/other"), ("org.example.absent", "files/sonar")]:
        with pytest.raises(ContainerProblem) as caught:
            await AppContainer.enter(server, app.device.serial, AndroidPath(0, package, inner))
        assert caught.value.gone


def test_unknown_failures_keep_what_the_device_said() -> None:
    problem = ContainerProblem.of(Output(1, b"something\nquite new", b""))
    assert (problem.raw, problem.su_may_help, problem.gone) == ("something quite new", False, False)
    assert ContainerProblem.of(Output(9, b"", b"")).raw == "exit code 9"
    assert len(ContainerProblem.of(Output(1, b"x" * 10_000, b"")).raw) <= 300


@pytest.mark.row("A-03")
def test_names_and_paths_are_held_to_a_strict_pattern() -> None:
    for good in ["org.example.demo", "android", "a.b_c.d1"]:
        assert PACKAGE.fullmatch(good), good
    for bad in ["", "-x", "--user", "1a", ".a", "a.", "a..b", "a b", "a;b", "a-b", "a/b", "a\n", "ä.b", "a$b"]:
        assert not PACKAGE.fullmatch(bad), bad
    for good in ["files", "files/sonar", "a b/c.d-e_f+g=h@i%j~k,l"]:
        assert INNER_PATH.fullmatch(good), good
    for bad in ["", "/a", "a/", "a//b", "a'b", 'a"b', "a$b", "a;b", "a`b", "a\\b", "a\nb", "a*b", "a(b", "ü"]:
        assert not INNER_PATH.fullmatch(bad), bad
