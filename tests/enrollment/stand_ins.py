"""Executables that stand in for tools of Apple's platforms: real processes, found by PATH, that note their words."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs

HEAD = f"#!{sys.executable} -IS\n"
IDB = """
import json, pathlib, shutil, sys
base = pathlib.Path(__file__).parent
with (base / "calls").open("a") as calls:
    calls.write(json.dumps(sys.argv[1:]) + "\\n")
told = json.loads((base / "told.json").read_text())
words = sys.argv[1:]
if told.get("fails"):
    sys.stderr.write(told["fails"] + "\\n")
    sys.exit(1)
if words[0] == "list-targets":
    sys.stdout.write("not json\\n")
    for udid in told["devices"]:
        print(json.dumps({"udid": udid, "name": "My iPhone", "type": "device", "state": "Booted"}))
    print(json.dumps({"udid": "x", "name": "sim", "type": "simulator", "state": "Booted"}))
    sys.exit(0)
if words[:2] == ["usbmux", "list"]:
    print(json.dumps([{"Identifier": udid, "DeviceName": "My iPhone"} for udid in told["devices"]]))
    sys.exit(0)
udid, bundle, rest = words[3], words[5], words[6:]
if words[0] == "apps":
    udid, bundle, rest = words[3], words[4], words[5:]
container = base / "devices" / udid / bundle
source, target = rest
if words[1] == "pull":
    there = container / source
    if not there.is_file():
        sys.stderr.write("no such file in the container\\n")
        sys.exit(1)
    target = pathlib.Path(target)
    if words[0] == "file" and target.is_dir() == bool(told.get("file_form")):
        sys.stderr.write("the destination is of the wrong kind\\n")
        sys.exit(1)
    shutil.copy(there, target / there.name if target.is_dir() else target)
else:
    there = container / target
    content = pathlib.Path(source).read_bytes()
    if told.get("damages"):
        content = content[:-1]
    (there / pathlib.Path(source).name if words[0] == "file" else there).write_bytes(content)
"""
XCRUN = """
import json, pathlib, sys
base = pathlib.Path(__file__).parent
told = json.loads((base / "told.json").read_text())
if told.get("fails"):
    sys.stderr.write(told["fails"])
    sys.exit(72)
assert sys.argv[1:] == ["simctl", "list", "devices", "booted", "--json"], sys.argv
print(json.dumps(told["listed"]))
"""


@attrs.frozen
class StandIn:
    """One executable in a folder of its own."""

    base: Path

    @classmethod
    def make(cls, base: Path, name: str, source: str, told: Mapping[str, object]) -> "StandIn":
        base.mkdir(parents=True)
        program = base / name
        program.write_text(HEAD + source)
        program.chmod(0o755)
        made = cls(base)
        made.tell(**told)
        return made

    def tell(self, **told: object) -> None:
        (self.base / "told.json").write_text(json.dumps(told))

    def calls(self) -> Sequence[list[str]]:
        path = self.base / "calls"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def container(self, udid: str, bundle: str, inner: str) -> Path:
        folder = self.base / "devices" / udid / bundle / inner
        folder.mkdir(parents=True)
        return folder
