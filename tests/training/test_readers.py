"""Another process can read a run directory or a study's table at any moment."""

import csv
import json
import multiprocessing

import pandas
import pytest

from cnn_jax import study
from cnn_jax.training.loop import fit
from cnn_jax.training.run_directory import RunDirectory


def read_all(path, results, ready, stop, found):
    """Read everything repeatedly; record the lengths of the log, or the error."""
    place, lengths, tables = RunDirectory(path), [], set()
    ready.set()
    try:
        while not stop.is_set():
            rows = place.rows()
            assert [row["step"] for row in rows] == [3, 6, 9, 12][: len(rows)]
            lengths.append(len(rows))
            config = place.config()
            assert config is None or config["steps"] == 12
            result = place.result()
            assert result is None or result["status"] == "finished"
            if results.exists():
                with open(results, newline="") as file:
                    tables.add(len(list(csv.DictReader(file))))
        found.put((lengths, tables))
    except BaseException as error:
        found.put(repr(error))


@pytest.mark.slow
def test_a_reader_never_sees_half_of_anything(program, reference, tmp_path):
    context = multiprocessing.get_context("spawn")
    ready, stop, found = context.Event(), context.Event(), context.Queue()
    results = tmp_path / "results.csv"
    place = RunDirectory(tmp_path / "run")
    reader = context.Process(
        target=read_all, args=(place.path, results, ready, stop, found)
    )
    reader.start()
    assert ready.wait(60)
    table = pandas.DataFrame([dict.fromkeys(study.COLUMNS, "x")] * 500)

    def write(step, _):
        for _ in range(20):
            study.write_results(table, results)

    fit(program, 0, place, write)
    stop.set()
    seen = found.get(timeout=60)
    reader.join()
    assert isinstance(seen, tuple), seen
    lengths, tables = seen
    assert lengths == sorted(lengths)
    assert len(set(lengths)) >= 3  # it read while rows were added
    assert tables == {500}
    reference.assert_equals(place)


def test_a_last_row_in_part_is_left_out(tmp_path):
    place = RunDirectory(tmp_path)
    line = place.append_row({"step": 1, "error": 0.5})
    assert json.loads(line) == {"step": 1, "error": 0.5}
    for length in range(len(line)):
        (tmp_path / "metrics.jsonl").write_bytes(line + line[:length])
        assert place.rows() == [{"step": 1, "error": 0.5}]
