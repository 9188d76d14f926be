"""Sections and figures of the analyses: verdicts on claims follow the rows."""

import math

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from cnn_jax.plots.style import FIGURE_STYLE, depth_styles
from cnn_jax.report import tables
from experiments.why_resnets_work import __main__ as command
from experiments.why_resnets_work import degradation as effect
from experiments.why_resnets_work.registry import ANALYSES
from tests.experiments.why_resnets_work.rows import (
    ROWS,
    SETTINGS,
    degradation,
    gradients,
    linearity,
    paths,
    responses,
    shattered,
)
from tests.tiers import fast


def section(name, rows):
    table = pd.DataFrame(rows)
    if name == "degradation":
        return effect.section(table)
    return ANALYSES[name].section(table, SETTINGS.get(name, {}))


def mirrored(name, rows):
    """The same measurements with the arms' roles exchanged."""
    roles = {"plain": "residual", "residual": "plain"}
    keys = {
        "insertion": ("how", {"residual": "plain_he", "plain_he": "residual"}),
        "stochastic_depth": ("death_rate", {0.0: 0.5, 0.5: 0.0}),
        "one_by_one": (
            "layers",
            {"linear": "with 1x1 and ReLU", "with 1x1 and ReLU": "linear"},
        ),
    }
    key, exchange = keys.get(name, ("family", roles))
    return [
        {**row, key: exchange.get(row[key], row[key])} if key in row else row
        for row in rows
    ]


def test_every_section_is_tested():
    assert set(ROWS) == {"degradation", *ANALYSES}


@pytest.mark.parametrize("name", ROWS)
def test_claims_hold_where_the_numbers_are_as_in_the_papers(name):
    made = section(name, ROWS[name]())
    assert made.findings
    for finding in made.findings:
        assert finding.holds is True, finding


@pytest.mark.parametrize("name", sorted(set(ROWS) - {"paths"}))
def test_claims_fail_where_the_arms_change_roles(name):
    """Each comparison of the two arms; those within an arm may have any verdict."""
    found = [f.holds for f in section(name, mirrored(name, ROWS[name]())).findings]
    within_an_arm = {"degradation": 1, "gradients": 1, "responses": 1, "linearity": 1}
    within_an_arm["one_by_one"] = 1
    assert found.count(False) >= len(found) - within_an_arm.get(name, 0), found


def test_paths_that_carry_the_gradient_may_be_the_long_ones():
    rows = [{**row, "length": 2 - row["length"]} for row in paths()]
    found = [finding.holds for finding in section("paths", rows).findings]
    assert found == [False]


def test_numbers_of_a_table_carry_their_seeds_and_spread():
    [table] = section("degradation", degradation()).tables
    assert "2 seeds" in table.caption
    assert table.columns == ("net", "training error", "test error", "parameters")
    assert table.rows[0] == (
        "plain, 8 layers",
        "8.05 ± 0.07",
        "50.00 ± 0.00",
        "1,234",
    )


def test_the_error_on_held_out_images_has_the_name_of_its_split():
    made = effect.section(pd.DataFrame(degradation()), "validation")
    assert made.tables[0].columns[2] == "validation error"
    assert "validation error over depth" in made.figures[0].alternative


def test_a_single_net_makes_sections_without_comparisons():
    """Some commands analyse a single run, which has no counterpart."""
    for name in ("gradients", "responses", "lesions", "linearity", "landscape"):
        rows = [
            row
            for row in ROWS[name]()
            if (row["family"], row["depth"], row["seed"]) == ("residual", 8, 0)
        ]
        made = section(name, rows)
        assert made.tables[0].rows
        assert not made.findings
        assert "no spread" in made.tables[0].caption


