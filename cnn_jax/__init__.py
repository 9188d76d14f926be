"""Classic convolutional networks in JAX/Flax and the degradation study.

Data flows ``data`` -> ``train`` (with ``models``) -> ``study`` -> ``plots``;
``analysis`` looks at trained networks. The commands are in ``experiments``.
"""

from cnn_jax.runtime.backend import choose_library

__version__ = "0.1.0"

choose_library()
