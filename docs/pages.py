"""Pages generated while the site is built: figures, reference, config keys.

The figures are copied from ``experiments/results``, the API reference follows the
package's modules, and the table of config keys follows the schema, so that none of
them can disagree with the code.
"""

import functools
import inspect
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import mkdocs_gen_files as site

from cnn_jax import data
from cnn_jax.data import prepared
from cnn_jax.training import config as schema
from cnn_jax.training import schedule

ROOT = pathlib.Path(__file__).resolve().parents[1]
RESULTS = ROOT / "experiments" / "results"
OPEN_TFDS = functools.partial(prepared.open_set, "name")


def copy_figures() -> None:
    """Every committed figure, as ``figures/STUDY/NAME``."""
    for path in sorted(RESULTS.rglob("*")):
        if path.suffix in (".svg", ".png"):
            with site.open(f"figures/{path.relative_to(RESULTS)}", "wb") as file:
                file.write(path.read_bytes())


def write_reference() -> None:
    """A page for each package, with the docstrings of its modules."""
    index = ["# API reference\n"]
    for package in sorted(path.parent for path in ROOT.glob("cnn_jax/*/__init__.py")):
        name = f"cnn_jax.{package.name}"
        lines = [f"# {name}\n", f"::: {name}\n    options:\n      members: false\n"]
        for module in sorted(package.glob("*.py")):
            if not module.stem.startswith("_"):
                lines.append(f"::: {name}.{module.stem}\n")
        with site.open(f"reference/{package.name}.md", "w") as page:
            page.write("\n".join(lines))
        index.append(f"- [`{name}`]({package.name}.md)")
    with site.open("reference/index.md", "w") as page:
        page.write("\n".join(index))


def write_config_keys() -> None:
    """The keys of a run's config in ``configs.md``, at the marks of that page."""
    text = (ROOT / "docs" / "configs.md").read_text(encoding="utf-8")
    text = text.replace("<!-- keys of a run -->", keys_of("KEYS"))
    text = text.replace("<!-- keys a run may lack -->", keys_of("OPTIONAL"))
    text = text.replace("<!-- keys of parallel -->", keys_of("PARALLEL"))
    text = text.replace("<!-- keys of warmup -->", fields_table({"": schedule.Warmup}))
    text = text.replace("<!-- named sections -->", named_sections())
    with site.open("configs.md", "w") as page:
        page.write(text)


def keys_of(table: str) -> str:
    """A table of the schema: key, type (or default) and the comment beside it."""
    source = inspect.getsource(schema)
    body = re.search(rf"^{table}[^\n]*\{{\n(.*?)^\}}", source, re.M | re.S)[1]
    rows = re.findall(r'^ +"(\w+)": ([^,]+),(?: +# (.*))?$', body, re.M)
    second = "default" if table == "OPTIONAL" else "type"
    lines = [f"| key | {second} | meaning |", "|---|---|---|"]
    for key, kind, meaning in rows:
        kind = {"dict": "section", "{}": "none"}.get(kind, kind)
        lines.append(f"| `{key}` | {kind} | {meaning or 'see below'} |")
    return "\n".join(lines)


def named_sections() -> str:
    """For each section with a ``name``: the choices, and the fields of each."""
    sections = {**schema.TABLES, "dataset": {**data.TABLE, "a TFDS name": OPEN_TFDS}}
    parts = []
    for section, table in sections.items():
        supplied = schema.SUPPLIED.get(section, ())
        parts.append(f"### `{section}`\n\n{fields_table(table, supplied)}\n")
    return "\n".join(parts)


def fields_table(table: Mapping[str, Any], supplied: Sequence[str] = ()) -> str:
    """The keyword arguments of each entry, with their defaults."""
    lines = ["| name | fields and defaults |", "|---|---|"]
    for name, target in table.items():
        fields = [
            f"`{field}`"
            if parameter.default is inspect.Parameter.empty
            else f"`{field}={parameter.default!r}`"
            for field, parameter in schema.names.parameters(target).items()
            if field not in supplied
        ]
        lines.append(f"| {f'`{name}`' if name else ''} | {', '.join(fields)} |")
    return "\n".join(lines)


copy_figures()
write_reference()
write_config_keys()
