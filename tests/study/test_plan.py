"""The plan of a study: its runs, or a one-line error."""

import copy

import hypothesis
import pytest
from hypothesis import strategies as st

from cnn_jax import study
from cnn_jax.names import ConfigError
from cnn_jax.study import plan
from tests import tiny
from tests.study.test_study import config


def refused(changed, match=""):
    with pytest.raises(ConfigError, match=match) as error:
        study.expand(changed)
    assert str(error.value)
    assert "\n" not in str(error.value)


SECTION = r"must be a section, got"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"families": "ab"}, rf"config.families {SECTION} 'ab' \(str\)"),
        ({"families": ["plain"]}, rf"config.families {SECTION}"),
        ({"families": {"a": 5}}, rf"config.families.a {SECTION} 5 \(int\)"),
        ({"families": {"a": {"model": 5}}}, r"config.model must be a section, got 5"),
        ({"families": {5: {}}}, "keys must be strings, got 5"),
        ({"families": {"a": {"x": {}}}}, "unknown key of config 'x'"),
        ({"overrides": []}, rf"config.overrides {SECTION} \[\]"),
        ({"overrides": {"depth8": 5}}, rf"config.overrides.depth8 {SECTION} 5"),
        ({"overrides": {"depth": {}}}, "unknown key of config.overrides 'depth'"),
        ({"overrides": {"depth²": {}}}, "unknown key of config.overrides 'depth²'"),
        ({"overrides": {8: {}}}, "keys must be strings, got 8"),
        ({"overrides": {"depth08": {}}}, "unknown key of config.overrides 'depth08'"),
        ({"overrides": {"depth600002": {}}}, "at most 100,000, got 600002"),
        ({"overrides": {"depth" + "9" * 5000: {}}}, "unknown key of config.overrides"),
        ({"run": None}, rf"config.run {SECTION} None"),
        ({"run": 7.5}, rf"config.run {SECTION} 7.5"),
        ({"run": {"model": 5}}, rf"config.run.model {SECTION} 5"),
        ({"name": 5}, "config.name must be a valid folder name"),
        ({"depths": 8}, "config.depths must be integers, got 8"),
        ({"depths": (True,)}, "config.depths must be integers"),
        ({"depths": (6 * 2**40 + 2,)}, "must be at most .* got 6597069766658"),
        ({"depths": (-4,)}, "depth -4"),
        ({"seeds": (-1,)}, "seed must not be negative, got -1"),
        ({"seeds": (0, 2**32)}, "seed must be an integer from"),
        ({"seeds": {"a": 1}}, "config.seeds must be integers"),
        ({"run": {"model": {"widths": {1, 2}}}}, "cannot be saved to a file"),
        ({"name": object()}, "cannot be saved to a file"),
    ],
)
def test_a_study_of_the_wrong_form_is_refused(changes, message):
    refused({**config(), **changes}, message)


def test_an_override_may_wait_for_its_depth_if_it_can_be():
    waiting = {"warmup": {"rate": 0.01, "until_train_error": 0.8}}
    overrides = {"depth14": waiting, "depth1202": waiting, "depth15": waiting}
    changed = {**config(), "overrides": overrides}
    assert len(study.expand(changed)) == len(study.expand(config()))
    [(key, reason)] = plan.useless_overrides(changed).items()
    assert key == "depth15"
    assert "15" in reason
    overrides["depth1202"] = {"stesp": 0}
    with pytest.raises(ConfigError, match="unknown key of config 'stesp'"):
        plan.useless_overrides({**config(), "overrides": overrides})


def test_a_study_without_end_is_refused():
    deep = {}
    for _ in range(5000):
        deep = {"a": deep}
    # Python's own limit, or ours where Python's is higher (3.13).
    limit = "recursion depth|more than 32 levels deep"
    refused(config(families={"a": deep}), limit)
    circle = {}
    circle["model"] = circle
    refused({**config(), "families": {"a": circle}}, "Circular reference")


