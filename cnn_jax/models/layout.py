"""Two layouts of a deep net's variables: one tree per block, or stacked stages.

    unrolled    stage1_block2/conv1/kernel   (3, 3, 16, 16)
                stage1_block3/conv1/kernel   (3, 3, 16, 16)
                ...
    stacked     stage1_blocks/conv1/kernel   (n - 1, 3, 3, 16, 16)

Checkpoints and exchanged weights use the unrolled layout; a loop over the blocks
needs the stacked one (``scan`` of `cnn_jax.models.resnet.ResNet`). Conversion is
exact and works on any tree that contains the variables or mirrors them, such as an
optimizer's state. A module declares its stacks in a method ``stacks``.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

# The fields of a module that has ``stacks``.
FIELDS = ("scan", "remat")
# Number of looped blocks from which loops pay. On CPU, with steps of 128 images of 8x8
# at half width, unrolled against looped, in milliseconds per layer: depth 20 0.48 and
# 0.57, depth 56 0.56 and 0.54, depth 110 (51 looped blocks) 0.68 and 0.57. Seconds of
# CPU time to trace and compile: 3.1 and 5.1, 5.2 and 5.7, 8.5 and 5.2. Other backends
# were not measured: there a loop prevents fusion across its ends, and compilation is
# slower.
LOOP_FROM = {"cpu": 50, "other": 100}


def stack(tree: Any, module: nn.Module) -> Any:
    """Convert variables of the unrolled net to the layout of ``module``.

    Args:
      tree: a pytree that contains the variables of the unrolled net.
      module: the network; if it stacks nothing, the tree is returned unchanged.

    Returns:
      The tree with one leaf (blocks, ...) in place of the leaves of a stack's blocks:
      a NumPy array if all of them are.

    Raises:
      ValueError: only some of a stack's blocks are present.
    """
    stacks = _stacks(module)
    if not stacks:
        return tree
    firsts = [blocks[0] for blocks in stacks.values()]

    def convert(node: Any) -> Any:
        if not _has(node, firsts):
            return node
        node = dict(node)
        for name, blocks in stacks.items():
            if blocks[0] in node:
                missing = [block for block in blocks if block not in node]
                if missing:
                    raise ValueError(
                        f"variables of another network: {missing[0]!r} is missing"
                    )
                node[name] = jax.tree.map(_pile, *map(node.pop, blocks))
        return node

    return jax.tree.map(convert, tree, is_leaf=lambda node: _has(node, firsts))


def unroll(tree: Any, module: nn.Module) -> Any:
    """Convert variables of ``module`` to the unrolled layout: the inverse of `stack`.

    Args:
      tree: a pytree that contains the variables of the module.
      module: the network; if it stacks nothing, the tree is returned unchanged.

    Returns:
      The tree with separate leaves for each block.

    Raises:
      ValueError: a stack does not have this module's number of blocks.
    """
    stacks = _stacks(module)
    if not stacks:
        return tree

    def convert(node: Any) -> Any:
        if not _has(node, stacks):
            return node
        node = dict(node)
        for name, blocks in stacks.items():
            if name in node:
                leaves, structure = jax.tree.flatten(node.pop(name))
                split = [_split(leaf, len(blocks)) for leaf in leaves]
                for block, own in zip(blocks, zip(*split, strict=True), strict=True):
                    node[block] = jax.tree.unflatten(structure, own)
        return node

    return jax.tree.map(convert, tree, is_leaf=lambda node: _has(node, stacks))


def unrolled(module: nn.Module) -> nn.Module:
    """The same network without loops or rematerialisation."""
    if hasattr(module, "stacks"):
        return module.clone(scan=False, remat=False)
    return module


def fastest(module: nn.Module, platform: str) -> nn.Module:
    """The same network, with loops over its blocks if it is deep enough to gain.

    The loop stores only the blocks' inputs and recomputes the rest, which on a CPU is
    faster than writing and reading it. A network with stochastic depth is returned
    unchanged: in a loop its blocks would draw other random numbers, and the results
    of a run must not depend on the backend.

    Args:
      module: a network.
      platform: platform of the devices ('cpu', 'gpu', ...).

    Returns:
      The network with ``scan`` and ``remat``, or unchanged.
    """
    if not hasattr(module, "stacks") or bool(getattr(module, "stochastic_depth", 0.0)):
        return module
    looped = module.clone(scan=True, remat=True)
    blocks = sum(map(len, looped.stacks().values()))
    return looped if blocks >= LOOP_FROM.get(platform, LOOP_FROM["other"]) else module


def _stacks(module: nn.Module) -> dict[str, tuple[str, ...]]:
    return module.stacks() if hasattr(module, "stacks") else {}


def _has(node: Any, keys: Any) -> bool:
    return isinstance(node, Mapping) and any(key in node for key in keys)


def _pile(*leaves: Any) -> Any:
    if all(isinstance(leaf, np.ndarray) for leaf in leaves):
        return np.stack(leaves)
    return jnp.stack(leaves)


def _split(leaf: Any, count: int) -> list[Any]:
    if not leaf.shape or leaf.shape[0] != count:
        raise ValueError(
            f"variables of another network: expected {count} blocks in a stack, got "
            f"an array of shape {leaf.shape}"
        )
    if isinstance(leaf, np.ndarray):
        return [leaf[index, ...] for index in range(count)]
    return list(leaf)
