"""Weight files: safetensors, read and written without torch; torch's, read only."""

import argparse
import os
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from flax import traverse_util
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save

from cnn_jax import names

# Suffixes that training scripts give to files of `torch.save`.
TORCH = (".pt", ".pth", ".th", ".tar", ".bin", ".ckpt")
# Prefixes that DataParallel, `torch.compile` and Lightning modules add to every name.
PREFIXES = ("module.", "_orig_mod.", "model.", "net.")

Shapes = Mapping[str, tuple[int, ...]]


def read_tensors(path: str | Path) -> dict[str, np.ndarray]:
    """Read the named arrays of a file.

    Checkpoints of training scripts are supported: the state_dict may lie beside an
    epoch number or an optimizer's state, and wrappers' prefixes are stripped from
    its names.

    Args:
      path: a ``.safetensors`` file, or a torch file (`TORCH`), which torch reads
        (tensors only, no code).

    Returns:
      Arrays by name.

    Raises:
      ConfigError: no such file, unknown suffix, wrong or damaged content, tensors of
        a type that NumPy lacks (FP8), content that requires running code, or torch is
        needed and not installed.
    """
    path = Path(path)
    if path.suffix not in (".safetensors", *TORCH):
        raise _refuse(path, f"expected a .safetensors file, or {', '.join(TORCH)}")
    if not path.is_file():
        raise _refuse(path, "the file does not exist")
    with open(path, "rb") as file:
        if file.read(64).lstrip()[:1] == b"<":
            raise _refuse(path, "the file is a web page; download the weights again")
    if path.suffix == ".safetensors":
        try:
            tensors = load_file(path)
        except SafetensorError as error:
            raise _refuse(path, f"not a safetensors file ({error})") from error
        except (AttributeError, KeyError, TypeError) as error:  # NumPy lacks the type
            raise _refuse(path, f"unsupported tensor type ({error})") from error
    else:
        tensors = {
            name: (tensor.float() if tensor.is_floating_point() else tensor).numpy()
            for name, tensor in _state_dict(path).items()
        }
    while prefix := _common_prefix(tensors):
        tensors = {key.removeprefix(prefix): value for key, value in tensors.items()}
    return tensors


def _refuse(path: Path, reason: str) -> names.ConfigError:
    return names.ConfigError(f"weights {str(path)!r}: {reason}")


def _common_prefix(tensors: Mapping[str, Any]) -> str:
    """The first of `PREFIXES` that all names share; '' if none."""
    common = (p for p in PREFIXES if all(name.startswith(p) for name in tensors))
    return next(common, "") if tensors else ""


def _state_dict(path: Path) -> Mapping[str, Any]:
    """The state_dict in a torch file, bare or inside a checkpoint."""
    try:
        import torch
    except ImportError as error:
        raise _refuse(
            path,
            "only torch reads this format: run `pip install -e '.[peer]'` in the "
            "project's folder, or save the weights as safetensors",
        ) from error
    try:
        # Many scripts also save their flags; a Namespace runs no code.
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch, zip and pickle raise many types
        other = re.search(r"GLOBAL (\S+)", str(error))
        if other:
            raise _refuse(
                path,
                f"the file contains {other[1]}, and loading it could execute code from "
                "the file; save only the tensors where it was created: "
                "torch.save(model.state_dict(), 'weights.pth')",
            ) from error
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise _refuse(path, f"damaged, or not a torch file ({reason})") from error

    def is_state_dict(value: Any) -> bool:
        return isinstance(value, Mapping) and all(map(torch.is_tensor, value.values()))

    if is_state_dict(content):
        return content
    inside = dict(content) if isinstance(content, Mapping) else {}
    found = [key for key, value in inside.items() if value and is_state_dict(value)]
    if len(found) != 1:
        several = f"several ({', '.join(map(str, found))})" if found else "none"
        raise _refuse(
            path,
            f"expected one state_dict (a dict of tensors), found {several}; save a "
            "single one where it was created: "
            "torch.save(model.state_dict(), 'weights.pth')",
        )
    return inside[found[0]]


def read_metadata(path: str | Path) -> dict[str, str]:
    """The metadata strings of a ``.safetensors`` file.

    Raises:
      ConfigError: no such file, or not a safetensors file.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            return dict(file.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise _refuse(Path(path), f"not a safetensors file ({error})") from error


def write_tensors(
    path: str | Path,
    tensors: Mapping[str, np.ndarray],
    metadata: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Write named arrays to a ``.safetensors`` file atomically.

    Args:
      path: the file.
      tensors: arrays by name.
      metadata: strings to store with them.

    Raises:
      ConfigError: another suffix, or a path that cannot be written.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise _refuse(path, "expected a .safetensors file")
    if path.is_dir():
        raise _refuse(path, "expected a file, but this is a directory")
    part = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.tmp")
    arrays = {name: np.asarray(value, order="C") for name, value in tensors.items()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(part, "wb") as file:
            file.write(save(arrays, dict(metadata) or None))
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except (OSError, SafetensorError) as error:
        raise _refuse(path, f"cannot be written: {error}") from error
    finally:
        if part.is_file():
            part.unlink()


def check_shapes(what: str, found: Shapes, expected: Shapes) -> None:
    """Reject tensors whose names or shapes differ from the expected ones.

    Args:
      what: what the tensors should be, for the message.
      found: their shapes by name.
      expected: the right ones.

    Raises:
      ValueError: a tensor is missing, unknown, or of another shape.
    """
    for problem, those in (
        ("lacks", [name for name in expected if name not in found]),
        ("has the unknown tensor", [name for name in found if name not in expected]),
    ):
        if those:
            more = f" and {len(those) - 1} more" if len(those) > 1 else ""
            raise ValueError(
                f"not {what}: it {problem} {those[0]!r}{more} "
                f"({len(expected)} tensors expected, {len(found)} found)"
            )
    for name, shape in expected.items():
        if found[name] != shape:
            raise ValueError(
                f"not {what}: {name!r} should have shape {shape}, got {found[name]}"
            )


def flatten(variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Variables under names such as 'params/stem_conv/kernel'."""
    flat = traverse_util.flatten_dict(dict(variables), sep="/")
    return {name: np.asarray(value) for name, value in flat.items()}


def unflatten(tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Nested variables from flat names: the inverse of `flatten`."""
    return traverse_util.unflatten_dict(dict(tensors), sep="/")
