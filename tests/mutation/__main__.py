"""Test mutants: ``python -m tests.mutation [MODULE ...] [--mutants=N] [--seed=S]``.

A mutant is a copy of the project with a change to one line of one module: a constant,
a comparison, an operator, a flipped boolean, two swapped arguments or a dropped
statement. The tests of that module should fail. Modules are files such as
``cnn_jax/training/steps.py``, or directories; the default is the package, the commands
and the configs. Each mutant becomes a row of ``--results`` (a file of JSON lines). The
same command skips the mutants in that file, and so resumes. A table is printed at the
end. Tests that fail without a mutant are refused.

Inspect survivors rather than count them: a mutant may be equivalent to the original.
"""

import argparse
import ast
import collections
import copy
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOLDERS = ("cnn_jax", "configs", "experiments")
# Tests of modules without a test file of the same name, by prefix of the module's path.
ELSEWHERE = {
    "configs/": "tests/test_recipes.py",
    "cnn_jax/models/__init__.py": "tests/models/test_models.py",
    "cnn_jax/models/blocks.py": "tests/models/test_resnet.py",
    "cnn_jax/models/layers.py": "tests/models/test_normalization.py",
    "cnn_jax/models/initializers.py": "tests/models/test_resnet.py",
    "cnn_jax/training/state.py": "tests/training/test_steps.py",
}
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


def tests_of(path: str) -> list[str]:
    """The test files of a module: the one at the same path, else its directory's."""
    place = pathlib.Path(path)
    mirror = pathlib.Path("tests", *place.parts[place.parts[0] == "cnn_jax" : -1])
    named = [mirror / f"test_{place.name}", mirror.parent / f"test_{mirror.name}.py"]
    found = [str(file) for file in named if (ROOT / file).exists()][:1]
    found += [file for start, file in ELSEWHERE.items() if path.startswith(start)]
    while not (ROOT / mirror).is_dir():
        mirror = mirror.parent
    return found or [str(mirror)]


def outcome(mutant: dict[str, str], limit: float) -> str:
    """Test a mutant: 'noticed', 'slow' (also counts as noticed) or 'survived'."""
    with tempfile.TemporaryDirectory() as folder:
        tree = pathlib.Path(folder) / "project"
        shutil.copytree(
            ROOT, tree, ignore=shutil.ignore_patterns(".git", "__pycache__")
        )
        (tree / mutant["module"]).write_text(mutated(mutant))
        command = [sys.executable, "-m", "pytest", "-x", f"--basetemp={folder}/tmp"]
        process = subprocess.Popen(
            [*command, *tests_of(mutant["module"])],
            cwd=tree,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
            process_group=0,
        )
        try:
            return "survived" if process.wait(limit) == 0 else "noticed"
        except subprocess.TimeoutExpired:
            return "slow"
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


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
        path
        for name in options.modules
        for path in sorted((ROOT / name).rglob("*.py")) or [ROOT / name]
    ]
    drawn = [
        mutant for path in files for mutant in mutants(str(path.relative_to(ROOT)))
    ]
    random.Random(options.seed).shuffle(drawn)
    rows = []
    if options.results.exists():
        rows = [json.loads(line) for line in options.results.read_text().splitlines()]
    tried = {row["key"]: row for row in rows}
    sound: set[tuple[str, ...]] = set()
    for number, mutant in enumerate(drawn[: options.mutants], start=1):
        # Edits elsewhere in the file do not change the key.
        name = "|".join(mutant[part] for part in ("module", "kind", "before", "after"))
        tests = tuple(tests_of(mutant["module"]))
        if name not in tried:
            none = {**mutant, "after": mutant["before"]}
            if tests not in sound and outcome(none, options.seconds) != "survived":
                sys.exit(f"{' '.join(tests)} fail, or are slow, without a mutant")
            sound.add(tests)
            found = outcome(mutant, options.seconds)
            tried[name] = {"key": name, **mutant, "outcome": found}
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
