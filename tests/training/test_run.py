"""Training with a function call instead of the command."""

import json

import pytest

from cnn_jax.names import ConfigError
from cnn_jax.training.run import train
from tests import tiny


def test_a_run_is_trained_resumed_and_read_by_the_same_call(tmp_path):
    rows = []
    config = tiny.config(steps=4, log_every=4)
    result = train(config, tmp_path / "run", lambda step, row: rows.append(row))
    assert result["status"] == "finished"
    assert rows[-1]["step"] == result["step"] == 4
    kept = json.loads((tmp_path / "run" / "result.json").read_text())
    assert kept["test_error"] == result["test_error"]
    assert train(config, str(tmp_path / "run")) == result
    with pytest.raises(ConfigError, match="steps: was 4, is 5"):
        train({**config, "steps": 5}, tmp_path / "run")
    with pytest.raises(ConfigError, match="unknown key of config 'step'"):
        train({**config, "step": 5}, tmp_path / "other")
    assert not (tmp_path / "other").exists()
    with pytest.raises(ConfigError, match=r"config file 'nothing\.py' does not exist"):
        train("nothing.py", tmp_path / "other")
    (tmp_path / "mine.py").write_text(f"def get_config():\n    return {config!r}")
    assert train(tmp_path / "mine.py", tmp_path / "run") == result
