"""Test mutants: ``python -m tests.mutation [MODULE ...] [--mutants=N] [--seed=S]``.

A mutant is a copy of the project with a change to one line of one module: a constant,
a comparison, an operator, a flipped boolean, two swapped arguments or a dropped
statement. The fast tests nearest to the module should fail: the test file of the same
name, then the test files that import the module. Modules are files such as
``cnn_jax/training/steps.py``, or directories; the default is the package, the commands
and the configs. Mutants are spread evenly over the modules. Each becomes a row of
``--results`` (a file of JSON lines) with the test that noticed it. The same command
skips the mutants in that file, and so resumes. At the end, the tests that noticed one
run without a mutant, and a table is printed.

Inspect survivors rather than count them: a mutant may be equivalent to the original.
"""

import argparse
import ast
import collections
import copy
import functools
import importlib
import itertools
import json
import multiprocessing
import os
import pathlib
import random
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOLDERS = ("cnn_jax", "configs", "experiments")
# Tests that load a module by its name, by prefix of the module's path.
ELSEWHERE = {"configs/": "tests/test_recipes.py"}
# The most test files to run for a mutant that those nearest to its module let pass.
FURTHER = 8
# Programs that earlier mutants compiled; `tests.conftest` reads the variable.
PROGRAMS = pathlib.Path(tempfile.gettempdir(), "cnn_jax_mutation")
# Tests run in forks of this process, which has imported what takes long.
FORK = multiprocessing.get_context("fork")
IMPORTED = ("jax", "flax.linen", "optax", "matplotlib.pyplot", "ml_collections")
PAIRS = (
    *((ast.Add, ast.Sub), (ast.Mult, ast.Div), (ast.Lt, ast.LtE), (ast.Gt, ast.GtE)),
    *((ast.Eq, ast.NotEq), (ast.Is, ast.IsNot), (ast.In, ast.NotIn), (ast.And, ast.Or)),
)
OPERATORS = {one: two for pair in PAIRS for one, two in (pair, pair[::-1])}
OPERATORS |= {ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult, ast.Pow: ast.Mult}


