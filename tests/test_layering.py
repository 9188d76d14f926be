"""Imports run one way, and only where the layout says."""

import ast
import graphlib
import pathlib

ROOT = pathlib.Path(__file__).resolve().parents[1]
# What each part may import of the package, besides itself and names.py.
ALLOWED = {
    "names": set(),
    "backend": set(),
    "selfcheck": {"models"},
    "compilation_cache": set(),
    "heap": set(),
    "graphs": set(),
    "acceptors": {"graphs"},
    "models": {"graphs", "acceptors"},
    "data": set(),
    "train": {"models", "data", "graphs", "acceptors", "backend"},
    "study": {"train", "models", "data"},
    "execution": {"study", "train", "data", "compilation_cache", "heap"},
    "jobs": {"compilation_cache", "execution", "study", "train", "selfcheck"},
    "analysis": {"train", "models", "data"},
    "plots": {"study", "analysis"},
    "plots_analysis": {"plots"},
    "plots_landscape": {"plots", "plots_analysis"},
    "plots_gtn": {"plots", "graphs", "data", "models"},
    "report": set(),
}
OUTSIDE_ONLY_IN = {
    "tensorflow_datasets": {"data"},
    "matplotlib": {"plots", "plots_analysis", "plots_gtn", "plots_landscape"},
    "tensorflow": set(),
    "torch": {"models"},  # inside a function, for its own file format
    "clu": set(),
    "jinja2": {"report"},
    "submitit": {"jobs"},
}


def imports(path, deepest=()):
    """Modules that a file imports, dotted; a package's module alone if ``deepest``."""
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
    """Also not inside functions, and not by way of others."""
    paths = {}
    for path in (ROOT / "cnn_jax").rglob("*.py"):
        names = path.relative_to(ROOT).with_suffix("").parts
        paths[".".join(names).removesuffix(".__init__")] = path
    graph = {
        # of ``from package import module`` the module counts, not the package
        module: {name for name in imports(path, deepest=paths) if name in paths}
        for module, path in paths.items()
    }
    assert len(graph["cnn_jax.train.program"]) > 5
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
