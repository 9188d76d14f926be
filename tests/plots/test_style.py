"""Output files of figures."""

import matplotlib.figure
import matplotlib.pyplot as plt
import pytest

from cnn_jax.plots import style


def test_a_figure_is_replaced_as_a_whole_or_not_at_all(tmp_path, monkeypatch):
    for _ in range(2):  # the second time over the first one's files
        figure, panel = plt.subplots()
        panel.plot([1, 2])
        style.save(figure, tmp_path, "line")
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert files["line.png"].startswith(b"\x89PNG")
    assert b"<svg" in files["line.svg"]
    assert files["line.pdf"].startswith(b"%PDF")
    assert len(files) == 3

    def half(figure, target, **options):
        if hasattr(target, "write"):
            target.write(b"half of it")
        else:
            target.write_bytes(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", half)
    with pytest.raises(OSError, match="No space"):
        style.save(figure, tmp_path, "line")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == files
