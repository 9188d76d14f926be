"""What the report says of its nets and claims before the sections."""

from cnn_jax.report.page import Finding, Section
from experiments.why_resnets_work import introduction


def section(claims):
    """A section whose claims hold or not."""
    findings = [Finding("A claim.", holds, "1 against 2.") for holds in claims]
    return Section("Title", findings=[*findings, None])


CONFIG = {"name": "x", "study": {"depths": (8, 20)}, "lesions": {"draws": 5}}
RUN = {"dataset": {"name": "digits"}, "steps": 140, "batch_size": 128}
RUNS = [
    (family, depth, {**RUN, "depth": depth, "seed": seed})
    for family, depth, seed in (("plain", 8, 0), ("plain", 8, 1), ("residual", 20, 0))
]


def test_the_page_counts_what_holds_and_names_what_was_trained():
    sections = {"a": section([True, True, False]), "b": section([None])}
    found = introduction.compose("mine", CONFIG, sections, RUNS)
    assert (
        "Here 2 of 4 claims hold, 1 do not, and 1 are undecided."
        in (found.introduction[1])
    )
    assert found.title == "Why residual networks work: mine"
    assert "skipped runs" not in found.facts
    assert found.facts["nets"] == "plain and residual; 8, 20 layers"
    assert found.facts["seeds"] == "0, 1"
    assert found.facts["training"] == "140 steps of 128 images"
    assert found.configs == {
        "The study": {"depths": (8, 20)},
        "The analyses": {"lesions": {"draws": 5}},
    }
    missing = ["plain-20-seed1 (diverged)"]
    found = introduction.compose("mine", CONFIG, {}, RUNS, missing)
    assert "at the 5 % level" in found.introduction[1]
    assert found.introduction[1].endswith("there is only one seed.")
    assert found.facts["skipped runs"] == "plain-20-seed1 (diverged)"


def test_the_configs_of_runs_that_were_trained_elsewhere_have_the_nets_names():
    def configs(runs):
        found = introduction.compose("x", CONFIG, {}, runs, trained_here=False).configs
        assert found.pop("The analyses") == {"lesions": {"draws": 5}}
        return found

    assert configs(RUNS[:1]) == {"Run plain-8": RUNS[0][2]}
    assert configs(RUNS[:2]) == {"Runs of plain-8": {**RUN, "depth": 8}}
    other = ("plain", 8, {**RUNS[1][2], "steps": 70})  # of another config
    assert configs([RUNS[0], other]) == {
        "Runs of plain-8": {**RUN, "depth": 8},
        "Runs of plain-8, seed 1": {**RUN, "depth": 8, "steps": 70},
    }
    assert configs(RUNS) == {
        "Runs of plain-8": {**RUN, "depth": 8},
        "Runs of residual-20": {**RUN, "depth": 20},
    }
