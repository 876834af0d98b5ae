"""The shapes of Fresco."""

import base64

import pytest

from emulated_apps import NO_REPLY, Fresco, Image, ReceiverError
from tests.emulated_apps.heard import listen


def test_the_caches_list_their_images_and_give_them_out() -> None:
    fresco = Fresco()
    identifier = fresco.load(Image("https://a.example/1.png", 20, 10), view=(10, 5))
    events = listen(fresco)
    assert events[0][1]["viewport"] == {"width": 10, "height": 5}
    fresco.load(Image("https://a.example/2.png", 1, 1))
    assert "viewport" not in events[1][1]

    memory = fresco.call("listImages", {"showDiskImages": True})["levels"][1]
    assert (memory["sizeBytes"], memory["imageIds"], memory["clearKey"]) == (804, ["1", "2"], "memory")
    image = fresco.call("getImage", {"imageId": identifier})
    head, _, data = image["data"].partition(",")
    assert (image["uri"], head) == ("https://a.example/1.png", "data:image/png;base64")
    assert base64.b64decode(data).startswith(b"\x89PNG")

    assert len(fresco.call("getAllImageEventsInfo", {})["events"]) == 2
    assert fresco.call("getAllImageEventsInfo", {}) == {"events": []}
    assert fresco.call("clear", {"type": "memory"}) is NO_REPLY
    with pytest.raises(ReceiverError) as caught:
        fresco.call("getImage", {"imageId": identifier})
    assert caught.value.error == {"reason": "ImageId 1 was evicted from cache"}


def test_leaks_and_the_overlay_are_told_by_events() -> None:
    fresco = Fresco()
    events = listen(fresco)
    fresco.leak("CloseableReference", "at a.B.c")
    assert fresco.call("enableDebugOverlay", {"enabled": True}) is NO_REPLY
    assert [name for name, _ in events] == ["closeable_reference_leak_event", "debug_overlay_event"]


def test_nothing_is_answered_before_the_library_is_ready() -> None:
    fresco = Fresco(ready=False)
    assert {fresco.call(name, {}) for name in fresco.receivers()} == {NO_REPLY}