@pytest.mark.parametrize(
    "name", ["a/b", "/", "", ".", "..", ".a", "a\0", "a\nb", "x" * 201, "é" * 101, 5]
)
@pytest.mark.parametrize("how", ["key", "name", "study"])
def test_what_cannot_be_a_folders_name_is_no_name(name, how):
    changed = config()
    if how == "study":
        changed["name"] = name
    elif how == "key":
        changed["families"] = {name: {}}
    else:
        changed["families"] = {"arm": {"name": name}}
    refused(
        changed,
        "keys must be strings" if (how, name) == ("key", 5) else "valid folder name",
    )


def test_an_arm_can_have_a_name_that_is_no_key():
    rates = {
        "slow": {"name": "0.01", "schedule": {"rates": (0.01, 0.001)}},
        "fast": {"name": "0.1"},
    }
    changed = {**config(depths=(8,), seeds=(3,)), "families": rates}
    slow, fast = study.expand(changed)
    assert (slow.name, fast.name) == ("0.01-8-seed3", "0.1-8-seed3")
    assert slow.config["schedule"]["rates"] == (0.01, 0.001)
    assert fast.config == study.merge(
        tiny.config(steps=4, eval_every=2, log_every=2), {"seed": 3}
    )
    rates["fast"]["name"] = "0.01"
    refused(changed, "two families have the same name: 0.01, 0.01")


NUMBERS = (
    *(0, -1, 1, 8, 2**31, 2**32, -(2**63), 2**64, 2**1024, True),
    *(0.0, -0.5, 1e-320, 1e308, float("inf"), float("-inf"), float("nan")),
)
LEAVES = st.sampled_from(NUMBERS) | st.text(max_size=4) | st.none() | st.binary()
KEYS = st.sampled_from(("model", "name", "depth8", "depth", "steps", "a/b", "")) | (
    st.text(max_size=3) | st.integers(0, 9)
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(KEYS, inner, max_size=3)
    ),
    max_leaves=8,
)


HARMLESS = ({}, (8,), (0, 1), 4, 0.5, "x", {"model": {}})


def places(tree):
    """Every section of a config, with an existing or possible key."""
    yield from ((tree, key) for key in (*tree, "depth8", "nonsense"))
    for value in tree.values():
        if isinstance(value, dict):
            yield from places(value)


@st.composite
def drawn(draw):
    """A valid study, with changes at any level that may make it invalid."""
    changed = copy.deepcopy(config(depths=(8,)))
    # a study's sections as often as the more numerous ones of a run
    for _ in range(draw(st.sampled_from((0, 0, 1, 1, 2, 3)))):
        above = draw(st.sampled_from((changed, changed["families"], None)))
        found = [(above, key) for key in above] if above else list(places(changed))
        section, key = draw(st.sampled_from(found))
        if draw(st.integers(0, 9)):
            value = draw(st.sampled_from(HARMLESS) | VALUES)
            section[key] = copy.deepcopy(value)  # changes must not reach the choices
        else:
            section.pop(key, None)
        if not all(isinstance(changed.get(k), dict) for k in ("families", "run")):
            break
    return changed


def try_many(examples):
    outcomes = {"planned": 0, "refused": 0}

    @hypothesis.seed(2015)
    @hypothesis.given(changed=drawn())
    @hypothesis.settings(
        max_examples=examples,
        deadline=None,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
        phases=[hypothesis.Phase.generate],
    )
    def try_one(changed):
        try:
            runs = study.expand(changed)
        except ConfigError as error:
            line, outcome = str(error), "refused"
        else:
            line, outcome = runs[0].name, "planned"
        assert line
        assert "\n" not in line
        outcomes[outcome] += 1

    try_one()
    return outcomes


def test_random_studies_are_planned_or_refused():
    outcomes = try_many(50)
    assert min(outcomes.values()) >= 2


@pytest.mark.slow
def test_many_random_studies_are_planned_or_refused():
    outcomes = try_many(300)
    assert min(outcomes.values()) >= 12
