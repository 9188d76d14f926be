"""The contents of a study's figures, read back from matplotlib's artists."""

import itertools

import matplotlib.colors
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cnn_jax import plots
from cnn_jax.plots import degradation

DEPTHS = {"plain": (8, 20), "residual": (8, 20, 56)}
SEEDS = {8: (0, 1, 2), 20: (0, 1), 56: (4,)}
# All numbers are distinct, so that drawing the wrong column is noticed.
COLUMNS = ("clean_train_error", "test_error", "running_train_error", "test_loss")


def table_of(depths=DEPTHS, seeds=SEEDS, scale=1.0):
    """A table like those of `cnn_jax.study.load`, with random numbers."""
    rng = np.random.default_rng(0)
    rows = [
        {"family": family, "depth": depth, "seed": seed, "status": "finished"}
        | dict(zip(COLUMNS, scale * rng.uniform(0.05, 0.95, len(COLUMNS)), strict=True))
        for family, own in depths.items()
        for depth in own
        for seed in seeds[depth]
    ]
    return pd.DataFrame(rows)


def logs_of(table, steps=(2, 4, 6)):
    """Logs like those of `cnn_jax.study.logs`, evaluated at every second row."""
    rng = np.random.default_rng(1)
    rows = []
    for run in table.to_dict("records"):
        for number, step in enumerate(steps):
            row = {key: run[key] for key in ("family", "depth", "seed")}
            row |= {"step": step, "running_train_error": rng.uniform()}
            if number % 2 == 0:
                row |= {"test_error": rng.uniform(), "clean_train_error": rng.uniform()}
            rows.append(row)
    return pd.DataFrame(rows)


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """A function that draws and returns the figure instead of saving it."""

    def draw(function, *arguments, **named):
        figures = []
        monkeypatch.setattr(
            degradation,
            "save",
            lambda figure, directory, name: figures.append((name, figure)),
        )
        function(*arguments, directory=tmp_path, title="digits", **named)
        [(name, figure)] = figures
        assert name == function.__name__
        return figure

    return draw


def look(line):
    """The properties that identify a line."""
    marker = str(line.get_marker()).replace("None", "")
    return matplotlib.colors.to_hex(line.get_color()), marker


def named_lines(figure):
    """The names in the legend, by the properties of their lines."""
    [legend] = figure.legends
    texts = [text.get_text() for text in legend.get_texts()]
    return dict(zip(map(look, legend.legend_handles), texts, strict=True))


def of_shape(table, family, depth=None):
    own = table[table["family"] == family]
    return own if depth is None else own[own["depth"] == depth]


@pytest.mark.parametrize("held_out", ["test", "validation"])
def test_final_errors_stand_on_their_panels(drawn, held_out):
    table = table_of()
    extra = {**table.iloc[0], "seed": 9, "status": "diverged", "test_error": 0.99}
    figure = drawn(
        plots.depth_vs_error,
        pd.concat([table, pd.DataFrame([extra])]),
        held_out=held_out,
    )
    names = named_lines(figure)
    assert sorted(names.values()) == ["plain", "residual"]
    columns = ("clean_train_error", "test_error")
    labels = ("clean training error (%)", f"{held_out} error (%)")
    for panel, column, label in zip(figure.axes, columns, labels, strict=True):
        assert panel.get_ylabel() == label
        assert panel.get_xlabel() == "depth (weight layers)"
        assert panel.get_xticks().tolist() == [8, 20, 56]
        means = {
            names[look(line)]: line.get_xydata()
            for line in panel.lines
            if line.get_linestyle() != "None"
        }
        bars = dict(zip(means, panel.containers, strict=True))
        for family, depths in DEPTHS.items():
            assert means[family][:, 0].tolist() == list(depths)
            for (depth, mean), segment in itertools.zip_longest(
                means[family], bars[family].lines[2][0].get_segments()
            ):
                values = 100 * of_shape(table, family, depth)[column]
                assert mean == pytest.approx(values.mean())
                if len(values) == 1:
                    assert not np.isfinite(segment).any() or not len(segment)
                    continue
                assert segment[:, 0].tolist() == [depth, depth]
                half = values.std()
                ends = [mean - half, mean + half]
                assert segment[:, 1].tolist() == pytest.approx(ends)
        points = np.concatenate(
            [
                line.get_xydata()
                for line in panel.lines
                if line.get_linestyle() == "None" and line.get_alpha()
            ]
        )
        expected = 100 * table.sort_values(["family", "depth", "seed"])[column]
        assert points[:, 1].tolist() == pytest.approx(expected.tolist())


def test_the_title_says_how_many_seeds_there_are(drawn):
    table = table_of()
    title = drawn(plots.depth_vs_error, table).get_suptitle()
    assert title == "digits: final error over depth, mean ± std of 1 to 3 seeds"
    title = drawn(plots.depth_vs_error, table[table["depth"] == 20]).get_suptitle()
    assert title.endswith("mean ± std of 2 seeds")
    title = drawn(plots.depth_vs_error, table[table["depth"] == 56]).get_suptitle()
    assert title == "digits: final error over depth, 1 seed"


@pytest.mark.parametrize("high", ["clean_train_error", "test_error"])
def test_nothing_of_very_different_errors_is_cut_off(drawn, high):
    table = table_of()
    table[list({"clean_train_error", "test_error"} - {high})] /= 100
    for panel in drawn(plots.depth_vs_error, table).axes:
        low, top = panel.get_ylim()
        assert low <= 0
        assert top >= 100 * table[high].max()


