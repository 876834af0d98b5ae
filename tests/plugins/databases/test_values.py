"""Values of an app's databases, in Python's types."""

from typing import Any

import pytest

from rsocket_broker.plugin_api import ApplicationError
from rsocket_broker.plugins.databases import values
from rsocket_broker.plugins.databases.values import Database, databases, named, rows, value, whole_number


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({"type": "null"}, None),
        ({"type": "string"}, None),
        ({"type": "integer", "value": -(2**63)}, -(2**63)),
        ({"type": "integer", "value": "9223372036854775807"}, 2**63 - 1),
        ({"type": "integer", "value": 5.0}, 5),
        ({"type": "integer", "value": 5.5}, 5.5),
        ({"type": "integer", "value": True}, 1),
        ({"type": "float", "value": 5}, 5.0),
        ({"type": "double", "value": "0.5"}, 0.5),
        ({"type": "number", "value": 7}, 7),
        ({"type": "string", "value": ""}, ""),
        ({"type": "string", "value": 5}, "5"),
        ({"type": "boolean", "value": 0}, False),
        ({"type": "boolean", "value": "true"}, True),
        ({"type": "blob", "value": "\x00\x01"}, {"text": "\x00\x01"}),
        ("bare", "bare"),
        (None, None),
    ],
)
def test_a_value_has_a_type_of_python(given: object, found: object) -> None:
    got = value(given)
    assert got == found
    assert type(got) is type(found)


@pytest.mark.parametrize(
    "given",
    [
        [],
        {"type": "integer", "value": "five"},
        {"type": "integer", "value": []},
        {"type": "float", "value": {}},
        {"type": "float", "value": "inf"},
        {"type": "double", "value": "nan"},
        {"type": "number", "value": "-Infinity"},
        {"type": "double", "value": 10**400},
        {"type": "boolean", "value": "maybe"},
        {"type": "string", "value": {}},
        {"type": "date", "value": 1},
        {"value": 1},
    ],
)
def test_a_value_that_makes_no_sense_is_an_error_of_the_apps(given: object) -> None:
    with pytest.raises(ApplicationError, match="none that is understood"):
        value(given)


def test_databases_have_numbers_or_texts_for_ids() -> None:
    android = [{"id": 1, "name": "app.db", "tables": ["a", "b"]}]
    ios = [{"id": "1", "name": "app.db", "tables": ["a", "b"]}]
    assert databases(android) == [Database(1, "app.db", ("a", "b"))]
    assert databases(ios) == [Database("1", "app.db", ("a", "b"))]
    assert databases(ios)[0].shown() == {"id": "1", "name": "app.db", "tables": ["a", "b"]}
    assert databases([{"id": 1, "name": "x"}])[0].tables == ()


@pytest.mark.parametrize(
    "answer", [{}, None, [5], [{"id": True, "name": "x"}], [{"id": 1}], [{"id": 1, "name": "x", "tables": "a"}]]
)
def test_a_list_that_makes_no_sense_is_an_error_of_the_apps(answer: object) -> None:
    with pytest.raises(ApplicationError, match="none that is understood"):
        databases(answer)


def test_a_list_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(values, "MAX_DATABASES", 1)
    with pytest.raises(ApplicationError, match="more than 1"):
        databases([{"id": 1, "name": "x"}] * 2)


def test_rows_are_as_wide_as_their_columns() -> None:
    assert rows(["a"], [[{"type": "integer", "value": 1}]]) == (["a"], [[1]])
    assert rows(None, None) == ([], [])
    wrong: list[tuple[Any, Any]] = [(["a"], [[]]), ("a", []), (["a"], {}), (["a"], [5])]
    for columns, found in wrong:
        with pytest.raises(ApplicationError, match="none that is understood"):
            rows(columns, found)
    assert rows([], [], 2) == ([], [])
    with pytest.raises(ApplicationError, match="1 columns, where 2 were asked for"):
        rows(["a"], [[1]], 2)
    assert named(["a", "b"], [[1, 2]]) == [{"a": 1, "b": 2}]


def test_counts_are_read_as_they_come() -> None:
    assert [whole_number(given) for given in (5, "5", "-1", None, True, "x", 0.5)] == [5, 5, -1, None, None, None, None]
    assert [whole_number(given) for given in ("--5", "5-", "-", "", "9" * 5000)] == [None] * 5
