"""Names and fields from configs: lookup and errors."""

import functools
from collections.abc import Mapping, Sequence
from typing import Literal

import pytest

from cnn_jax import names
from cnn_jax.names import ConfigError


def circle(radius: float, fill: bool = False, sides: Sequence[int] = ()) -> str:
    return f"{radius} {fill} {tuple(sides)}"


TABLE = {"circle": circle, "unit": functools.partial(circle, radius=1.0)}


def test_a_section_is_a_call():
    assert (
        names.build("shape", {"name": "circle", "radius": 2}, TABLE) == "2.0 False ()"
    )
    assert names.build("shape", {"name": "unit", "fill": True}, TABLE) == "1.0 True ()"


def test_supplied_arguments_are_added_where_they_are_taken():
    built = names.build("shape", {"name": "circle"}, TABLE, radius=3.0, other=1)
    assert built == "3.0 False ()"


def test_an_attribute_of_a_module_is_a_name():
    assert names.resolve("shape", "math:sqrt", {})(4) == 2
    assert names.resolve("shape", "os:path.join", {})("a", "b") == "a/b"


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({}, "shape needs a 'name'; choices: circle, unit"),
        ({"name": "circel"}, r"unknown shape 'circel' \(did you mean 'circle'\?\)"),
        ({"name": 3}, "shape must be a name"),
        ({"name": "nowhere.mine:x"}, "cannot import module 'nowhere.mine'"),
        ({"name": "math:tua"}, r"did you mean 'tau'"),
        ({"name": "math:tau"}, "must be a function or class, got float"),
        ({"name": ":x"}, "importing '' fails: ValueError: Empty module name"),
        ({"name": ".mine:x"}, "importing '.mine' fails: TypeError"),
        ({"name": "builtins:dict"}, "expected a function or class written in Python"),
        ({"name": "circle"}, "shape 'circle' needs the field 'radius'"),
        ({"name": "circle", "radios": 1}, r"did you mean 'radius'.*choices: fill"),
        ({"name": "circle", "radius": "1"}, r"radius must be float, got '1' \(str\)"),
        ({"name": "circle", "radius": True}, "radius must be float, got True"),
        ({"name": "unit", "fill": 1}, r"fill must be bool, got 1 \(int\)"),
        ({"name": "unit", "sides": (1, "2")}, "sides must be"),
    ],
)
def test_what_cannot_be_is_refused_with_the_choices(section, message):
    with pytest.raises(ConfigError, match=message) as error:
        names.build("shape", section, TABLE)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("value", "annotation", "fits"),
    [
        (1, float, True),
        (1.0, int, False),
        (True, int, False),
        ("a", Literal["a", "b"], True),
        ("c", Literal["a", "b"], False),
        (2, Literal[1, 2], True),
        (2.0, Literal[1, 2], False),
        (True, Literal[1, 2], False),
        ([1, 2], tuple[int, ...], True),
        ((1, 2.5), tuple[int, ...], False),
        ((), tuple[int, ...], True),
        ((1, 2), Sequence[int], True),
        ([1, "2"], Sequence[int], False),
        ((1, 2), tuple[int, int], True),
        ((1,), tuple[int, int], False),
        ((1, 2, 3), tuple[int, int], False),
        ((1, "2"), tuple, True),
        ({"a": 1}, Mapping[str, int], True),
        ("a", Mapping[str, int], False),
        (None, int | None, True),
        ("x", int | None, False),
        (object(), object, True),
    ],
)
def test_types_that_a_config_can_express(value, annotation, fits):
    assert names.has_type(value, annotation) is fits


@pytest.mark.parametrize(
    ("value", "annotation", "typed"),
    [
        (2, float, 2.0),
        (2, int | float, 2),
        (None, float | None, None),
        ((1, 0.1), Sequence[float], (1.0, 0.1)),
        ([3, 4], tuple[int, float], [3, 4.0]),
        ((1, 2), Sequence[int], (1, 2)),
    ],
)
def test_ints_become_floats_where_floats_are_expected(value, annotation, typed):
    assert repr(names.as_type(value, annotation)) == repr(typed)


def test_an_int_beyond_all_floats_is_refused():
    with pytest.raises(names.ConfigError, match="radius must be float"):
        names.build("shape", {"name": "circle", "radius": 10**400}, TABLE)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("def (", r"\(.*breaks.*\): SyntaxError|: SyntaxError"),
        ("x = 1\nraise ValueError('a\\nb')", r"line 2\): ValueError: a b"),
        ("import sys; sys.exit(3)", r"line 1\): SystemExit: 3"),
    ],
)
def test_a_module_that_cannot_be_imported_is_a_line(
    code, message, tmp_path, monkeypatch
):
    name = f"breaks{len(code)}"
    (tmp_path / f"{name}.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=message) as error:
        names.resolve("shape", f"{name}:x", {})
    assert "\n" not in str(error.value)
