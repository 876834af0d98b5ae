"""JSON into Python by annotation."""

import dataclasses
import enum
import typing
from typing import Any, Literal, Optional

import attrs
import pytest

from rsocket_broker.plugin_api.parameters import Mismatch, UnknownAnnotation, checker, fields_checker


class Colour(enum.Enum):
    RED = "red"
    ONE = 1


@attrs.frozen
class Point:
    x: int
    y: float = 0.0


@attrs.frozen
class Shape:
    name: str
    points: list[Point] = attrs.field(factory=list)
    fill: Colour | None = attrs.field(default=None, alias="fillColour")


@attrs.frozen
class Tree:
    value: int
    children: "list[Tree]" = attrs.field(factory=list)


@attrs.frozen
class Even:
    n: int = attrs.field()

    @n.validator
    def _check(self, attribute: Any, value: int) -> None:
        if value % 2:
            raise ValueError("secret reason")


GOOD = [
    (Any, {"a": [1]}, {"a": [1]}),
    (int, 1, 1),
    (float, 1, 1.0),
    (float, 1.5, 1.5),
    (str, "", ""),
    (bool, False, False),
    (None, None, None),
    (list, [1, "a"], [1, "a"]),
    (dict, {}, {}),
    (list[int], [1, 2], [1, 2]),
    (tuple[int, ...], [1, 2], (1, 2)),
    (dict[str, int], {"a": 1}, {"a": 1}),
    (int | None, None, None),
    (Optional[str], "x", "x"),  # noqa: UP045 - the old spelling works too
    (int | str, "x", "x"),
    (Literal["a", 1], 1, 1),
    (Colour, "red", Colour.RED),
    (Point, {"x": 1, "y": 2}, Point(1, 2.0)),
    (Point, {"x": 1, "z": "ignored"}, Point(1)),
    (Shape, {"name": "s", "points": [{"x": 1}], "fillColour": "red"}, Shape("s", [Point(1)], Colour.RED)),
    (Tree, {"value": 1, "children": [{"value": 2}]}, Tree(1, [Tree(2)])),
    (Even, {"n": 2}, Even(2)),
]

BAD = [
    (int, True, "the parameters: wanted int, got bool"),
    (int, 1.0, "the parameters: wanted int, got float"),
    (bool, 1, "the parameters: wanted bool, got int"),
    (float, "1", "the parameters: wanted float, got str"),
    (str, None, "the parameters: wanted str, got None"),
    (None, 0, "the parameters: wanted None, got int"),
    (list[int], [1, "a"], "[1]: wanted int, got str"),
    (list[int], {}, "the parameters: wanted list[int], got dict"),
    (dict[str, int], {"a": None}, "a: wanted int, got None"),
    (int | None, "x", "the parameters: wanted int | None, got str"),
    (Literal["a", 1], True, "the parameters: wanted one of 'a', 1, got bool"),
    (Colour, "blue", "the parameters: wanted one of 'red', 1, got str"),
    (Point, {}, "x: wanted int, got nothing"),
    (Point, [], "the parameters: wanted Point, got list"),
    (Shape, {"name": "s", "points": [{"x": 1}, {"x": "1"}]}, "points[1].x: wanted int, got str"),
    (Point | None, {"x": "1"}, "x: wanted int, got str"),
    (Tree, {"value": 1, "children": [{}]}, "children[0].value: wanted int, got nothing"),
    (Even, {"n": 1}, "the parameters: wanted a value that Even accepts, got one that it refuses"),
]


@pytest.mark.parametrize(("annotation", "value", "expected"), GOOD)
def test_a_value_that_fits(annotation: Any, value: object, expected: object) -> None:
    result = checker(annotation)(value)
    assert result == expected
    assert type(result) is type(expected)


@pytest.mark.row("M-7")
@pytest.mark.parametrize(("annotation", "value", "text"), BAD)
def test_a_value_that_does_not_fit_is_named_with_what_was_wanted_and_got(
    annotation: Any, value: object, text: str
) -> None:
    with pytest.raises(Mismatch) as caught:
        checker(annotation)(value)
    assert str(caught.value) == text


@pytest.mark.parametrize("annotation", [bytes, set, set[int], dict[int, str], tuple[int, str], complex, list[bytes]])
def test_an_annotation_that_json_has_no_type_for_is_refused_at_load(annotation: Any) -> None:
    with pytest.raises(UnknownAnnotation, match="stands for no JSON type"):
        checker(annotation)


def test_fields_left_out_keep_their_defaults_and_unknown_ones_are_let_go() -> None:
    check = fields_checker({"a": (int, True), "b": (str, False)})
    assert check({"a": 1, "c": 2}) == {"a": 1}
    with pytest.raises(Mismatch, match="b: wanted str, got int"):
        check({"a": 1, "b": 2})
    with pytest.raises(Mismatch, match="a: wanted int, got nothing"):
        check({})


def test_a_strict_check_refuses_an_unknown_key_and_offers_the_nearest() -> None:
    with pytest.raises(Mismatch) as caught:
        checker(Point, strict=True)({"x": 1, "yy": 2})
    assert str(caught.value) == "yy: wanted one of x, y, got an unknown key (did you mean y?)"


def test_a_message_holds_no_value_and_no_control_character() -> None:
    with pytest.raises(Mismatch) as caught:
        checker(dict[str, int])({"\x1b[31m" + "k" * 200: "hunter2"})
    text = str(caught.value)
    assert "hunter2" not in text
    assert text.isprintable()
    assert len(text) < 150


@dataclasses.dataclass
class Spot:
    x: int
    y: int = 2


class Named(typing.TypedDict):
    spot: Spot
    label: typing.NotRequired[str]


def test_dataclasses_and_typed_dicts_are_objects() -> None:
    check = checker(Named)
    assert check({"spot": {"x": 1}, "label": "a", "more": 1}) == {"spot": Spot(1, 2), "label": "a"}
    for value, path in (({}, "spot"), ({"spot": {}}, "spot.x"), ({"spot": {"x": "1"}}, "spot.x")):
        with pytest.raises(Mismatch) as mismatch:
            check(value)
        assert mismatch.value.path == path
    with pytest.raises(Mismatch):
        check([])
