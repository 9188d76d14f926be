"""Imports go in one direction, and only where the layout allows."""

import ast
import graphlib
import itertools
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
# The parts of the package that each part may import, besides itself and names.py.
ALLOWED = {
    "names": set(),
    "graphs": set(),
    "kernels": set(),
    "models": {"graphs", "kernels"},
    "data": set(),
    "runtime": {"kernels"},
    "training": {"models", "data", "graphs", "runtime", "kernels"},
    "study": {"training", "models", "data", "runtime"},
    "analysis": {"training", "models", "data", "graphs", "kernels"},
    "plots": {"study", "analysis", "training"},
    "report": {"plots"},
}
OUTSIDE_ONLY_IN = {
    "tensorflow_datasets": {"data"},
    "pandas": {"study", "plots", "report", "analysis"},
    "matplotlib": {"plots"},
    "tensorflow": set(),
    "torch": {"models"},  # inside a function, for its own file format
    "clu": set(),
    "jinja2": {"report"},
    "submitit": {"study"},
}


def imports(path, deepest=()):
    """Dotted modules that a file imports; only the deepest ones if ``deepest``."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                below = f"{node.module}.{alias.name}"
                yield below
                if below not in deepest:
                    yield node.module


def test_no_two_modules_import_each_other():
    """Neither inside functions nor indirectly."""
    paths = {}
    for path in (ROOT / "cnn_jax").rglob("*.py"):
        names = path.relative_to(ROOT).with_suffix("").parts
        paths[".".join(names).removesuffix(".__init__")] = path
    graph = {
        # in ``from package import module`` the module counts, not the package
        module: {name for name in imports(path, deepest=paths) if name in paths}
        for module, path in paths.items()
    }
    assert len(graph["cnn_jax.training.program"]) > 5
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError


def part_of(module):
    pieces = module.split(".")
    return pieces[1] if len(pieces) > 1 else ""


def test_imports_run_one_way():
    wrong = []
    for path in sorted((ROOT / "cnn_jax").rglob("*.py")):
        here = path.relative_to(ROOT / "cnn_jax").parts[0].removesuffix(".py")
        if here == "__init__":
            continue
        assert here in ALLOWED, f"{here}: say in ALLOWED what it may import"
        for module in imports(path):
            if module.startswith("experiments"):
                wrong.append(f"{path}: {module}")
            if module.startswith("cnn_jax."):
                other = part_of(module)
                if other not in ALLOWED[here] | {here, "names"}:
                    wrong.append(f"{path}: {module}")
            top = module.partition(".")[0]
            if here not in OUTSIDE_ONLY_IN.get(top, {here}):
                wrong.append(f"{path}: {module}")
    assert not wrong, "\n".join(wrong)


def test_models_see_jax_and_flax_only():
    allowed = {
        *("jax", "flax", "numpy", "jaxtyping", "cnn_jax"),
        *(
            "collections",
            "contextlib",
            "contextvars",
            "dataclasses",
            "functools",
            "math",
            "operator",
            "typing",
        ),
    }
    nets = ROOT / "cnn_jax" / "models"
    around = {
        "__init__.py",
        "__main__.py",
        "summary.py",
        "torchvision.py",
        "weights.py",
    }
    for path in sorted(nets.glob("*.py")):
        if path.name not in around:
            tops = {module.partition(".")[0] for module in imports(path)}
            assert tops <= allowed, f"{path.name}: {tops - allowed}"


def reaches(path):
    """The private names (``_name``) of other project files that a file uses."""
    tree = ast.parse(path.read_text())
    ours = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            if node.module.partition(".")[0] not in ("cnn_jax", "experiments", "tests"):
                continue
            for alias in node.names:
                ours.add(alias.asname or alias.name)
                for word in (*node.module.split("."), alias.name):
                    # a command is tested as a command, and no other code uses it
                    if word.startswith("_") and not (
                        word == "__main__" and path.is_relative_to(ROOT / "tests")
                    ):
                        yield f"{node.module}.{alias.name}"
    for node in ast.walk(tree):
        named = []
        if isinstance(node, ast.Attribute):
            named = [(node.value, node.attr)]
        elif isinstance(node, ast.Call):  # setattr(module, "_name", ...)
            named = [
                (owner, word.value)
                for owner, word in itertools.pairwise(node.args)
                if isinstance(word, ast.Constant) and isinstance(word.value, str)
            ]
        for owner, word in named:
            known = isinstance(owner, ast.Name) and owner.id in ours
            if known and word.startswith("_") and not word.endswith("__"):
                yield f"{owner.id}.{word}"


def test_what_a_module_keeps_to_itself_is_used_nowhere_else():
    wrong = [
        f"{path}: {name}"
        for part in ("cnn_jax", "experiments", "tests")
        for path in sorted((ROOT / part).rglob("*.py"))
        for name in reaches(path)
    ]
    assert not wrong, "\n".join(wrong)


def test_no_file_is_named_as_a_module_of_python():
    """A script run by its path imports the files in its directory first."""
    wrong = [
        f"{path}"
        for part in ("cnn_jax", "experiments", "configs")
        for path in sorted((ROOT / part).rglob("*"))
        if path.stem in sys.stdlib_module_names - {"__main__"}
        and (path.suffix == ".py" or (path / "__init__.py").exists())
    ]
    assert not wrong, "\n".join(wrong)
