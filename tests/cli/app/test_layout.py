"""`app layout`, with an app that has both inspectors: started when they are asked, and not before."""

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from emulated_apps.images import PNG
from rsocket_broker.cli.app.layout import only_inspector, outline, place
from rsocket_broker.errors import ApplicationError
from tests.cli.app.android import PACKAGE, Android
from tests.cli.app.conftest import Phone


@pytest.mark.row("A-56")
def test_the_newer_inspector_is_asked_for_the_screen(shop: Android, tmp_path: Path) -> None:
    tree = shop.say("layout", "tree")
    assert tree.returncode == 0, tree.stderr
    lines = tree.stdout.splitlines()
    assert lines[0].startswith("DecorView [")
    assert "TextView" in lines[1]
    assert '"Your cart"' in lines[1]
    assert shop.debugger.active
    assert not shop.inspector.active, "nobody has asked the old one"
    assert json.loads(shop.say("layout", "tree", "--json", "--client", PACKAGE).stdout)["nodes"] == 3
    found = json.loads(shop.say("layout", "find", "--text", "pay", "--kind", "Button", "--json").stdout)
    assert [one["text"] for one in found] == ["Pay"]
    assert "Your cart" in shop.say("layout", "find", "--text", "cart").stdout
    nothing = shop.say("layout", "find", "--text", "absent")
    assert (nothing.returncode, "shows no such view" in nothing.stderr) == (1, True)
    root = ElementTree.fromstring(shop.say("layout", "dump").stdout)
    assert sum(1 for _ in root.iter("view")) == 3
    out = tmp_path / "screen.json"
    assert shop.say("layout", "dump", "--form", "json", "--out", str(out)).returncode == 0
    assert "attributes" in json.loads(out.read_text())
    picture = tmp_path / "screen.png"
    said = shop.say("layout", "snapshot", "--out", str(picture))
    assert said.returncode == 0, said.stderr
    assert picture.read_bytes() == PNG


def test_an_app_without_an_inspector_is_told_of(phone: Phone) -> None:
    assert "No connected client has a layout inspector" in phone.say("layout", "tree").stderr
    assert "has no layout inspector" in phone.say("layout", "tree", "--client", "com.example.shop").stderr


def test_without_a_name_the_only_client_with_an_inspector_is_meant_and_none_of_several() -> None:
    old, new = {"id": "s1", "plugins": ["Inspector"]}, {"id": "s2", "plugins": ["Inspector", "ui-debugger"]}
    other = {"id": "s3", "plugins": ["Network"]}
    assert only_inspector([old, other]) == ("s1", "Inspector")
    assert only_inspector([other, new]) == ("s2", "ui-debugger")
    with pytest.raises(ApplicationError, match="2 clients have a layout inspector: s1, s2"):
        only_inspector([old, new])


def test_places_and_views_are_lines() -> None:
    assert place({"x": 1, "y": 2.5, "width": 3, "height": 4}) == "1,2.5 3x4"
    assert place(None) == ""
    node = {"id": "1", "kind": "a.b.View", "text": "", "resource": "top", "visible": False, "children": []}
    assert list(outline(node)) == ["View [1] #top (hidden)"]