def test_a_table_says_how_many_seeds_each_net_has():
    def without_one(rows):
        lost = ("residual", 20, 1)
        return [r for r in rows if (r["family"], r["depth"], r["seed"]) != lost]

    made = section("responses", without_one(responses()))
    [table] = made.tables
    assert "of 1 to 2 seeds" in table.caption
    assert table.columns == ("net", "seeds", "std")
    assert [row[:2] for row in table.rows] == [
        ("plain, 8 layers", "2"),
        ("plain, 20 layers", "2"),
        ("residual, 8 layers", "2"),
        ("residual, 20 layers", "1"),
    ]
    # The pair at 20 layers has one seed left.
    assert made.findings[0].holds is None
    assert made.findings[0].evidence.endswith("Undecided for 20 layers.")
    [table] = section("paths", without_one(paths())).tables
    assert table.columns[:2] == ("net", "seeds")
    assert [row[1] for row in table.rows] == ["2", "1"]


def test_one_seed_decides_no_comparison():
    for name in sorted(set(ROWS) - {"one_by_one"}):
        rows = [row for row in ROWS[name]() if row["seed"] == 0]
        found = [finding.holds for finding in section(name, rows).findings]
        # Claims that compare no means: a changed bit, a bound.
        counted = {"insertion": [True], "gradients": [True]}.get(name, [])
        assert [holds for holds in found if holds is not None] == counted, name


def test_what_is_differentiated_is_said():
    method = section("shattered", shattered()).method
    assert "logit of an image's own class" in method
    assert "loss" not in method


def drawn(name, rows):
    """Figures by file name."""
    table = pd.DataFrame(rows)
    styles = depth_styles(table["depth"])
    with plt.rc_context(FIGURE_STYLE):
        return ANALYSES[name].draw(table, styles)


def words_of(figure):
    """The text in the legends of a figure."""
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


@pytest.mark.parametrize(
    "name",
    fast(
        ["gradients", "lesions", "insertion"],
        sorted(set(ROWS) - {"degradation", "one_by_one"}),
    ),
)
def test_figures_are_those_of_the_section_and_say_how_many_seeds(name):
    made = section(name, ROWS[name]())
    figures = drawn(name, ROWS[name]())
    assert [figure.name for figure in made.figures] == list(figures)
    for figure in figures.values():
        figure.draw_without_rendering()
        count = "2 nets" if name == "grid" else "2 seeds"
        assert figure.get_suptitle().endswith((count, "of seed 0"))
        plt.close(figure)
    single = [row for row in ROWS[name]() if row["seed"] == 0]
    for figure in drawn(name, single).values():
        assert "±" not in figure.get_suptitle()
        plt.close(figure)


def test_titles_say_the_seeds_where_depths_have_different_counts():
    rows = [r for r in responses() if (r["depth"], r["seed"]) != (20, 1)]
    [figure] = drawn("responses", rows).values()
    assert figure.get_suptitle().endswith("mean ± std of 1 to 2 seeds")
    plt.close(figure)


@pytest.mark.parametrize("name", ["responses", "landscape"])
def test_any_name_of_a_family_is_in_the_legend(name):
    names = {"plain": "_plain", "residual": "re$idual$_1"}
    rows = [{**row, "family": names[row["family"]]} for row in ROWS[name]()]
    figures = drawn(name, rows)
    assert set(names.values()) <= set(words_of(list(figures.values())[-1]))
    plt.close("all")


def test_a_dollar_sign_in_a_name_is_no_formula(tmp_path):
    names = {"plain": r"\frac$", "residual": r"$\no_such_command{$"}
    rows = [{**row, "family": names[row["family"]]} for row in linearity()]
    analysis, table = ANALYSES["linearity"], pd.DataFrame(rows)
    show = command.Show(r"$\study{$", tmp_path, depth_styles(table["depth"]))
    show.draw(analysis, table)
    assert (tmp_path / "linearity.svg").stat().st_size > 5000


