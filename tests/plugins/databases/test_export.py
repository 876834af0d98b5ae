"""Rows as text."""

import csv
import io
import json
from typing import Any

import pytest

from rsocket_broker.plugins.databases.export import FORMATS, Writer

COLUMNS = ["a", "b,c"]
PAGES: list[Any] = [[[1, "x"], [None, ""]], [[{"hex": "00FF"}, 'say "hi"\n']], [[0.5, True], [{"text": "t"}, " b "]]]


def written(kind: str, pages: list[Any]) -> str:
    writer = Writer(kind, COLUMNS)
    return writer.begin() + "".join(map(writer.rows, pages)) + writer.end()


def test_csv_tells_null_from_a_text_without_characters() -> None:
    text = written("csv", PAGES)
    assert text.splitlines()[:3] == ['a,"b,c"', "1,x", ',""']
    assert list(csv.reader(io.StringIO(text, newline=""))) == [
        ["a", "b,c"],
        ["1", "x"],
        ["", ""],
        ["X'00FF'", 'say "hi"\n'],
        ["0.5", "true"],
        ["t", " b "],
    ]


@pytest.mark.parametrize("pages", [PAGES, [], [[]], [[], PAGES[0]], [PAGES[0], []]])
def test_json_is_whole_however_the_pages_come(pages: list[Any]) -> None:
    rows = [dict(zip(COLUMNS, row, strict=True)) for page in pages for row in page]
    assert json.loads(written("json", pages)) == rows
    assert [json.loads(line) for line in written("jsonl", pages).splitlines()] == rows
    assert set(FORMATS) == {"csv", "json", "jsonl"}
