"""Who is judged: a server of some implementation, in a process of its own, and how it is spoken to.

Every target serves the routes of the echo plugin and of `probe_plugin.py`, by the first tag of a routing entry in
composite metadata. `has` says what else applies to it:

    routes   requests are served (the broker's plain endpoint has none: it judges SETUP and the connection)
    calls    it calls its client back
    lease, resume    it has these two parts of the protocol, which are optional
"""

import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import attrs

from tests.conformance import wire
from tests.conformance.wire import Peer
from tests.end_to_end.processes import BrokerProcess, start_broker
from tests.foreign.sdk_folder import claims, client_context

HERE = Path(__file__).parent
SERVERS = HERE / "servers"
BUILD = HERE.parent.parent / "build" / "conformance"
"""Packages and classes of the other libraries' servers, outside of what git knows."""
APP_ID = "org.example.conformance"
LEASE_REQUESTS = 5
"""What each target lets a client ask that honours leases: enough for a test, and soon used up."""
START_WITHIN = 30.0
BUILD_WITHIN = 300.0
JAVA_HEAP = "-Xmx192m"
"""A heap that grows as long as it may says nothing about what a peer costs."""

WAIT = float(os.environ.get("CONFORMANCE_WAIT", "10"))
"""Seconds that a server may take for anything it must do."""


class Unavailable(Exception):
    """The target cannot run on this machine; the text says what is missing."""


