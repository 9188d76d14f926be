"""The compile times: which nets, and their rows."""

import pytest

from experiments.benchmark import compile as command
from experiments.benchmark import rounds
from experiments.benchmark.case import parse

FOUND = {"trace": 0.5, "lower": 0.25, "compile": 3.0, "bytes": 3 * 2**20}


@pytest.fixture
def one():
    return parse("resnet20@32x32x3", 128, "float32", 1, 1, {"scan": True})


def test_a_case_is_a_row_and_a_line(one, monkeypatch):
    monkeypatch.setattr(rounds, "in_child", lambda function, case: FOUND)
    [row] = command.rows_of(one)
    assert {key: row[key] for key in FOUND} == FOUND
    assert command.line(row) == {
        **{
            "net": "resnet20@32x32x3",
            "fields": "scan=True",
            "batch": "128",
            "type": "float32",
        },
        **{"trace": "0.50", "lower": "0.25", "compile": "3.00", "sum": "3.75"},
        "step MiB": "3",
    }


def test_a_case_that_fails_has_its_reason_in_the_last_column(one, monkeypatch):
    def fail(function, case):
        raise rounds.ChildError("no memory")

    monkeypatch.setattr(rounds, "in_child", fail)
    [row] = command.rows_of(one)
    line = command.line(row)
    assert line["step MiB"] == "no memory"
    assert {line[key] for key in ("trace", "lower", "compile", "sum")} == {""}
