"""`app images`, with an emulated Fresco."""

import json
from pathlib import Path

from emulated_apps.images import PNG
from tests.cli.app.android import Android
from tests.cli.app.conftest import Phone


def test_images_are_listed_and_written_into_files(shop: Android, tmp_path: Path) -> None:
    levels = json.loads(shop.say("images", "list", "--disk", "--json").stdout)["levels"]
    assert [one["name"] for one in levels] == ["On screen bitmaps", "Bitmap memory cache", "Disk images"]
    assert "Bitmap memory cache" in shop.say("images", "list").stdout
    image = levels[1]["images"][0]
    out = tmp_path / "image.png"
    said = shop.say("images", "get", image, "--out", str(out))
    assert said.returncode == 0, said.stderr
    assert out.read_bytes() == PNG
    assert out.stat().st_mode & 0o777 == 0o600
    assert "image/png" in said.stderr


def test_what_goes_wrong_is_told(shop: Android, phone: Phone, tmp_path: Path) -> None:
    gone = shop.say("images", "get", "999", "--out", str(tmp_path / "x"))
    assert (gone.returncode, "ImageId 999 was evicted from cache" in gone.stderr) == (1, True)
    assert not (tmp_path / "x").exists()
    nowhere = shop.say("images", "get", "1", "--out", str(tmp_path / "absent" / "x"))
    assert (nowhere.returncode, "cannot be written" in nowhere.stderr) == (1, True)
    assert "No connected client has the plugin Fresco" in phone.say("images", "list").stderr


def test_many_ids_are_cut_short() -> None:
    from rsocket_broker.cli.app.images import some

    assert some(["1", "2"]) == "1, 2"
    assert some([str(number) for number in range(25)]).endswith("19 and 5 more")
