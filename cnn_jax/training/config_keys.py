"""The keys of a recorded config: their earlier names, and which of them may change."""

from collections.abc import Mapping
from typing import Any

# Where the data is; the second for a dataset composed from another one's digits.
PLACES = ("dataset.data_dir", "dataset.digits.data_dir")
# These keys describe where and how a run executes, not what it computes. Yet the
# number of devices changes the draws of augmentation, mixing and dropout, which differ
# by device.
FREE_KEYS = (
    "log.writers",
    *PLACES,
    "dataset.stream.workers",
    "model.scan",
    "model.remat",
    "parallel.mode",
    "parallel.devices",
    "parallel.hosts",
    "parallel.host_timeout",
    "steps_per_execution",
)
# Names of config keys in the previous version, and their current names.
RENAMED = {
    "steps_per_dispatch": "steps_per_execution",
    "warmup.until_error": "warmup.until_train_error",
}


def rename(config: dict[str, Any]) -> None:
    """Rename the keys of an older version's config to their current names."""
    for old, new in RENAMED.items():
        section, _, key = old.rpartition(".")
        fields = config.get(section) if section else config
        if isinstance(fields, dict) and key in fields:
            fields[new.rpartition(".")[2]] = fields.pop(key)


def moved(dataset: Mapping[str, Any], data_dir: str) -> dict[str, Any]:
    """A dataset section whose data, or its digits' data, is in another directory."""
    digits = dataset.get("digits")
    if "data_dir" not in dataset and isinstance(digits, Mapping):
        return {**dataset, "digits": {**digits, "data_dir": data_dir}}
    return {**dataset, "data_dir": data_dir}


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested mappings into one dict with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """The keys in which a config differs from an earlier one, with both values.

    Keys that do not change what the run computes are left out.
    """
    free = set(FREE_KEYS)
    model = new.get("model", {})
    if model.get("stochastic_depth") or ":" in str(model.get("block", "")):
        # Blocks in a loop draw other random numbers, and user-defined blocks may
        # draw some.
        free.remove("model.scan")
    before, now = flatten(old), flatten(new)
    absent = "(absent)"
    return [
        f"{key}: was {before.get(key, absent)!r}, is {now.get(key, absent)!r}"
        for key in sorted({*before, *now})
        if before.get(key, absent) != now.get(key, absent) and key not in free
    ]
