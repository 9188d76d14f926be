"""Random run configs: any field of any section, valid or invalid.

The choices come from the package's own tables and signatures, so that new networks,
losses and fields are included automatically.
"""

import inspect
import typing
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

from cnn_jax import models, names
from cnn_jax.data.string_source import load as digit_strings
from cnn_jax.training import config as run_config
from cnn_jax.training.config import SUPPLIED, TABLES
from tests import tiny

LINES = {
    "name": "digit_strings",
    "digits": {"name": "tests.tiny:noise", "size": 40},
    "num_lines": 10,
    "min_length": 1,
    "max_length": 2,
    "glyph_height": 12,
}
IMAGES = {"name": "tests.tiny:noise", "size": 40}
# Fields that make each network small, the side of its images, and its data.
SMALL = {
    "lenet5": ({}, 32, IMAGES),
    "alexnet": ({"widths": (4, 4, 4, 4, 4), "hidden": (8,)}, 16, IMAGES),
    "vgg": ({"widths": (2, 2, 2, 2, 2), "hidden": (4,)}, 32, IMAGES),
    "nin": ({"width": 0.02}, 16, IMAGES),
    "cifar": ({"depth": 8, "widths": (2, 2, 2)}, 0, IMAGES),
    "gtn": ({"recognizer": "lenet5_modern", "cuts": 4, "average": 4}, 0, LINES),
    "sdnn": ({"recognizer": "lenet5_modern"}, 0, LINES),
}
# A valid choice for each field without a default.
NEEDED = {
    "j": 1.0,
    "rate": 0.1,
    "rates": (0.1,),
    "steps": 4,
}
# Integers and floats that no user would choose, inside and outside their type's range.
HUGE = (2**31 - 1, -(2**31), 2**31, 2**64, 10**5000, 1000003)
EXTREME = (3e38, 1e39, -1e300, 1e-320, float("inf"), float("nan"))
INTEGERS = (-1, 0, 1, 2, 3, 4, 8, 9, 14, 16, 20, *HUGE)
FLOATS = (-1.0, 0.0, 1e-3, 0.1, 0.5, 0.9, 1.0, 2.0, *EXTREME, 2**1024)
WORDS = (
    *("basic", "bottleneck", "lenet5", "lenet5_modern", "nonsense"),
    *("tests.study.test_study:Scaled", "json:dumps", "nowhere:nothing", ""),
    *(":", "json:", ":dumps", ".json:dumps", "math:pi", "builtins:dict", "a\0b:c"),
)


def nested(levels: int) -> Any:
    """A value nested ``levels`` deep."""
    value: Any = 1
    for level in range(levels):
        value = {"name": value} if level % 2 else (value,)
    return value


WRONG = (
    *("x", None, (), {}, [1.5], True, -7.5, b"x", {1: 2}, {"name": {}}, set(), 1j),
    *(nested(3), nested(50), nested(600), *HUGE, *EXTREME),
)
SEEDS = (0, 1, -1, 2**31, 2**32 + 1, 2**63, 2**70)
SCALARS = {
    "seed": st.sampled_from(SEEDS),
    "batch_size": st.sampled_from((-8, 0, 1, 4, 12, 16, 24, 64, *HUGE)),
    "eval_batch_size": st.sampled_from((-8, 0, 1, 8, 12, 16, 64, *HUGE)),
    **{
        key: st.sampled_from((-1, 0, 1, 2, 5, *HUGE))
        for key in ("steps", "log_every", "eval_every", "checkpoint_every")
    },
    "steps_per_execution": st.sampled_from((-1, 0, 1, 2, *HUGE)),
}


def small_model(name: str) -> tuple[dict[str, Any], int, dict[str, Any]]:
    """A section of a small network, the side of its images, and its data."""
    prefix = next((key for key in SMALL if name.startswith(key)), "")
    if prefix:
        fields, side, dataset = SMALL[prefix]
    else:  # an ImageNet layout, with one block per stage
        block = models.TABLE[name].keywords["block"]
        depth = 10 if block == "basic" else 14
        fields = {"depth": depth, "widths": (2, 2, 2, 2), "stage_sizes": (1, 1, 1, 1)}
        side, dataset = 0, IMAGES
    if prefix == "alexnet":
        fields = {**fields, "image_size": side, "stem": (3, 1, 1)}
    if prefix == "vgg":
        fields = {**fields, "image_size": side}
    return {"name": name, **fields}, side, dataset


