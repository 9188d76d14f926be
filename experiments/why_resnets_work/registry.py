"""The analyses, one per line, in the order of the report.

A third-party analysis needs no line here: a section of the config whose ``name`` is
``package.module:attribute`` refers to a user-defined `Analysis`.
"""

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

from cnn_jax import names, study
from experiments.why_resnets_work.analysis import Analysis, Group, Settings

# Modules of this package, each with an `ANALYSIS`.
ANALYSES: dict[str, Analysis] = {
    name: importlib.import_module(f"experiments.why_resnets_work.{name}").ANALYSIS
    for name in (
        "insertion",
        "gradients",
        "shattered",
        "grid",
        "responses",
        "linearity",
        "lesions",
        "paths",
        "stochastic_depth",
        "landscape",
        "one_by_one",
    )
}
# Smallest allowed integers of a section of the config, or of a key; elsewhere 0.
LEAST = dict.fromkeys(("shattered", "grid", "paths", "one_by_one"), 1)
LEAST |= {"gradients.batches": 1, "grid.lags": 2, "grid.beta": 0}
OF_A_BATCH = ("shattered", "paths")  # analyses of images of one training batch


def resolve(name: str, section: Mapping[str, Any]) -> tuple[Analysis, dict[str, Any]]:
    """The analysis that a section of the config describes, and its settings.

    Args:
      name: key of the section.
      section: settings; an optional 'name' is ``package.module:attribute``.

    Raises:
      ConfigError: the name is unknown or does not refer to an `Analysis`.
    """
    settings = dict(section)
    target = settings.pop("name", name)
    found = names.resolve("analysis", target, ANALYSES, called=False)
    if not isinstance(found, Analysis):
        raise names.ConfigError(f"analysis {target!r} is not an Analysis: {found!r}")
    return found, settings


def check(
    config: Mapping[str, Any], only: Sequence[str], trains: bool = False
) -> list[str]:
    """Check the config and return the names of the analyses to do.

    Args:
      config: a section for each analysis, beside 'name' and 'study'.
      only: names of the analyses to do; empty for all in the config.
      trains: whether the nets are those of the config's study.

    Returns:
      Names of sections: those in `ANALYSES` in its order, then third-party ones.

    Raises:
      ConfigError: an unknown name, or a section with a wrong key, type or value.
    """
    for key in ("name", "study")[: 1 + trains]:
        if key not in config:
            raise names.ConfigError(f"the config lacks {key}")
    own = [
        name
        for name, section in config.items()
        if isinstance(section, Mapping) and ":" in str(section.get("name"))
    ]
    known = list(dict.fromkeys([*ANALYSES, *own]))
    for name in only:
        if name not in known:
            raise names.choices("analysis", name, known)
        if name not in config:
            raise names.ConfigError(f"the config lacks the section {name!r}")
    for name in config:
        if name not in ("name", "study", *known):
            raise names.choices("key of the config", name, ["study", *ANALYSES])
    chosen = [name for name in known if name in (only or config)]
    for name in chosen:
        if not isinstance(config[name], Mapping):
            raise names.ConfigError(
                f"analysis {name!r} must be a section, got {config[name]!r}"
            )
        found, settings = resolve(name, config[name])
        supplied = ("net", "directory")
        names.check_fields(f"analysis {name!r}", found.measure, settings, supplied)
        if found is ANALYSES.get(name):
            _check_numbers(name, settings)
            if trains and name in OF_A_BATCH:
                _check_images(name, settings, study.expand(config["study"]))
        found.check(settings)
    return chosen


def _check_numbers(name: str, settings: Settings) -> None:
    for key, value in settings.items():
        least = LEAST.get(f"{name}.{key}", LEAST.get(name, 0))
        for one in value if isinstance(value, list | tuple) else (value,):
            if isinstance(one, int) and one < least:
                what = f"{name}.{key} must be at least {least}"
                raise names.ConfigError(f"{what}, got {one}")


def _check_images(name: str, settings: Settings, runs: Sequence[study.Run]) -> None:
    for run in runs:
        size, images = run.config["batch_size"], settings["images"]
        group = Group(run.family, run.depth, ())
        if images > size and ANALYSES[name].wants(group, settings):
            limit = f"{size}, the batch size of {group.name}; got {images}"
            raise names.ConfigError(f"{name}.images must be at most {limit}")
