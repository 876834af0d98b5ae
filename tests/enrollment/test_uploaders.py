"""Uploaders: the one for HTTP against a real server, and what none of them may be told."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import attrs
import pytest

from rsocket_broker.enrollment.uploaders import (
    TIMEOUT_S,
    HttpUploader,
    PickupUploader,
    Uploader,
    UploadFailed,
    load_uploader,
)
from rsocket_broker.errors import ConfigurationError


@attrs.define
class Service:
    """What the operator's service has been sent, and what it answers."""

    url: str = ""
    status: int = 201
    seen: list[tuple[str, str, str | None, bytes]] = attrs.field(factory=list)


@pytest.fixture
def service() -> Iterator[Service]:
    told = Service()

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            told.seen.append((self.command, self.path, self.headers["X-Token"], body))
            self.send_response(told.status)
            self.send_header("Location", "/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def do_POST(self) -> None:
            self.do_PUT()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Quiet."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    told.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield told
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.row("F-18", "F-35")
async def test_a_service_gets_the_bundle_with_the_token_of_the_file(service: Service, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.touch(0o600)
    token.write_text("Bearer secret-1\n")
    settings = {"url": f"{service.url}/b/{{device_id}}?x=1", "method": "POST", "header": "X-Token"}
    uploader = load_uploader({"uploader": "http", **settings, "token_file": str(token)})
    await uploader.upload("upload-1", b"bundle")
    token.write_text("Bearer secret-2\n")
    await uploader.upload("upload-2", b"another")
    assert service.seen == [
        ("POST", "/b/upload-1?x=1", "Bearer secret-1", b"bundle"),
        ("POST", "/b/upload-2?x=1", "Bearer secret-2", b"another"),
    ]
    assert "secret" not in repr(uploader)


@pytest.mark.parametrize("status", [300, 302, 404, 500])
async def test_what_a_service_does_not_take_was_not_uploaded(service: Service, status: int) -> None:
    service.status = status
    uploader = HttpUploader({"url": f"{service.url}/{{device_id}}"})
    with pytest.raises(UploadFailed, match=f"status {status}"):
        await uploader.upload("upload-1", b"bundle")
    assert len(service.seen) == 1, "no redirect is followed"
    with pytest.raises(UploadFailed, match="does not fit"):
        await uploader.upload("../x", b"bundle")


async def test_a_service_that_is_not_there_is_named() -> None:
    with contextlib.closing(HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler).socket) as bound:
        port = bound.getsockname()[1]
    with pytest.raises(UploadFailed, match=r"127\.0\.0\.1 was not reached: ConnectionRefusedError"):
        await HttpUploader({"url": f"http://127.0.0.1:{port}/{{device_id}}"}).upload("upload-1", b"bundle")


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({}, '"uploader" is missing'),
        ({"uploader": 1}, '"uploader" must be a string'),
        ({"uploader": "ftp"}, "pickup, http, or MODULE:CLASS"),
        ({"uploader": "no.such.module:Thing"}, "cannot be loaded"),
        ({"uploader": "pathlib:Path"}, "not a subclass of Uploader"),
        ({"uploader": "pickup", "url": "x"}, 'unknown key "url"'),
        ({"uploader": "http"}, '"url" is missing'),
        ({"uploader": "http", "url": "https://h/x"}, "device_id"),
        ({"uploader": "http", "url": "https://{device_id}/x"}, "device_id"),
        ({"uploader": "http", "url": "http://h.example/{device_id}"}, "must begin with https://"),
        ({"uploader": "http", "url": "file:///{device_id}"}, "https://HOST"),
        ({"uploader": "http", "url": "https://me:pw@h/{device_id}"}, "token_file"),
        ({"uploader": "http", "url": "https://h:x/{device_id}"}, "no address"),
        ({"uploader": "http", "url": "https://h/{device_id}\r\nX: y"}, "device_id"),
        ({"uploader": "http", "url": "https://h/{device_id}", "method": "DELETE"}, "PUT or POST"),
        ({"uploader": "http", "url": "https://h/{device_id}", "header": "Host"}, '"header"'),
        ({"uploader": "http", "url": "https://h/{device_id}", "header": "A: b"}, '"header"'),
    ],
)
def test_settings_that_make_no_sense_are_named(settings: Mapping[str, object], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        load_uploader(settings)


@pytest.mark.row("A-05")
def test_anybodys_own_uploader_is_taken_by_its_name() -> None:
    assert PickupUploader.keeps_here
    found = load_uploader({"uploader": f"{__name__}:Own", "shelf": "a"})
    assert isinstance(found, Uploader)
    assert found.settings == {"shelf": "a"}


class Own(Uploader):
    async def upload(self, device_id: str, bundle: bytes) -> None:
        """Takes everything."""


async def test_a_service_that_hangs_holds_up_nothing_but_uploads() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=64) as silent:
        uploader = HttpUploader({"url": f"http://127.0.0.1:{silent.getsockname()[1]}/{{device_id}}"})
        sending = [asyncio.create_task(uploader.upload(f"upload-{number}", b"x")) for number in range(40)]
        line, _ = await asyncio.to_thread(silent.accept)
        async with asyncio.timeout(TIMEOUT_S - 5):  # they give up later
            assert await asyncio.to_thread(lambda: "signed") == "signed"
        line.close()
        for task in sending[2:]:
            task.cancel()
    for task in sending[:2]:
        with pytest.raises(UploadFailed):
            await task
