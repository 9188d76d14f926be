"""Test mutants: ``python -m tests.mutation [MODULE ...] [--mutants=N] [--seed=S]``.

A mutant is a copy of the project with a change to one line of one module: a constant,
a comparison, an operator, a flipped boolean, two swapped arguments or a dropped
statement. The fast tests nearest to the module should fail: the test file of the same
name, then the test files that import the module. Modules are files such as
``cnn_jax/training/steps.py``, or directories; the default is the package, the commands
and the configs. Mutants are spread evenly over the modules. Each becomes a row of
``--results`` (a file of JSON lines) with the test that noticed it. The same command
skips the mutants in that file, and so resumes. A table is printed at the end. Tests
that fail without a mutant are refused.

Inspect survivors rather than count them: a mutant may be equivalent to the original.
"""

import argparse
import ast
import collections
import copy
import functools
import itertools
import json
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOLDERS = ("cnn_jax", "configs", "experiments")
# Tests that load a module by its name, by prefix of the module's path.
ELSEWHERE = {"configs/": "tests/test_recipes.py"}
# The most test files to run for a mutant that those nearest to its module let pass.
FURTHER = 4
# Programs that earlier mutants compiled; `tests.conftest` reads the variable.
PROGRAMS = pathlib.Path(tempfile.gettempdir(), "cnn_jax_mutation")
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
        file: (distance, len(imported(file)), file)
        for file, distance in distances(path).items()
        if pathlib.Path(file).name.startswith("test_") and "/soak/" not in file
    }
    # Files that import little are about little.
    order = sorted(tests, key=tests.__getitem__)
    near = near or order[:1]
    least = min((tests[file][0] for file in order if file not in near), default=0)
    far = [file for file in order if file not in near and tests[file][0] == least]
    return [stage for stage in (near, far[:FURTHER]) if stage]


def run(mutant: dict[str, str], tests: Sequence[str], limit: float) -> str:
    """Run tests against a mutant.

    Returns:
      The test that failed, an empty string if they passed, or 'slow'.
    """
    with tempfile.TemporaryDirectory() as folder:
        tree = pathlib.Path(folder) / "project"
        # Without the module's bytecode, which could be as old and as long.
        module = pathlib.Path(mutant["module"])
        stale = shutil.ignore_patterns(".git", f"{module.stem}.*.pyc")
        shutil.copytree(ROOT, tree, ignore=stale)
        (tree / module).write_text(mutated(mutant))
        command = [sys.executable, "-m", "pytest", "-qx", "-p", "no:cacheprovider"]
        process = subprocess.Popen(
            [*command, "--tb=no", f"--basetemp={folder}/tmp", *tests],
            cwd=tree,
            env={**os.environ, "CNN_JAX_TEST_PROGRAMS": str(PROGRAMS)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            process_group=0,
        )
        try:
            told, _ = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            return "slow"
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    if process.returncode == 0:
        return ""
    # Names of parameters may contain spaces.
    failed = re.findall("^(?:FAILED|ERROR) (.+?)(?: - .*)?$", told, re.MULTILINE)
    return failed[0] if failed else tests[0]


@functools.cache
def fails_anyway(tests: tuple[str, ...], limit: float) -> str:
    """The test that fails without a mutant, if any."""
    module = tests[0].partition("::")[0]
    first = (ROOT / module).read_text().splitlines(keepends=True)[0]
    return run({"module": module, "line": "1", "after": first}, tests, limit)


def outcome(mutant: dict[str, str], limit: float) -> dict[str, str]:
    """Test a mutant: 'noticed', 'slow' (also counts as noticed) or 'survived'."""
    for tests in tests_of(mutant["module"]):
        failed = run(mutant, tests, limit)
        if failed:
            slow = failed == "slow"
            reason = fails_anyway(tuple(tests if slow else [failed]), limit)
            if reason:
                sys.exit(f"without a mutant: {reason}")
            found = "slow" if slow else "noticed"
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
    table = collections.defaultdict(collections.Counter)
    for row in tried.values():
        table[row["module"]][row["outcome"]] += 1
    print(f"\n{'module':40} {'noticed':>9} {'survived':>9}")
    for module in sorted(table):
        noticed = table[module]["noticed"] + table[module]["slow"]
        print(f"{module:40} {noticed:9} {table[module]['survived']:9}")


if __name__ == "__main__":
    main(sys.argv[1:])
