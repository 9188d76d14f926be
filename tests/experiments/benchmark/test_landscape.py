"""The benchmark of landscapes: three methods give the same losses."""

import pytest

from experiments.benchmark import landscape


@pytest.mark.slow
def test_the_ways_agree_and_take_turns(capsys, monkeypatch):
    in_child, asked = landscape.in_child, []

    def first_in_child(function, name, *rest):
        """A process of its own for one method: the others compile the same again."""
        asked.append(name)
        run = in_child if len(asked) == 1 else lambda call, *given: call(*given)
        return run(function, name, *rest)

    monkeypatch.setattr(landscape, "in_child", first_in_child)
    given = ["--depth=8", "--images=4", "--points=2", "--rows=1", "--family=plain"]
    given.append("--whole")
    assert landscape.main(given) == 0
    out = capsys.readouterr().out
    assert "plain 8, 4 images, 2 x 2 points" in out
    assert "whole grid in one program:" in out
    for way in landscape.METHODS:
        assert way in out
    assert asked == list(landscape.METHODS)