def of_type(annotation: Any) -> st.SearchStrategy[Any]:
    """Values for a field with that annotation, some of them out of range."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return st.sampled_from((*inner, "nonsense"))
    if origin in (tuple, Sequence):
        return st.lists(of_type(inner[0]), max_size=5).map(tuple)
    plain = {bool: (False, True), int: INTEGERS, float: FLOATS, str: WORDS}
    return st.sampled_from(plain.get(annotation, WRONG))


def fields_of(section: str, name: str) -> dict[str, Any]:
    """The fields of the component that a section names, with their annotations."""
    if section == "dataset":
        target, given = digit_strings, ("digits", "num_lines")
    else:
        target, given = TABLES[section][name], SUPPLIED.get(section, ())
    hints = names.annotations(target)
    return {
        key: hints.get(key, parameter.annotation)
        for key, parameter in names.parameters(target).items()
        if key not in given
    }


def section(kind: str, name: str) -> dict[str, Any]:
    """A valid section for that component."""
    target, given = TABLES[kind][name], SUPPLIED.get(kind, ())
    needed = [
        key
        for key, parameter in names.parameters(target).items()
        if parameter.default is inspect.Parameter.empty and key not in given
    ]
    return {"name": name, **{key: NEEDED[key] for key in needed}}


@st.composite
def configs(draw: st.DrawFn) -> dict[str, Any]:
    """A valid config, with up to three changes that may make it invalid."""
    name = draw(st.sampled_from(sorted(models.TABLE)))
    model, side, dataset = small_model(name)
    config = tiny.config()
    config |= {"model": model, "dataset": dict(dataset), "steps": 4}
    config["preprocess"] = {"name": "standardize", "size": side}
    if dataset is LINES:
        config["preprocess"] = {"name": "interval"}
        config["loss"] = {"name": "strings"}
    for kind in draw(
        st.sets(st.sampled_from(sorted({*TABLES} - {"model"})), max_size=2)
    ):
        chosen = section(kind, draw(st.sampled_from(sorted(TABLES[kind]))))
        if kind == "preprocess" and side:
            chosen["size"] = side
        config[kind] = chosen
    config["steps_per_execution"] = draw(st.sampled_from((1, 1, 2)))
    config["parallel"] |= {
        "mode": draw(st.sampled_from(("pmap", "shard_map"))),
        "devices": draw(st.sampled_from((1, 1, 1, 2, 0))),
        "bn_group_size": draw(st.sampled_from((0, 0, 2, 8, 16))),
    }
    for _ in range(draw(st.integers(0, 3))):
        change(draw, config)
    return config


def change(draw: st.DrawFn, config: dict[str, Any]) -> None:
    """Change one field of a config, in place."""
    place = draw(
        st.sampled_from((*TABLES, "model", "dataset", "warmup", "parallel", ""))
    )
    if place == "":
        key = draw(st.sampled_from(sorted(run_config.KEYS)))
        wrong = st.sampled_from(WRONG)
        config[key] = draw(SCALARS.get(key, wrong) | wrong)
        return
    section = config.get(place)
    if not isinstance(section, dict) or not isinstance(section.get("name", ""), str):
        return
    if place == "warmup":
        fields = {"rate": float, "until_train_error": float}
    elif place == "parallel":
        # not the hosts: a config with other hosts waits for them
        fields = {
            **{"mode": str, "devices": int, "bn_group_size": int},
            "host_timeout": int,
        }
    elif place == "dataset" and config[place]["name"] != "digit_strings":
        return
    else:
        fields = fields_of(place, config[place]["name"])
    if not fields:
        config[place]["nonsense"] = 1
        return
    key = draw(st.sampled_from(sorted(fields)))
    values = of_type(fields[key])
    config[place][key] = draw(st.one_of(values, values, values, st.sampled_from(WRONG)))


@st.composite
def damaged(draw: st.DrawFn) -> dict[str, Any]:
    """A config with a random value in place of any field or section."""
    config = draw(configs())
    place: Any = config
    while True:
        key = draw(st.sampled_from(sorted(place)))
        inner = place[key]
        if not isinstance(inner, dict) or not inner or draw(st.booleans()):
            break
        place = inner
    place[key] = draw(st.sampled_from((*WRONG, *WORDS)))
    return config