def variants(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """The kinds of change to one node, and the changed nodes."""
    new = copy.deepcopy(node)
    if isinstance(node, ast.Constant) and isinstance(node.value, bool):
        new.value = not node.value
        yield "boolean", new
    elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        new.value = node.value + 1
        yield "constant", new
    elif isinstance(node, ast.BinOp | ast.AugAssign | ast.BoolOp):
        if type(node.op) in OPERATORS:
            new.op = OPERATORS[type(node.op)]()
            yield "operator", new
    elif isinstance(node, ast.Compare) and type(node.ops[0]) in OPERATORS:
        new.ops[0] = OPERATORS[type(node.ops[0])]()
        yield "comparison", new
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield "negation", new.operand
    elif isinstance(node, ast.Call) and len(node.args) > 1:
        new.args[:2] = reversed(new.args[:2])
        yield "arguments", new
    is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    if isinstance(node, ast.Expr | ast.AugAssign | ast.Raise) and not is_text:
        yield "dropped", ast.Pass()


def mutants(path: str) -> list[dict[str, str]]:
    """Every mutant of a module: its position, kind, and the lines before and after."""
    source = (ROOT / path).read_text()
    lines = source.encode().splitlines(keepends=True)
    found = []
    for node in ast.walk(ast.parse(source)):
        # Only changes of one line, and none in annotations, which no test covers.
        if getattr(node, "lineno", 0) != getattr(node, "end_lineno", None):
            continue
        for kind, new in variants(node):
            if ast.dump(new) == ast.dump(node):  # two equal arguments
                continue
            line = lines[node.lineno - 1]
            start, end = node.col_offset, node.end_col_offset
            text = ast.unparse(ast.fix_missing_locations(new)).encode()
            if isinstance(new, ast.expr) and not isinstance(new, ast.Constant):
                text = b"(" + text + b")"
            changed = (line[:start] + text + line[end:]).decode()
            mutant = {"module": path, "line": str(node.lineno), "kind": kind}
            found.append(mutant | {"before": line.decode(), "after": changed})
    return [mutant for mutant in found if compiles(mutant)]


def mutated(mutant: dict[str, str]) -> str:
    """The module's text with the mutant's line."""
    lines = (ROOT / mutant["module"]).read_text().splitlines(keepends=True)
    lines[int(mutant["line"]) - 1] = mutant["after"]
    return "".join(lines)


def compiles(mutant: dict[str, str]) -> bool:
    """Whether the mutant compiles; in f-strings Python 3.11 gives no positions."""
    try:
        ast.parse(mutated(mutant))
    except (SyntaxError, ValueError):
        return False
    return mutant["before"] != mutant["after"]


@functools.cache
def imported(path: str) -> set[str]:
    """The project's files that a file imports."""
    names = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{a.name}" for a in node.names)}
    places = [pathlib.Path(*name.split(".")) for name in names]
    files = {f"{place}.py" for place in places}
    files |= {f"{place}/__init__.py" for place in places}
    return {file for file in files if (ROOT / file).is_file()}


def distances(path: str) -> dict[str, int]:
    """The number of imports from each file to a module."""
    files = [
        str(file.relative_to(ROOT))
        for folder in (*FOLDERS, "tests")
        for file in (ROOT / folder).rglob("*.py")
    ]
    found, last = {path: 0}, {path}
    while last:
        last = {f for f in files if f not in found and imported(f) & last}
        found |= dict.fromkeys(last, max(found.values()) + 1)
    return found


def tests_of(path: str) -> list[list[str]]:
    """The test files of a module: the nearest ones, and those to run if they pass."""
    place = pathlib.Path(path)
    mirror = pathlib.Path("tests", *place.parts[place.parts[0] == "cnn_jax" : -1])
    named = [mirror / f"test_{place.name}", mirror.parent / f"test_{mirror.name}.py"]
    near = [file for start, file in ELSEWHERE.items() if path.startswith(start)]
    near += [str(file) for file in named if (ROOT / file).exists()][:1]
    tests = {
        file: (distance, not file.startswith(f"{mirror}/"), len(imported(file)), file)
        for file, distance in distances(path).items()
        if pathlib.Path(file).name.startswith("test_") and "/soak/" not in file
    }
    # Nearest first: few imports away, in the module's directory, about little else.
    order = sorted(tests, key=tests.__getitem__)
    near = near or order[:1]
    least = min((tests[file][0] for file in order if file not in near), default=0)
    far = [file for file in order if file not in near and tests[file][0] == least]
    return [stage for stage in (near, far[:FURTHER]) if stage]


def run_tests(tree: pathlib.Path, tests: Sequence[str], output: pathlib.Path) -> None:
    """Run pytest in a copy of the project, in a fork of this process."""
    os.setpgid(0, 0)
    os.chdir(tree)
    with open(output, "w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ["CNN_JAX_TEST_PROGRAMS"] = str(PROGRAMS)
    sys.path[0] = str(tree)
    for name in [name for name in sys.modules if name.partition(".")[0] == "tests"]:
        del sys.modules[name]
    options = ["-q", "--tb=no", "-p", "no:cacheprovider", f"--basetemp={tree}.tmp"]
    os._exit(pytest.main([*options, *tests]))


def run(
    mutant: dict[str, str] | None, tests: Sequence[str], limit: float | None
) -> list[str]:
    """The tests that fail with or without a mutant; 'slow' if they take too long."""
    with tempfile.TemporaryDirectory() as folder:
        tree, output = pathlib.Path(folder, "project"), pathlib.Path(folder, "output")
        shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(".git"))
        if mutant:
            module = tree / mutant["module"]
            module.write_text(mutated(mutant))
            # The bytecode could be as old and of a text as long.
            for stale in module.parent.glob(f"__pycache__/{module.stem}.*.pyc"):
                stale.unlink()
        process = FORK.Process(target=run_tests, args=(tree, tests, output))
        process.start()
        process.join(limit)
        status = process.exitcode
        if status is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.join()
            return ["slow"]
        # Names of parameters may contain spaces.
        line = re.compile("^(?:FAILED|ERROR) (.+?)(?: - .*)?$", re.MULTILINE)
        return line.findall(output.read_text()) or ([tests[-1]] if status else [])


def outcome(mutant: dict[str, str], limit: float) -> dict[str, str]:
    """Test a mutant: 'noticed', 'slow' (also counts as noticed) or 'survived'."""
    for tests in tests_of(mutant["module"]):
        for failed in run(mutant, ["-x", *tests], limit):
            found = "slow" if failed == "slow" else "noticed"
            return {**mutant, "outcome": found, "by": failed}
    return {**mutant, "outcome": "survived", "by": ""}


def draw(files: Sequence[str], seed: int) -> list[dict[str, str]]:
    """The mutants of the modules in random order, one of each module in turn."""
    each = [mutants(path) for path in files]
    for path, own in zip(files, each, strict=True):
        random.Random(f"{seed} {path}").shuffle(own)
    turns = itertools.zip_longest(*each)
    return [mutant for turn in turns for mutant in turn if mutant]


def main(arguments: Sequence[str]) -> None:
    """Draw mutants, test the untested ones and print the table."""
    parser = argparse.ArgumentParser("tests.mutation", description=__doc__)
    parser.add_argument("modules", nargs="*", default=FOLDERS)
    parser.add_argument("--mutants", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=600, help="for one mutant")
    parser.add_argument("--results", type=pathlib.Path, default="mutants.jsonl")
    options = parser.parse_args(arguments)
    os.environ |= {"JAX_PLATFORMS": "cpu", "MPLBACKEND": "agg"}
    for name in IMPORTED:
        importlib.import_module(name)
    files = [
        str(path.relative_to(ROOT))
        for name in options.modules
        for path in sorted((ROOT / name).rglob("*.py")) or [ROOT / name]
    ]
    rows = []
    if options.results.exists():
        rows = [json.loads(line) for line in options.results.read_text().splitlines()]
    tried = {row["key"]: row for row in rows}
    drawn = draw(files, options.seed)[: options.mutants]
    for number, mutant in enumerate(drawn, start=1):
        # Edits elsewhere in the file do not change the key.
        name = "|".join(mutant[part] for part in ("module", "kind", "before", "after"))
        if name not in tried:
            tried[name] = {"key": name, **outcome(mutant, options.seconds)}
            with options.results.open("a") as file:
                file.write(json.dumps(tried[name]) + "\n")
        row = tried[name]
        place = f"{mutant['module']}:{mutant['line']} {mutant['after'].strip()}"
        print(f"{number:4} {row['outcome']:9} {place}", flush=True)
    # Without parameters, which may contain the path of a copy.
    noticed = {
        row["by"].partition("[")[0]
        for row in tried.values()
        if row["outcome"] == "noticed"
    }
    for failed in run(None, sorted(noticed), None) if noticed else ():
        print(f"fails without a mutant too, so its mutants count for nothing: {failed}")
    table = collections.defaultdict(collections.Counter)
    for row in tried.values():
        table[row["module"]][row["outcome"]] += 1
    print(f"\n{'module':40} {'noticed':>9} {'survived':>9}")
    for module in sorted(table):
        noticed = table[module]["noticed"] + table[module]["slow"]
        print(f"{module:40} {noticed:9} {table[module]['survived']:9}")


if __name__ == "__main__":
    main(sys.argv[1:])
