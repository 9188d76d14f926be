"""Sections of the report: their claims follow the rows, either way."""

import itertools
import pathlib

import pytest
from experiments.sections import page

from experiments import sections

NETS = list(itertools.product(("plain", "residual"), (8, 20), (0, 1)))
BETTER = {"plain": 0, "residual": 1}
NOWHERE = pathlib.Path("nowhere")


def nets(**columns):
    """A row for each net; a column is a constant or a function of the net.

    A net is (whether residual, depth / 10, seed).
    """
    return [
        {
            **{"family": family, "depth": depth, "seed": seed},
            **{
                name: value(BETTER[family], depth / 10, seed)
                if callable(value)
                else value
                for name, value in columns.items()
            },
        }
        for family, depth, seed in NETS
    ]


def degradation():
    return nets(
        status="finished",
        clean_train_error=lambda residual, depth, seed: (
            (0.01 if residual else 0.1 * depth) + 0.001 * seed
        ),
        test_error=0.5,
        parameters=1234,
    )


def insertion():
    rows = []
    for how, blocks, rate, step, seed in itertools.product(
        ("none", "residual", "plain_identity", "plain_he"),
        (1, 6),
        (0.01, 0.1),
        (0, 40),
        (0, 1),
    ):
        broken = how == "plain_he"
        if (how == "none") == (blocks == 1):
            count = 0 if how == "none" else blocks
            rows.append(
                {
                    **{"family": "plain", "depth": 20, "seed": seed, "how": how},
                    **{"blocks": count, "rate": rate, "more_steps": step},
                    "train_error": 0.9 if broken else 0.01 + 0.002 * seed,
                    "changed_logits": 900 if broken else 0,
                    "largest_change": 3.0 if broken else 0.0,
                }
            )
    return rows


def gradients():
    rows = []
    for step, layer in itertools.product((0, 140), (1, 2, 3, 4)):
        rows += nets(
            step=step,
            layer=layer,
            gradient_norm=lambda residual, depth, seed, layer=layer: (
                (1 if residual else 10 * depth) ** (4 - layer) + 0.01 * seed
            ),
        )
    return rows


def shattered():
    return [
        row
        for step, distance in itertools.product((0, 140), (0.01, 0.1))
        for row in nets(
            step=step,
            distance=distance,
            correlation=lambda residual, depth, seed: (
                0.9 if residual else 0.5 / depth + 0.01 * seed
            ),
        )
    ]


def grid():
    return [
        row
        for lag in (0, 1)
        for row in nets(
            lag=lag,
            autocorrelation=lambda residual, depth, seed: 0.9 if residual else 0.1,
        )
    ]


def responses():
    return [
        row
        for layer in (1, 2)
        for row in nets(
            layer=layer,
            std=lambda residual, depth, seed: (0.2 if residual else 1.0) / depth,
        )
    ]


def linearity():
    return [
        row
        for block in (1, 2)
        for row in nets(
            block=block,
            change=lambda residual, depth, seed: (0.2 if residual else 1.0) / depth,
        )
    ] + nets(block=3, change=float("nan"))


def lesions():
    return [
        *nets(kind="intact", error=0.05),
        *(
            row
            for block in (1, 2)
            for row in nets(
                kind="one",
                block=block,
                error=lambda residual, depth, seed: 0.06 if residual else 0.8,
            )
        ),
    ]


def paths():
    return [
        row
        for length, share, contribution in ((0, 0.25, 0.5), (1, 0.5, 0.1), (2, 0.25, 0))
        for row in nets(length=length, share=share, contribution=contribution)
        if row["family"] == "residual"
    ]


def stochastic_depth():
    return [
        {
            **{"family": "residual", "depth": 20, "seed": seed},
            **{"death_rate": rate, "removed": count},
            "error": (0.03 if rate else 0.05) + (0.01 if rate else 0.1) * count,
        }
        for rate, count, seed in itertools.product((0.0, 0.5), (0, 1, 2), (0, 1))
    ]


def landscape():
    axis = (-1.0, -0.5, 0.0, 0.5, 1.0)

    def at(first, second):
        square = first**2 + second**2
        ripple = abs(first) == 0.5 and abs(second) == 0.5
        return {
            "loss": lambda residual, depth, seed: (
                10 ** (square * (1 if residual else 4 * depth))
                * (0.01 if ripple and not residual else 1)
            ),
            "error": lambda residual, depth, seed: min(
                1.0, square * (0.4 if residual else 2)
            ),
        }

    return [
        row
        for first, second in itertools.product(axis, axis)
        for row in nets(first=first, second=second, **at(first, second))
    ]


