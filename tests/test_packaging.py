"""The wheel: holds every package and data file, installs into an empty environment, and works there."""

import configparser
import os
import re
import subprocess
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAPPED = {"plugins": "rsocket_broker.plugins", "certs": "rsocket_broker.certs"}


def metadata() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def package_of(folder: Path) -> str:
    parts = list(folder.relative_to(ROOT).parts)
    return ".".join([MAPPED.get(parts[0], parts[0]), *parts[1:]])


@pytest.fixture(scope="module")
def wheel_environment() -> Path:
    """The clean environment that `make wheel` installs the wheel into."""
    path = Path(os.environ.get("RSOCKET_BROKER_WHEEL_VENV", ROOT / "build" / "wheel-venv"))
    if not (path / "bin" / "rsocket-broker").exists():
        pytest.skip("no wheel is installed: run `make wheel` first")
    return path


def run(environment: Path, *arguments: str, cwd: Path) -> str:
    done = subprocess.run(
        [str(environment / "bin" / arguments[0]), *arguments[1:]], cwd=cwd, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_package_list_names_every_folder() -> None:
    folders = {
        package_of(path.parent)
        for top in ("rsocket_broker", "plugins", "certs")
        for path in (ROOT / top).rglob("__init__.py")
    }
    assert set(metadata()["options"]["packages"].split()) == folders


def test_every_dependency_says_why_it_is_there() -> None:
    reasons = (ROOT / "docs" / "explanation" / "dependencies.md").read_text(encoding="utf-8")
    declared = metadata()["options"]["install_requires"] + metadata()["options.extras_require"]["test"]
    for line in filter(None, declared.splitlines()):
        name = re.split(r"[\s<>=;\[]", line, maxsplit=1)[0]
        assert f"`{name}`" in reasons, f"docs/explanation/dependencies.md does not say why {name} is there"


def test_the_wheel_holds_the_data_files(wheel_environment: Path) -> None:
    (wheel,) = (ROOT / "build" / "dist").glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    data = [*(ROOT / "certs").rglob("*.toml"), ROOT / "certs" / "README.md", *(ROOT / "plugins").rglob("README.md")]
    assert data
    for path in data:
        assert f"rsocket_broker/{path.relative_to(ROOT)}" in names
    assert "rsocket_broker/py.typed" in names


def test_the_installed_command_works_away_from_the_checkout(wheel_environment: Path, tmp_path: Path) -> None:
    assert "rsocket-broker" in run(wheel_environment, "rsocket-broker", "--version", cwd=tmp_path)
    listed = run(wheel_environment, "rsocket-broker", "--home", str(tmp_path / "home"), "plugins", "list", cwd=tmp_path)
    assert "echo" in listed


def test_the_installed_wheel_runs_the_whole_story(wheel_environment: Path, tmp_path: Path) -> None:
    assert run(wheel_environment, "rsocket-broker", "demo", cwd=tmp_path)


def test_the_tree_holds_no_private_key() -> None:
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.split(b"\0")
    pattern = re.compile(rb"^-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----\s*$\n[A-Za-z0-9+/=]{20}", re.MULTILINE)
    for name in filter(None, tracked):
        path = ROOT / name.decode()
        if path.is_file():
            assert not pattern.search(path.read_bytes()), f"{name.decode()} holds a private key"
