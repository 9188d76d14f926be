"""Weights in files: safetensors, read and written without torch."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flax import traverse_util
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from cnn_jax import names


def read_tensors(path: str | Path) -> dict[str, np.ndarray]:
    """The named arrays of a file.

    Args:
      path: a ``.safetensors`` file; or ``.pt``, ``.pth``, which torch reads (its
        tensors only, no code).

    Returns:
      Arrays by name.

    Raises:
      ConfigError: no such file, another suffix, not such a file, or torch is
        needed and not installed.
    """
    path = Path(path)
    if path.suffix not in (".safetensors", ".pt", ".pth"):
        raise names.ConfigError(
            f"weights {str(path)!r}: expected a .safetensors, .pt or .pth file"
        )
    if not path.is_file():
        raise names.ConfigError(f"weights {str(path)!r}: no such file")
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except SafetensorError as error:
            raise names.ConfigError(
                f"weights {str(path)!r}: not a safetensors file ({error})"
            ) from error
    try:
        import torch
    except ImportError as error:
        raise names.ConfigError(
            f"weights {str(path)!r}: only torch reads this format: run "
            "`pip install -e '.[peer]'` in the project's folder, or save the weights "
            "as safetensors"
        ) from error
    state = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(state, Mapping) or not all(map(torch.is_tensor, state.values())):
        raise names.ConfigError(
            f"weights {str(path)!r}: expected a state_dict, a dict of tensors only"
        )
    return {
        name: (tensor.float() if tensor.is_floating_point() else tensor).numpy()
        for name, tensor in state.items()
    }


def write_tensors(path: str | Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Write named arrays to a ``.safetensors`` file, whole or not at all.

    Raises:
      ConfigError: another suffix.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise names.ConfigError(f"weights {str(path)!r}: expected a .safetensors file")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    arrays = {name: np.asarray(value, order="C") for name, value in tensors.items()}
    save_file(arrays, part)
    part.replace(path)


def flatten(variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Variables under names such as 'params/stem_conv/kernel'."""
    flat = traverse_util.flatten_dict(dict(variables), sep="/")
    return {name: np.asarray(value) for name, value in flat.items()}


def unflatten(tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The variables that `flatten` named."""
    return traverse_util.unflatten_dict(dict(tensors), sep="/")
