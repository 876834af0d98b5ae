"""The foreign clients: what each needs, how it is built, and how it is run.

Builds are kept in the user's cache folder, under a name that is made from the content of what they are made of, so the
tree stays as git knows it and nothing is built twice. Registries are asked for exactly what the lock files say.
"""

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import attrs
import platformdirs
import pytest

HERE = Path(__file__).parent
CACHE = platformdirs.user_cache_path("rsocket-broker-tests") / "interop"
BUILD_WITHIN = 240.0
"""Seconds: a Rust client is compiled with all that it depends on."""


@attrs.frozen
class Program:
    """How to start a client; the URL, the folder of its certificate and the steps are further arguments."""

    command: Sequence[str | Path]
    environment: Mapping[str, str] = attrs.field(factory=dict)


Prepare = Callable[[], Program]


def python() -> Program:
    return Program([sys.executable, HERE / "python" / "client.py"])


def javascript(folder: str) -> Prepare:
    def prepare() -> Program:
        client = HERE / "js" / folder / "client.js"
        return Program(["node", client], {"NODE_PATH": str(node_modules(HERE / "js" / folder))})

    return prepare


def node_modules(folder: Path) -> Path:
    """The folder of the packages that the lock file in `folder` names."""
    for tool in ("node", "npm"):
        want(tool, "apt-get install nodejs npm")
    files = [folder / "package.json", folder / "package-lock.json"]

    def install(place: Path) -> None:
        for file in files:
            shutil.copy(file, place)
        execute(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], place)

    return built(f"node-{folder.name}", files, install) / "node_modules"


def java() -> Program:
    for tool in ("javac", "mvn"):
        want(tool, "apt-get install default-jdk-headless maven")
    folder = HERE / "java"
    files = [folder / "pom.xml", *(folder / "src").rglob("*.java")]

    def compile_all(place: Path) -> None:
        shutil.copytree(folder, place, dirs_exist_ok=True)
        execute(["mvn", "-B", "-q", "-Dstyle.color=never", "compile", "dependency:copy-dependencies"], place)

    target = built("java", files, compile_all) / "target"
    path = f"{target / 'classes'}{os.pathsep}{target / 'dependency' / '*'}"
    return Program(["java", "-XX:TieredStopAtLevel=1", "-cp", path, "InteropClient"])


def rust() -> Program:
    if shutil.which("cargo") is None:
        pytest.skip("there is no cargo here; rustup installs one (that of Debian is too old for the lock file)")
    folder = HERE / "rust"
    files = [folder / "Cargo.toml", folder / "Cargo.lock", *(folder / "src").iterdir()]

    def compile_all(place: Path) -> None:
        target = CACHE / "rust-target"  # what the client depends on is not compiled again for a change of the client
        execute(["cargo", "build", "--quiet", "--locked"], folder, {"CARGO_TARGET_DIR": str(target)})
        shutil.copy(target / "debug" / "interop-rsocket-rust", place)

    return Program([built("rust", files, compile_all) / "interop-rsocket-rust"])


LIBRARIES: Mapping[str, Prepare] = {
    "rsocket-py": python,
    "rsocket-js-1": javascript("rsocket-1"),
    "rsocket-js-0": javascript("rsocket-0"),
    "rsocket-java": java,
    "rsocket-rust": rust,
}


OVER_WEBSOCKET = tuple(name for name in LIBRARIES if name != "rsocket-rust")
"""rsocket_rust_transport_websocket 0.7.4 opens `ws:` only: it has no settings for TLS."""


def want(tool: str, provided_by: str) -> None:
    """Skips the test where `tool` is not there. The word "needs" says that .ci/run provides it."""
    if shutil.which(tool) is None:
        pytest.skip(f"needs {tool}: {provided_by}")


def built(name: str, files: Sequence[Path], build: Callable[[Path], None]) -> Path:
    """The folder that `build` has filled from these files, now or in an earlier run. It appears all at once."""
    content = hashlib.sha256()
    for file in sorted(files):
        content.update(f"{file.name} {file.stat().st_size}\n".encode() + file.read_bytes())
    place = CACHE / f"{name}-{content.hexdigest()[:16]}"
    if not place.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f"{name}-", dir=CACHE) as scratch:
            made = Path(scratch) / "made"
            made.mkdir()
            build(made)
            with contextlib.suppress(OSError):  # somebody else was quicker
                made.rename(place)
            assert place.exists()
    return place


def execute(command: Sequence[str | Path], folder: Path, environment: Mapping[str, str] | None = None) -> None:
    """Runs one command of a build. Skips the test where it fails: the registry is out of reach, for one."""
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        timeout=BUILD_WITHIN,
        check=False,
    )
    if done.returncode:
        said = (done.stdout + done.stderr).strip().splitlines()
        pytest.skip(f"needs what `{' '.join(map(str, command))}` gets, which failed: {' / '.join(said[-8:])}")


def build_all() -> None:
    """What can be built here, the one that takes longest first. Whatever cannot is said by the tests that want it."""
    for prepare in reversed(LIBRARIES.values()):
        with contextlib.suppress(pytest.skip.Exception):
            prepare()


if __name__ == "__main__":
    build_all()
