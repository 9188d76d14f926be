"""Two layouts of a deep net's variables: block by block, or stages as stacks.

    unrolled    stage1_block2/conv1/kernel   (3, 3, 16, 16)
                stage1_block3/conv1/kernel   (3, 3, 16, 16)
                ...
    stacked     stage1_blocks/conv1/kernel   (n - 1, 3, 3, 16, 16)

The first is the one to read, to keep and to exchange; the second is what a loop
over the blocks wants (``scan`` of `cnn_jax.models.resnet.ResNet`). Any tree that
holds the variables, or mirrors them as an optimizer's state does, is converted,
exactly. A module tells what it stacks by a method ``stacks``.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

# The fields of a module that has ``stacks``.
FIELDS = ("scan", "remat")
# Blocks in loops from which these pay. CPU, steps of 128 images of 8x8 at half width,
# milliseconds a layer, unrolled and looped: depth 20 0.48 and 0.57, depth 56 0.56
# and 0.54, depth 110 (51 blocks in loops) 0.68 and 0.57; seconds of CPU to trace and
# compile: 3.1 and 5.1, 5.2 and 5.7, 8.5 and 5.2. Other backends were not measured:
# there a loop keeps the compiler from fusing over its ends, and compiling is slower.
LOOP_FROM = {"cpu": 50, "other": 100}


def stack(tree: Any, module: nn.Module) -> Any:
    """Variables of the unrolled net as ``module`` has them.

    Args:
      tree: a pytree with the variables of the unrolled net somewhere in it.
      module: the network; where it stacks nothing, the tree comes back as it is.

    Returns:
      The tree with a leaf (blocks, ...) for the leaves of the blocks of a stack:
      NumPy's where all of them are.

    Raises:
      ValueError: some of a stack's blocks are there and others are not.
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
                    raise ValueError(f"variables of another network: no {missing[0]!r}")
                node[name] = jax.tree.map(_pile, *map(node.pop, blocks))
        return node

    return jax.tree.map(convert, tree, is_leaf=lambda node: _has(node, firsts))


def unroll(tree: Any, module: nn.Module) -> Any:
    """Variables that ``module`` has, as those of the unrolled net: `stack` undone.

    Args:
      tree: a pytree with the variables of the module somewhere in it.
      module: the network; where it stacks nothing, the tree comes back as it is.

    Returns:
      The tree with the leaves of each block.

    Raises:
      ValueError: a stack is not of this module's number of blocks.
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
    """The same network, block by block and keeping what its backward pass needs."""
    if hasattr(module, "stacks"):
        return module.clone(scan=False, remat=False)
    return module


def fastest(module: nn.Module, platform: str) -> nn.Module:
    """The same network with loops over its blocks, where so many blocks gain by it.

    The loop keeps the blocks' inputs alone and computes the rest again: on a CPU
    that is faster than to write and read it. With stochastic depth the network stays
    as it is: in a loop the blocks draw other numbers, and the backend must not
    choose what a run computes.

    Args:
      module: a network.
      platform: of the devices ('cpu', 'gpu', ...).

    Returns:
      The network with ``scan`` and ``remat``, or as it is.
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
            f"variables of another network: {count} blocks expected in a stack, "
            f"got an array of shape {leaf.shape}"
        )
    if isinstance(leaf, np.ndarray):
        return [leaf[index, ...] for index in range(count)]
    return list(leaf)