@attrs.define
class Target:
    """One running server. `pid` is its process."""

    name: str
    port: int
    has: frozenset[str]
    pid: int
    lease_port: int = 0
    """Where clients that honour leases get them, if that is not `port`: rsocket-js and -java grant them to all."""
    context: ssl.SSLContext | None = None
    setup_data: bytes = b""
    host: str = "127.0.0.1"
    linger: float = 0.01
    alive: Callable[[], bool] = lambda: True
    started: float = attrs.field(factory=time.monotonic)
    loiterers: dict[str, Peer] = attrs.field(factory=dict)
    """Connections that were opened with the target and say nothing, or half a word."""
    _peers: list[Peer] = attrs.field(factory=list)

    def stranger(self, *, leases: bool = False) -> Peer:
        """A connection on which nothing has been said; with `leases`, to where they are granted."""
        port = self.lease_port or self.port if leases else self.port
        peer = Peer.connect(self.host, port, self.context, WAIT, self.linger)
        self._peers.append(peer)
        return peer

    def let_loiter(self) -> None:
        """Opens connections that never get as far as a SETUP. `test_hostile.py` looks for them in the end."""
        words = {"nothing": b"", "half a length": b"\x00", "half a SETUP": self.setup()[:20]}
        for name, word in words.items():
            self.loiterers[name] = Peer.connect(self.host, self.port, self.context, WAIT, self.linger)
            self.loiterers[name].send(word)

    def stop_loitering(self) -> None:
        for peer in self.loiterers.values():
            peer.close()

    def setup(self, **changes: object) -> bytes:
        """A SETUP that this target accepts, but for the changes."""
        return wire.setup(**({"data": self.setup_data} | changes))  # type: ignore[arg-type]

    def join(self, *, leases: bool = False, **changes: object) -> Peer:
        """A connection whose SETUP has been sent."""
        peer = self.stranger(leases=leases)
        peer.send(self.setup(**changes))
        return peer

    def answers(self) -> bool:
        """Whether a new client gets an answer."""
        try:
            peer = self.join()
            peer.is_served()
        except (OSError, AssertionError):
            return False
        finally:
            self.hang_up()
        return True

    def seen(self, what: str) -> int:
        """A counter of `probe.seen`, over a connection of its own."""
        return self._counter("probe.seen", what)

    def fired(self) -> int:
        return self._counter("echo.fired", "count")

    def rss(self) -> int:
        """Bytes of memory that the server has in use now."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise ProcessLookupError("the server has ended")

    def hang_up(self) -> None:
        """Closes every connection that was opened."""
        for peer in self._peers:
            peer.close()
        self._peers.clear()

    def _counter(self, route: str, what: str) -> int:
        peer = self.join()
        peer.send(wire.request(wire.REQUEST_RESPONSE, 1, b"", wire.routed(route)))
        found = wire.parsed(peer.on_stream(1))
        peer.close()
        assert isinstance(found, dict)
        return int(found[what])


BROKER = frozenset({"routes", "calls", "lease", "resume"})
PLAIN: frozenset[str] = frozenset()


def start_judged_broker(folder: Path, *options: str) -> BrokerProcess:
    return start_broker(
        folder / "home",
        "--plugin",
        "echo",
        "--plugin",
        str(HERE / "probe_plugin.py"),
        "--max-sessions-per-identity",
        "1000",
        "--lease-requests",
        str(LEASE_REQUESTS),
        *options,
    )


def certificate(broker: BrokerProcess, folder: Path, app_id: str = APP_ID) -> ssl.SSLContext:
    """A client's TLS with a certificate that the home's own authority has issued."""
    done = broker.command("ca", "issue", "--app-id", app_id, "--out", str(folder))
    assert done.returncode == 0, done.stderr
    return client_context(folder)


def secure(broker: BrokerProcess, context: ssl.SSLContext) -> Target:
    """The secure endpoint: everything, over mutual TLS."""
    process = broker.process
    return Target("broker", broker.secure_port, BROKER, process.pid, context=context, alive=_living(process))


def plain(broker: BrokerProcess) -> Target:
    """The plain endpoint, over TCP: it serves one request that is none of ours."""
    data = json.dumps(claims(APP_ID)).encode()
    process = broker.process
    return Target("plain", broker.insecure_port, PLAIN, process.pid, setup_data=data, alive=_living(process))


def _living(process: "subprocess.Popen[str]") -> Callable[[], bool]:
    return lambda: process.poll() is None


@attrs.frozen(kw_only=True)
class Foreign:
    """Another library's server in `servers/`: how its process is made ready and started.

    Its arguments are two ports: one without leases, and one where they are granted.
    """

    title: str
    has: frozenset[str]
    command: Callable[[], list[str]]
    """Raises Unavailable."""
    linger: float = 0.1


def start_foreign(one: Foreign, name: str) -> tuple[Target, "subprocess.Popen[bytes]"]:
    """Starts the server and waits until it accepts. Raises Unavailable."""
    command = one.command()
    port, lease_port = _free_port(), _free_port()
    BUILD.mkdir(parents=True, exist_ok=True)
    with (BUILD / f"{name}.log").open("ab") as log:
        process = subprocess.Popen([*command, str(port), str(lease_port)], stdout=log, stderr=log, cwd=BUILD)
    deadline = time.monotonic() + START_WITHIN
    while True:
        try:
            for each in (port, lease_port):
                socket.create_connection(("127.0.0.1", each), 1).close()
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                process.wait()
                raise Unavailable(f"the server of {one.title} did not start; see {BUILD / name}.log") from None
            time.sleep(0.05)
        else:
            break
    target = Target(
        name, port, one.has, process.pid, lease_port, linger=one.linger, alive=lambda: process.poll() is None
    )
    return target, process


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def _tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise Unavailable(f"needs {name}")
    return found


def _once(done: Path, wanted: str, command: list[str], cwd: Path) -> None:
    """Runs `command` unless it was done for these very files. Raises Unavailable."""
    if done.exists() and done.read_text() == wanted:
        return
    ran = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=BUILD_WITHIN, check=False)
    if ran.returncode:
        raise Unavailable(f"needs what {' '.join(command)} gets: {(ran.stderr or ran.stdout).strip()[-300:]}")
    done.write_text(wanted)


def _rsocket_py() -> list[str]:
    return [sys.executable, str(SERVERS / "rsocket_py" / "server.py")]


def _rsocket_js() -> list[str]:
    node, npm = _tool("node"), _tool("npm")
    folder = BUILD / "rsocket_js"
    folder.mkdir(parents=True, exist_ok=True)
    wanted = (SERVERS / "rsocket_js" / "package.json").read_text()
    (folder / "package.json").write_text(wanted)
    install = [npm, "install", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts"]
    _once(folder / "installed", wanted, install, folder)
    shutil.copy(SERVERS / "rsocket_js" / "server.js", folder / "server.js")
    return [node, str(folder / "server.js")]


def _rsocket_java() -> list[str]:
    java, maven = _tool("java"), _tool("mvn")
    folder = BUILD / "rsocket_java"
    source = SERVERS / "rsocket_java"
    wanted = (source / "pom.xml").read_text() + (source / "src/main/java/Server.java").read_text()
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copytree(source, folder, dirs_exist_ok=True)
    build = [maven, "-q", "-B", "package", "dependency:copy-dependencies", "-DoutputDirectory=target/lib"]
    _once(folder / "built", wanted, build, folder)
    return [java, JAVA_HEAP, "-cp", f"{folder}/target/classes:{folder}/target/lib/*", "Server"]


FOREIGN: dict[str, Foreign] = {
    "rsocket-py": Foreign(title="rsocket-py 0.4.20", has=frozenset({"routes", "calls", "lease"}), command=_rsocket_py),
    "rsocket-js": Foreign(title="rsocket-js 0.0.27", has=frozenset({"routes", "calls", "lease"}), command=_rsocket_js),
    "rsocket-java": Foreign(
        title="rsocket-java 1.1.5",
        has=frozenset({"routes", "calls", "lease", "resume"}),
        command=_rsocket_java,
    ),
}
