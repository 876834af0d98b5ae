"""What Fresco tells, read; what an image is, by its bytes."""

import base64
from typing import Any

import pytest

from rsocket_broker.plugin_api import ApplicationError, Invalid
from rsocket_broker.plugins.images.pictures import kind, leaked, levels, load, picture

LEVELS = {
    "levels": [
        {"cacheType": "On screen bitmaps", "sizeBytes": 1000, "imageIds": ["1", "2"]},
        {"cacheType": "Bitmap memory cache", "sizeBytes": 50, "imageIds": [], "maxSizeBytes": 99, "clearKey": "memory"},
    ]
}
WEBP = b"RIFF\x10\x00\x00\x00WEBPVP8 "


def answer(data: bytes = WEBP, claimed: str = "image/jpeg") -> dict[str, Any]:
    coded = base64.encodebytes(data).decode()
    about = {"imageId": "1", "uri": "https://x.example/a", "width": 10, "height": 20, "sizeBytes": 30}
    return {**about, "data": f"data:{claimed};base64,{coded}"}


def test_the_caches_of_an_app_are_read() -> None:
    first, second = levels(LEVELS)
    assert first == ("On screen bitmaps", 1000, None, "", ("1", "2"))
    assert second == ("Bitmap memory cache", 50, 99, "memory", ())
    assert levels({}) == []


def test_an_image_is_what_its_bytes_are() -> None:
    found = picture(answer())
    assert (found.kind, found.data, found.width, found.size) == ("image/webp", WEBP, 10, 30)


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"\x89PNG\r\n\x1a\nx", "image/png"),
        (b"\xff\xd8\xff\xe0", "image/jpeg"),
        (b"GIF89a", "image/gif"),
        (b"\0\0\0\x1cftypavif", "image/avif"),
        (b"\0\0\0\x1cftypheic", "image/heic"),
        (b"BM....", "image/bmp"),
        (b"", "application/octet-stream"),
        (b"<svg>", "application/octet-stream"),
    ],
)
def test_a_format_is_known_by_its_first_bytes(data: bytes, name: str) -> None:
    assert kind(data) == name


def test_a_load_with_and_without_a_viewport() -> None:
    event = {"imageIds": ["1"], "attribution": ["Feed"], "startTime": 5, "endTime": 9, "source": "network"}
    assert load(event) == (("1",), ("Feed",), 5, 9, "network", None)
    assert load({**event, "viewport": {"width": 100, "height": 50}}).viewport == (100, 50)
    assert load({}).images == ()
    assert leaked({"identityHashCode": 7, "className": "X", "stacktrace": "at a"}, 3.0) == (3.0, "X", "at a")


@pytest.mark.row("M-7")
@pytest.mark.parametrize(
    "value",
    [[], "x", {"levels": 7}, {"levels": [7]}, {"levels": [{"imageIds": [{}]}]}, {"levels": [{"sizeBytes": "x"}]}],
)
def test_answers_that_make_no_sense_are_the_apps_fault(value: object) -> None:
    with pytest.raises(ApplicationError, match="answer to listImages makes no sense"):
        levels(value)


@pytest.mark.row("M-7")
@pytest.mark.parametrize(
    "value",
    [
        None,
        {},
        {**answer(), "data": "x"},
        {**answer(), "data": "data:image/png;base64,a"},
        {**answer(), "imageId": None},
    ],
)
def test_pictures_that_make_no_sense_are_the_apps_fault(value: object) -> None:
    with pytest.raises(ApplicationError, match="answer to getImage makes no sense"):
        picture(value)


@pytest.mark.row("M-7")
@pytest.mark.parametrize("event", [{"imageIds": "1"}, {"viewport": []}, {"startTime": "x"}, {"attribution": {}}])
def test_events_that_make_no_sense_are_refused(event: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        load(event)