def test_curves_stand_on_their_panels(drawn):
    table = table_of()
    logs = logs_of(table)
    figure = drawn(plots.training_curves, logs, held_out="validation")
    title = "digits: thin: training (running), bold: validation"
    assert figure.get_suptitle() == title
    names = named_lines(figure)
    assert list(names.values()) == ["8 layers", "20 layers", "56 layers"]
    assert [panel.get_title() for panel in figure.axes] == ["plain", "residual"]
    assert figure.axes[0].get_ylabel() == "error (%)"
    for panel in figure.axes:
        assert panel.get_xlabel() == "optimizer step"
        family = panel.get_title()
        assert len(panel.lines) == 2 * len(DEPTHS[family])
        assert len(panel.collections) == len(DEPTHS[family])
        bold = [line for line in panel.lines if line.get_linewidth() > 2]
        for line, band in zip(bold, panel.collections, strict=True):
            own = of_shape(logs, family, int(names[look(line)].split()[0]))
            seeds = own.pivot(index="step", columns="seed", values="test_error")
            mean, std = seeds.dropna().mean(axis=1), seeds.dropna().std(axis=1)
            assert line.get_xdata().tolist() == [2, 6]
            assert line.get_ydata().tolist() == pytest.approx((100 * mean).tolist())
            low = 100 * (mean - std.fillna(0))
            corners = band.get_paths()[0].vertices
            assert corners[:, 1].min() == pytest.approx(low.min())
        thin = [line for line in panel.lines if line.get_linewidth() < 2]
        for line in thin:
            own = of_shape(logs, family, int(names[look(line)].split()[0]))
            mean = own.groupby("step")["running_train_error"].mean()
            assert line.get_xdata().tolist() == [2, 4, 6]
            assert line.get_ydata().tolist() == pytest.approx((100 * mean).tolist())


@pytest.mark.parametrize("low", ["running_train_error", "test_error"])
@pytest.mark.parametrize("family", ["plain", "residual"])
def test_no_curve_is_cut_off(drawn, low, family):
    logs = logs_of(table_of())
    logs.loc[logs["family"] == family] = logs[logs["family"] == family].assign(
        **{low: logs[low] / 100}
    )
    for panel in drawn(plots.training_curves, logs).axes:
        bottom, top = panel.get_ylim()
        assert bottom == 0
        assert top >= max(line.get_ydata().max() for line in panel.lines)


def test_a_run_that_is_evaluated_once_is_a_point(drawn):
    logs = logs_of(table_of(), steps=(4,))
    for panel in drawn(plots.training_curves, logs).axes:
        bold = [line for line in panel.lines if line.get_linewidth() > 2]
        assert {line.get_marker() for line in bold} == {"o"}


def test_numbers_of_steps_do_not_touch(drawn):
    logs = logs_of(table_of(), steps=(391, 32_000, 64_000))
    figure = drawn(plots.training_curves, logs)
    figure.draw_without_rendering()
    for panel in figure.axes:
        texts = panel.get_xticklabels()
        boxes = [text.get_window_extent() for text in texts]
        assert "20,000" in [text.get_text() for text in texts]
        gaps = [right.x0 - left.x1 for left, right in itertools.pairwise(boxes)]
        assert min(gaps) > 20  # pixels


NAMES = ("_private", "a$b$c", "learning rate 0.1", "x" * 40, "plain", "residual", "é")


def test_any_number_of_families_with_any_names(drawn):
    depths = dict.fromkeys(NAMES, (8, 20))
    table = table_of(depths)
    figure = drawn(plots.depth_vs_error, table)
    names = named_lines(figure)  # every name has distinct properties
    assert sorted(names.values()) == sorted(NAMES)
    markers = [handle.get_marker() for handle in figure.legends[0].legend_handles]
    assert len(set(markers)) == len(NAMES)  # distinct in greyscale, too
    figure.draw_without_rendering()
    below = figure.legends[0].get_window_extent()
    assert all(below.y1 <= panel.get_window_extent().y0 for panel in figure.axes)
    assert 0 <= below.x0 < below.x1 <= figure.bbox.width
    curves = drawn(plots.training_curves, logs_of(table))
    titles = [panel.get_title() for panel in curves.axes]
    assert titles[: len(NAMES)] == sorted(NAMES)
    assert curves.get_figwidth() < 15


def test_a_study_that_is_partly_finished_is_drawn(drawn):
    """A depth that only one of the families has."""
    table = table_of({"plain": (8, 20), "residual": (8,)})
    figure = drawn(plots.training_curves, logs_of(table))
    assert len(figure.axes[1].lines) == 2
    assert list(named_lines(figure).values()) == ["8 layers", "20 layers"]


def test_figures_are_written_and_the_same_again(tmp_path):
    table = table_of({"plain$x$y": (8,), "_": (8, 20)})
    contents = []
    for name in ("a", "b"):
        place = tmp_path / name
        place.mkdir()
        plots.depth_vs_error(table, place, "1$ and 2$_")
        files = [place / f"depth_vs_error.{suffix}" for suffix in ("pdf", "png", "svg")]
        assert sorted(place.iterdir()) == files
        contents.append([path.read_bytes() for path in files])
        with Image.open(files[1]) as picture:
            assert picture.width > 1000
        assert contents[-1][0].startswith(b"%PDF")
    assert contents[0] == contents[1]


def test_a_curve_is_the_mean_over_seeds_where_all_have_it():
    rows = [(0, 1, 0.0), (0, 2, 1.0), (0, 3, None), (1, 1, 1.0), (1, 2, 1.0)]
    logs = pd.DataFrame([*rows, (1, 4, 5.0)], columns=["seed", "step", "e"])
    found = plots.curve(logs, "e")
    assert found.index.tolist() == [1, 2]
    assert found["mean"].tolist() == [0.5, 1.0]
    assert found["std"].tolist() == pytest.approx([0.5**0.5, 0.0])
    assert plots.curve(logs[logs["seed"] == 0], "e")["std"].tolist() == [0, 0]