def test_a_depth_has_the_same_colour_in_every_figure():
    """Also in a figure of only some of the study's depths."""
    styles = depth_styles((8, 14, 20))
    colors = set()
    for name, shown in (("gradients", (8, 20)), ("linearity", (20,))):
        rows = pd.DataFrame(ROWS[name]())
        figures = ANALYSES[name].draw(rows[rows["depth"].isin(shown)], styles)
        figure = figures[name]
        legend = dict(zip(words_of(figure), figure.legends[0].get_lines(), strict=True))
        colors.add(tuple(legend["20"].get_color()))
        plt.close(figure)
    assert len(colors) == 1


def test_a_gradient_of_zero_is_a_number_that_is_not_there():
    """As in nets whose last batch-norm scale is initialised to zero."""
    rows = [
        {**r, "gradient_norm": 0.0} if r["family"] == "residual" else r
        for r in gradients()
    ]
    made = section("gradients", rows)
    cells = dict(made.tables[0].rows)
    assert cells["residual, 8 layers"] == "n/a"
    assert "±" in cells["plain, 8 layers"]
    assert [f.holds for f in made.findings] == [None, True, True]
    assert "n/a vs." in made.findings[0].evidence
    for figure in drawn("gradients", rows).values():
        figure.draw_without_rendering()
        for panel in figure.axes:
            assert panel.get_ylim()[0] > 1e-9
        plt.close(figure)
    table = tables.summarize(pd.DataFrame(rows), ANALYSES["gradients"].summary)
    assert set(table["family"]) == {"plain"}


@pytest.mark.parametrize("name", ["gradients", "shattered"])
def test_a_net_of_fewer_steps_is_drawn_at_its_own_last_step(name):
    """It was measured at no step between the first and the last."""
    rows = [
        {**r, "step": 70} if (r["family"], r["step"]) == ("plain", 140) else r
        for r in ROWS[name]()
    ]
    made = section(name, rows)
    figures = drawn(name, rows)
    assert list(figures) == [figure.name for figure in made.figures] == [name]
    panels = figures[name].axes
    plt.close("all")
    assert [panel.get_title() for panel in panels[2:]] == [
        "plain, after 70 to 140 steps",
        "residual, after 70 to 140 steps",
    ]
    assert [len(panel.get_lines()) for panel in panels] == [2] * 4


def test_a_path_gradient_that_underflows_in_one_seed_is_a_gap():
    rows = [
        {**r, "gradient": 0.0, "contribution": 0.0}
        if (r["length"], r["seed"]) == (1, 0)
        else r
        for r in paths()
    ]
    [figure] = drawn("paths", rows).values()
    plt.close(figure)
    [share, gradient, _] = [panel.get_lines()[0].get_ydata() for panel in figure.axes]
    assert list(share) == [0.25, 0.5, 0.25]
    assert gradient[0] > 0
    assert math.isnan(gradient[1])


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("gradients", "gradient_norm"),
        ("shattered", "correlation"),
        ("grid", "autocorrelation"),
        ("responses", "std"),
        ("linearity", "change"),
        ("lesions", "error"),
        ("paths", "contribution"),
        ("paths", "gradient"),
        ("stochastic_depth", "error"),
        ("landscape", "loss"),
        ("landscape", "error"),
        ("insertion", "train_error"),
        ("degradation", "test_error"),
    ],
)
@pytest.mark.parametrize("value", [math.nan, 0.0])
@pytest.mark.slow
def test_a_number_that_is_not_there_ends_no_section(name, column, value):
    """For one net and for all nets."""
    for chosen in ((0,), (0, 1)):
        rows = [
            {**row, column: value} if row["seed"] in chosen else row
            for row in ROWS[name]()
        ]
        assert section(name, rows).tables[0].rows
        # one figure for each value: of all nets or of one
        if name != "degradation" and (value == 0.0) == (chosen == (0,)):
            tables.summarize(pd.DataFrame(rows), ANALYSES[name].summary)
            for figure in drawn(name, rows).values():
                figure.draw_without_rendering()
                plt.close(figure)
