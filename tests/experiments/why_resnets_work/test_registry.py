"""Third-party analyses, and the errors for invalid configs."""

import sys

import pytest

from cnn_jax.names import ConfigError
from configs import why_resnets_work_digits
from experiments.why_resnets_work import __main__ as command
from experiments.why_resnets_work import registry
from experiments.why_resnets_work.registry import ANALYSES

# A user's file: the size of the weights of random nets.
OWN = '''
import jax
import matplotlib.pyplot as plt

from cnn_jax.plots import curves
from cnn_jax.report import tables
from cnn_jax.report.page import Figure, Section
from experiments.why_resnets_work.analysis import Analysis


def measure(widths: tuple[int, ...], seeds: int):
    """Standard deviation of normal weights, for each width and seed."""
    label = {"family": "normal", "depth": 1, "step": 0}
    for width in widths:
        for seed in range(seeds):
            weights = jax.random.normal(jax.random.key(seed), (width,))
            row = {"seed": seed, "width": width, "std": float(weights.std())}
            yield {**label, **row}


def draw(rows, styles):
    figure, panel = plt.subplots()
    curves.draw_line(panel, rows, "width", "std", color="black")
    figure.suptitle(f"weights, {curves.seeds_of(rows)}")
    return {"weights": figure}


def section(rows, settings):
    column = {"std": (tables.per_net(rows, "std"), tables.spread)}
    return Section(
        title="Weights",
        question="How large are the weights?",
        method=f"Normal weights of {settings['seeds']} seeds.",
        figures=[Figure("weights", "Std over width.", "Std of weights.")],
        tables=[tables.group_table(rows, "Std of weights", column)],
    )


def summary(rows):
    yield "std of weights", rows["std"].mean()


WEIGHTS = Analysis(measure, section, draw, summary)
'''


def test_an_analysis_from_elsewhere_is_in_the_report(tmp_path, monkeypatch):
    """A user's file and a section of the config suffice; nothing is trained."""
    (tmp_path / "own_weights.py").write_text(OWN)
    assert OWN.count("\n") < 60
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "config.py").write_text(
        "from configs import why_resnets_work_digits\n"
        "def get_config():\n"
        "    config = why_resnets_work_digits.get_config()\n"
        "    config.weights = {'name': 'own_weights:WEIGHTS', 'widths': (8, 64)}\n"
        "    config.weights.seeds = 3\n"
        "    return config\n"
    )
    words = [f"--config={tmp_path}/config.py", f"--workdir={tmp_path}/out"]
    try:
        assert command.main([*words, "--only=weights"]) == 0
        page = (tmp_path / "out/report.html").read_text()
        for text in ("Weights", "How large are the weights?", "of 3 seeds", "<img"):
            assert text in page
        assert "own_weights:WEIGHTS" in page
        assert "std of weights,normal,1,3" in (tmp_path / "out/summary.csv").read_text()
        assert not (tmp_path / "out/study").exists()
        assert command.main([*words, "--only=weights", "--config.weights.size=3"]) == 2
    finally:
        sys.modules.pop("own_weights", None)


def test_a_section_of_another_analysis_is_refused():
    config = {"name": "x", "study": {}, "response": {"images": 0}}
    with pytest.raises(ConfigError, match="unknown key of the config 'response'"):
        registry.check(config, [])
    with pytest.raises(ConfigError, match="lacks the section 'responses'"):
        registry.check({"name": "x", "study": {}}, ["responses"])
    config = {"name": "x", "study": {}, "own": {"name": "math:pi"}}
    with pytest.raises(ConfigError, match=r"'math:pi' is not an Analysis: 3\.14"):
        registry.check(config, [])


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("landscape", {"points": 1}, "must be odd and at least 3.* got 1"),
        ("landscape", {"points": 4}, "must be odd and at least 3.* got 4"),
        ("landscape", {"extent": 0.0}, "must be positive .* got 0"),
        ("landscape", {"extent": float("nan")}, "must be positive .* got nan"),
        ("insertion", {"steps": (1, 2)}, r"steps must increase from 0, got \[1, 2\]"),
        ("one_by_one", {"batch": 0}, "batch must be at least 1, got 0"),
        ("lesions", {"images": -1}, "lesions.images must be at least 0, got -1"),
        ("lesions", {"removed": (1, -2)}, "removed must be at least 0, got -2"),
        ("grid", {"lags": 1}, "grid.lags must be at least 2, got 1"),
        ("stochastic_depth", {"death_rate": 1.5}, r"must be in \(0, 1\), got 1.5"),
        ("paths", {"images": 0}, "paths.images must be at least 1, got 0"),
        ("paths", {"images": 129}, "at most 128, .* of residual-56; got 129"),
        ("shattered", {"images": 129}, "at most 128, .* of plain-8; got 129"),
        ("lesions", {"draws": "two"}, "draws must be int, got 'two'"),
    ],
)
def test_settings_that_cannot_be_are_refused(name, changes, message):
    config = why_resnets_work_digits.get_config().to_dict()
    config[name] |= changes
    with pytest.raises(ConfigError, match=message):
        registry.check(config, [], trains=True)


def test_batches_count_of_the_nets_that_are_looked_at():
    config = why_resnets_work_digits.get_config().to_dict()
    config["study"]["overrides"]["depth8"] = {"batch_size": 8}
    config["paths"]["images"] = 128
    assert registry.check(config, ["paths"], trains=True) == ["paths"]
    config["paths"]["images"] = 1000
    assert registry.check(config, ["paths"]) == ["paths"]  # nets of another study


def test_a_name_and_a_study_are_needed():
    config = {"name": "x", "study": {}}
    for key in config:
        rest = {other: config[other] for other in config if other != key}
        with pytest.raises(ConfigError, match=f"^the config lacks {key}$"):
            registry.check(rest, [], trains=True)
    assert registry.check({"name": "x"}, []) == []


def test_order_is_that_of_the_report():
    config = why_resnets_work_digits.get_config().to_dict()
    assert registry.check(config, ["lesions", "gradients"]) == ["gradients", "lesions"]
    assert registry.check(config, []) == list(ANALYSES)
