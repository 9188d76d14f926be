"""Classic convolutional networks in JAX/Flax and the degradation study.

    result = cnn_jax.train(config, "runs/first")  # as the command does
    net = cnn_jax.load_run("runs/first")          # network, config, class names
    logits = net.predict(images)                  # any number of uint8 images
    table = cnn_jax.load_study("runs/digits")     # pandas table, one row per run

Data flows ``data`` -> ``training`` (with ``models``) -> ``study`` -> ``plots``;
``analysis`` inspects trained networks. The commands are in ``experiments``.
"""

import importlib
from typing import Any

from cnn_jax.runtime.backend import choose_library

__version__ = "0.2.0"

# Imported on first use, because these modules take seconds to import.
_LATER = {
    "train": ("cnn_jax.training.run", "train"),
    "load_run": ("cnn_jax.analysis.exchange", "load_run"),
    "load_study": ("cnn_jax.study.results", "load"),
}

choose_library()


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _LATER[name]
    return getattr(importlib.import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER})
