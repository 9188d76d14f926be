"""The tables of config keys, made from the schema and the code that it describes."""

import functools
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cnn_jax import data, models
from cnn_jax.data import prepared, transforms
from cnn_jax.data.streams import Stream
from cnn_jax.training import config as schema
from cnn_jax.training import schedule

OPEN_TFDS = functools.partial(prepared.open_set, "name")


def keys(table: str) -> str:
    """A table of the schema: key, type (or default) and the comment beside it."""
    source = inspect.getsource(schema)
    body = re.search(rf"^{table}[^\n]*\{{\n(.*?)^\}}", source, re.M | re.S)[1]
    rows = re.findall(r'^ +"(\w+)": ([^,]+),(?: +# (.*))?$', body, re.M)
    second = "default" if table == "OPTIONAL" else "type"
    lines = [f"| key | {second} | meaning |", "|---|---|---|"]
    for key, kind, meaning in rows:
        kind = {"dict": "section", "{}": "none"}.get(kind, kind)
        lines.append(f"| `{key}` | {kind} | {meaning or 'see below'} |")
    return "\n".join(lines) + "\n"


def warmup() -> str:
    """The fields of ``warmup``."""
    return fields({"": schedule.Warmup})


def named_sections() -> str:
    """For each section with a ``name``: the choices, and the fields of each."""
    sections = {**schema.TABLES, "dataset": {**data.TABLE, "a TFDS name": OPEN_TFDS}}
    supplied = {**schema.SUPPLIED, "dataset": ("open_digits",)}
    supplied["model"] = ("num_classes", "conv")
    return "\n".join(
        f"### `{section}`\n\n{fields(table, supplied.get(section, ()))}"
        for section, table in sections.items()
    )


def stream() -> str:
    """The keys of ``dataset.stream``."""
    return fields({"": Stream}, ("on_disk", "process_index", "process_count"))


def stream_transforms() -> str:
    """The training transforms of a stream, then those of evaluation."""
    return fields({**transforms.TRAIN, **transforms.TEST})


def fields(table: Mapping[str, Any], supplied: Sequence[str] = ()) -> str:
    """The keyword arguments of each entry, with their defaults.

    An entry whose fields are those of an earlier one shows only its own defaults.
    """
    lines = ["| name | fields and defaults |", "|---|---|"]
    seen: dict[tuple[str, ...], tuple[str, dict[str, str]]] = {}
    for name, target in table.items():
        own = {
            field: f"`{field}`"
            if parameter.default is inspect.Parameter.empty
            else f"`{field}={as_given(parameter.default)!r}`"
            for field, parameter in schema.names.parameters(target).items()
            if field not in supplied
        }
        first, given = seen.setdefault(tuple(own), (name, own))
        other = [text for field, text in own.items() if text != given[field]]
        words = ", ".join(other if first != name else own.values())
        if first != name:
            words = f"as `{first}`" + f", but {words}" * bool(words)
        lines.append(f"| {f'`{name}`' * bool(name)} | {words} |")
    return "\n".join(lines) + "\n"


def as_given(default: Any) -> Any:
    """A default as a config gives it: a norm by its name."""
    known = {norm: name for name, norm in models.layers.NORMS.items()}
    return known[default] if isinstance(default, type) else default


TABLES: dict[str, Callable[..., str]] = {
    "keys": keys,
    "warmup": warmup,
    "named_sections": named_sections,
    "stream": stream,
    "stream_transforms": stream_transforms,
}