def one_by_one():
    return [
        {
            **{"kind": "shrink", "seed": 0, "kernel": 5, "time_ratio": 4.2},
            **{"direct_parameters": 1000, "parameters": 100},
            **{"direct_macs": 20000, "macs": 3000},
        },
        *(
            {"kind": "exclusive_or", "seed": seed, "layers": layers, "error": error}
            for seed in (0, 1)
            for layers, error in (("linear", 0.4), ("with 1x1 and ReLU", 0.0))
        ),
    ]


ROWS = {
    make.__name__: make
    for make in (
        *(degradation, insertion, gradients, shattered, grid, responses),
        *(linearity, lesions, paths, stochastic_depth, landscape, one_by_one),
    )
}
SETTINGS = {
    "landscape": {"points": 5, "images": 256, "extent": 1.0},
    "one_by_one": {"channels": 192, "width": 32, "size": 28, "shrink": 16},
}


def section(name, rows):
    return sections.SECTIONS[name](rows, NOWHERE, SETTINGS.get(name, {}))


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
    assert set(ROWS) == set(sections.SECTIONS)


@pytest.mark.parametrize("name", ROWS)
def test_claims_hold_where_the_numbers_are_as_in_the_papers(name):
    made = section(name, ROWS[name]())
    assert made.name == name
    assert made.findings
    for finding in made.findings:
        assert finding.holds is True, finding


@pytest.mark.parametrize("name", sorted(set(ROWS) - {"paths"}))
def test_claims_fail_where_the_arms_change_roles(name):
    """Each comparison of the two arms; those within an arm may go either way."""
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


def test_a_single_net_makes_sections_without_comparisons():
    """Some commands look at one run: there is nothing to compare it with."""
    for name in ("gradients", "responses", "lesions", "linearity", "landscape"):
        rows = [
            row
            for row in ROWS[name]()
            if (row["family"], row["depth"], row["seed"]) == ("residual", 8, 0)
        ]
        made = section(name, rows)
        assert made.tables[0].rows
        assert not made.findings
        assert "without a spread" in made.tables[0].caption


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
    # What is left of the pair at 20 layers is one seed.
    assert made.findings[0].holds is None
    assert made.findings[0].evidence.endswith("Undecided at 20 layers.")
    [table] = section("paths", without_one(paths())).tables
    assert table.columns[:2] == ("net", "seeds")
    assert [row[1] for row in table.rows] == ["2", "1"]


def test_one_seed_decides_no_comparison():
    for name in sorted(set(ROWS) - {"one_by_one"}):
        rows = [row for row in ROWS[name]() if row["seed"] == 0]
        found = [finding.holds for finding in section(name, rows).findings]
        # What is no comparison of means: a bit that changes, a bound.
        counted = {"insertion": [True], "gradients": [True]}.get(name, [])
        assert [holds for holds in found if holds is not None] == counted, name


def test_what_is_differentiated_is_said():
    method = section("shattered", shattered()).method
    assert "output of an image's own class" in method
    assert "loss" not in method


def test_the_page_counts_what_holds_and_names_what_was_trained():
    made = [section("degradation", degradation()), section("lesions", lesions())]
    runs = [
        {"dataset": {"name": "digits"}, "steps": 140, "batch_size": 128},
    ]
    config = {"name": "x", "study": {"depths": (8, 20)}, "lesions": {"draws": 5}}
    found = page.page(config, made, runs, degradation())
    assert (
        "Here 3 of 3 claims hold, 0 do not, and 0 are undecided."
        in found.introduction[1]
    )
    assert "left out" not in found.facts
    missing = ["plain-20-seed1 (diverged)"]
    assert (
        page.page(config, [], runs, degradation())
        .introduction[1]
        .endswith("there is but one seed.")
    )
    found = page.page(config, made, runs, degradation(), missing)
    assert found.facts["left out"] == "plain-20-seed1 (diverged)"
    assert found.facts["nets"] == "plain and residual; 8, 20 layers"
    assert found.facts["seeds"] == "0, 1"
    assert found.facts["training"] == "140 steps of 128 images"
    assert found.configs == {
        "The study": {"depths": (8, 20)},
        "The analyses": {"lesions": {"draws": 5}},
    }


def test_the_page_shows_the_configs_of_runs_that_were_trained_elsewhere():
    config = {"name": "x", "study": {"depths": (8, 20)}, "lesions": {"draws": 5}}
    base = {"dataset": {"name": "digits"}, "steps": 140, "batch_size": 128}
    runs = [{**base, "seed": seed, "depth": d} for d in (8, 20) for seed in (0, 1)]

    def configs(runs):
        found = page.page(config, [], runs, degradation(), trained_here=False).configs
        assert found.pop("The analyses") == {"lesions": {"draws": 5}}
        return found

    assert configs(runs[:1]) == {"The run": runs[0]}
    assert configs(runs[:2]) == {"The runs": {**base, "depth": 8}}
    assert configs(runs) == {
        "Run 1 of 2": {**base, "depth": 8},
        "Run 2 of 2": {**base, "depth": 20},
    }
