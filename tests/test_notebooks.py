"""The notebooks in docs/ are stored without outputs and run from top to bottom."""

import pathlib

import nbclient
import nbformat
import pytest

FOLDER = pathlib.Path(__file__).resolve().parents[1] / "docs" / "notebooks"
NOTEBOOKS = ("from_lenet_to_resnet", "your_block_in_the_study")
SECONDS = 600  # per cell, on a busy machine


def read(name):
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def test_all_are_known_valid_and_stored_without_outputs():
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == set(NOTEBOOKS)
    for name in NOTEBOOKS:
        notebook = read(name)
        nbformat.validate(notebook)
        code = [cell for cell in notebook.cells if cell.cell_type == "code"]
        assert len(code) >= 5
        assert not any(cell.outputs or cell.execution_count for cell in code)


def outputs(cell):
    """The kinds of a cell's outputs."""
    return {kind for output in cell.outputs for kind in output.get("data", {})}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_runs_where_it_lies(name):
    notebook = read(name)
    metadata = {"metadata": {"path": str(FOLDER)}}
    client = nbclient.NotebookClient(notebook, timeout=SECONDS, resources=metadata)
    client.execute()  # raises the errors of cells
    figures = [cell for cell in notebook.cells if "figure" in cell.source]
    assert figures
    assert all("image/png" in outputs(cell) for cell in figures)
    if name == "your_block_in_the_study":  # three curves
        (table,) = (cell for cell in notebook.cells if "pivot_table" in cell.source)
        shown = table.outputs[0]["data"]["text/plain"]
        assert all(family in shown for family in ("plain", "residual", "yours"))
