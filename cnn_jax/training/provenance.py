"""Provenance of a run: version and commit of the package, plugins, JAX settings."""

import contextlib
import functools
import importlib.metadata
import pathlib
import re
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import jax

from cnn_jax.training.files import sha256

PACKAGE = pathlib.Path(__file__).resolve().parents[1]
PLUGIN = re.compile(r"([\w.]+):[\w.]+")
# JAX settings that change random draws or results, by their environment variables.
SETTINGS = ("JAX_DEFAULT_PRNG_IMPL", "JAX_THREEFRY_PARTITIONABLE", "JAX_ENABLE_X64")
FINGERPRINT, BN_IMAGES = "data_fingerprint", "bn_images"
# The library that computed a run's convolutions when it began.
CONVOLUTIONS = "convolutions"
# What is recorded with a run's config and must be the same on resume, and what may
# change: another library rounds differently.
FIXED = (FINGERPRINT, BN_IMAGES, *SETTINGS)
RECORDED = (*FIXED, CONVOLUTIONS)


def recorded(program: Any) -> dict[str, Any]:
    """What a run depends on besides its config: data, batch norm and JAX's settings."""
    groups = {BN_IMAGES: program.bn_images} if program.has_batch_norm else {}
    return {FINGERPRINT: program.source.fingerprint, **groups, **settings()}


def settings() -> dict[str, Any]:
    """The JAX settings that a run depends on, by their environment variables."""
    return {name: getattr(jax.config, name.lower()) for name in SETTINGS}


def plugins(config: Mapping[str, Any]) -> dict[str, str]:
    """Checksums of the plugins (``package.module:attribute``) that a config names.

    Args:
      config: a run's config, whose plugins have been imported.

    Returns:
      SHA-256 of each plugin's file, by module; modules of this package are left out.
      The other loaded modules of the plugin's package count too, unless it is an
      installed library.
    """
    found: dict[str, str] = {}

    def add(name: str) -> None:
        file = getattr(sys.modules.get(name), "__file__", None)
        if file and not pathlib.Path(file).resolve().is_relative_to(PACKAGE):
            with contextlib.suppress(OSError):  # a module without a source file
                found[name] = sha256(pathlib.Path(file).read_bytes())

    def look(value: Any) -> None:
        if isinstance(value, Mapping):
            value = list(value.values())
        if isinstance(value, list | tuple):
            for inner in value:
                look(inner)
        elif isinstance(value, str) and (match := PLUGIN.fullmatch(value)):
            add(match[1])
            package = match[1].rpartition(".")[0]
            file = getattr(sys.modules.get(match[1]), "__file__", None) or ""
            if package and "site-packages" not in file:
                for name in [n for n in sys.modules if n.startswith(f"{package}.")]:
                    add(name)

    look(config)
    return found


@functools.cache
def version() -> dict[str, str]:
    """This package's 'version' and, if it runs from a git checkout, its 'commit'."""
    try:
        found = {"version": importlib.metadata.version("cnn_jax")}
    except importlib.metadata.PackageNotFoundError:  # run from an unpacked archive
        found = {"version": "unknown"}
    # A virtual environment may lie inside another project's repository.
    if _git("ls-files", "names.py"):
        commit = _git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
        found |= {"commit": commit} if commit else {}
    return found


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(
            ("git", "-C", PACKAGE, *arguments),
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
