"""Writers: the TensorBoard log of a run, including stopped runs."""

from typing import ClassVar

import pytest

from cnn_jax.names import ConfigError
from cnn_jax.training import writers
from cnn_jax.training.loop import fit
from cnn_jax.training.program import Program
from cnn_jax.training.run_directory import RunDirectory
from tests import tiny

ROWS = [{"step": 3, "loss": 2.0}, {"step": 6, "loss": 1.5, "test_error": 0.25}]


def points(directory):
    """(name, step, value) of every scalar in the event files, in their order."""
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.record_writer import masked_crc32c

    found = []
    for path in sorted((directory / "tensorboard").iterdir()):
        data = path.read_bytes()
        while data:
            length = int.from_bytes(data[:8], "little")
            assert masked_crc32c(data[:8]) == int.from_bytes(data[8:12], "little")
            event = Event.FromString(data[12 : 12 + length])
            found += [(v.tag, event.step, v.simple_value) for v in event.summary.value]
            data = data[16 + length :]
    return found


EXPECTED = [("loss", 3, 2.0), ("loss", 6, 1.5), ("test_error", 6, 0.25)]


def test_scalars_are_written_under_their_step(tmp_path):
    writer = writers.TensorBoard(tmp_path, {}, [])
    for row in ROWS:
        writer.write(row)
    writer.close()
    assert points(tmp_path) == EXPECTED


def test_a_run_that_resumes_writes_no_point_twice(tmp_path):
    lost = writers.TensorBoard(tmp_path, {}, [])
    for row in (*ROWS, {"step": 9, "loss": 1.0}):  # the log never held step 9
        lost.write(row)
    lost.close()
    writer = writers.TensorBoard(tmp_path, {}, ROWS[:1])
    writer.write(ROWS[1])
    writer.close()
    assert points(tmp_path) == EXPECTED


def test_an_unknown_writer_lists_the_choices():
    with pytest.raises(ConfigError, match=r"unknown writer 'tb'.*tensorboard"):
        writers.check(["tb"])


class Recorder:
    """A user-defined writer that records its calls."""

    told: ClassVar[list] = []

    def __init__(self, directory, config, rows):
        self.told.append(("start", [row["step"] for row in rows]))

    def write(self, row):
        self.told.append(("row", row["step"]))

    def close(self):
        self.told.append(("end", None))


def test_a_run_tells_its_writers_each_row_once(tmp_path, monkeypatch):
    monkeypatch.setattr(Recorder, "told", [])
    name = "tests.training.test_writers:Recorder"
    config = tiny.config(log={"writers": (name,)}, steps=6, eval_every=0)
    fit(Program(config), 0, RunDirectory(tmp_path / "run"))
    assert Recorder.told == [("start", []), ("row", 3), ("row", 6), ("end", None)]


def test_writers_may_change_between_attempts(tmp_path):
    """Writers do not affect the computation, so a run resumes without them."""
    config = tiny.config(log={"writers": ("tensorboard",)}, steps=6, eval_every=0)
    program = Program(config)
    first = fit(program, 0, RunDirectory(tmp_path / "run"))
    program.config = tiny.config(steps=6, eval_every=0)
    assert fit(program, 0, RunDirectory(tmp_path / "run")) == first
    assert {step for _, step, _ in points(tmp_path / "run")} == {3, 6}
