"""Requests as commands."""

import gzip
import shlex
import subprocess
from typing import Any

import pytest

from rsocket_broker.plugin_api import Invalid
from rsocket_broker.plugins.network import messages
from rsocket_broker.plugins.network.curl import MAX_BODY, command
from tests.plugins.network.shapes import asked, base64_lines, pairs


def made(*, secrets: bool = False, **more: Any) -> str:
    return command(messages.request(asked(**more)), secrets=secrets)


def test_a_get_is_its_address() -> None:
    assert made(url="https://h/a?b=[1]&c='d'") == "curl --globoff --url 'https://h/a?b=[1]&c='\"'\"'d'\"'\"''"


def test_headers_and_method_go_out_as_they_were_and_what_curl_makes_itself_does_not() -> None:
    headers = pairs(Accept="*/*", Content_Length="9", Accept_Encoding="gzip", Empty="", Host="h")
    words = shlex.split(made(method="PUT", headers=headers, data=base64_lines(b"@file")))
    assert words == [
        *["curl", "--globoff", "--compressed", "--request", "PUT", "--header", "Accept: */*", "--header", "Empty;"],
        *["--data-raw", "@file", "--url", "https://api.example.org/v1/cart"],
    ]
    assert "--head" in made(method="HEAD")
    assert "--request" not in made(method="POST", data="YQ==")
    assert "--request GET" in made(method="GET", data="YQ==")


def test_secrets_are_left_out_unless_they_are_asked_for() -> None:
    headers = pairs(Authorization="Bearer b", Content_Type="application/json")
    about = {"url": "https://h/?token=t", "headers": headers, "data": base64_lines(b'{"password": "p"}')}
    hidden, whole = made(**about), made(secrets=True, **about)
    for secret in ("Bearer b", "token=t", '"p"'):
        assert secret not in hidden
        assert secret in whole


def test_nothing_in_a_message_becomes_another_word_or_header() -> None:
    nasty = "x\r\nEvil: 1\x1b[2J"
    words = shlex.split(made(url=f"--config {nasty}; rm -rf $HOME `id`", headers=pairs(A=nasty)))
    assert words[:4] == ["curl", "--globoff", "--header", "A: x  Evil: 1 [2J"]
    assert words[4:] == ["--url", "--config x  Evil: 1 [2J; rm -rf $HOME `id`"]


def test_bytes_go_through_a_pipe() -> None:
    line = made(method="POST", data=base64_lines(b"\xff\x00\n"))
    assert "--data-binary @-" in line
    before = line.partition(" | curl ")[0]
    assert subprocess.run(["sh", "-c", before], capture_output=True, check=True).stdout == b"\xff\x00\n"


def test_a_body_is_sent_without_its_compression() -> None:
    headers = pairs(Content_Encoding="gzip")
    assert "--data-raw hello" in made(headers=headers, data=base64_lines(gzip.compress(b"hello")))


def test_a_body_that_fits_no_command_is_refused() -> None:
    with pytest.raises(Invalid, match="export a HAR"):
        made(data=base64_lines(bytes(MAX_BODY + 1)))


def test_nothing_in_a_message_makes_curl_read_a_file() -> None:
    words = shlex.split(made(url="@/etc/passwd", headers=[{"key": "@/etc/passwd", "value": ""}]))
    assert words == ["curl", "--globoff", "--url", "http://@/etc/passwd"]
