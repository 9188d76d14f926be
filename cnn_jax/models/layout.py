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

    def convert(node: Any) -> Any:
        if not _has(node, [blocks[0] for blocks in stacks.values()]):
            return node
        node = dict(node)
        for name, blocks in stacks.items():
            if blocks[0] in node:
                missing = [block for block in blocks if block not in node]
                if missing:
                    raise ValueError(f"variables of another network: no {missing[0]!r}")
                node[name] = jax.tree.map(_pile, *map(node.pop, blocks))
        return node

    firsts = [blocks[0] for blocks in stacks.values()]
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

    def convert(node: Any) -> Any:
        if not _has(node, stacks):
            return node
        node = dict(node)
        for name, blocks in stacks.items():
            if name in node:
                leaves, structure = jax.tree.flatten(node.pop(name))
                split = [_split(leaf, len(blocks)) for leaf in leaves]
                for block, own in zip(blocks, zip(*split, strict=True), strict=True):
                    node[block] = structure.unflatten(own)
        return node

    return jax.tree.map(convert, tree, is_leaf=lambda node: _has(node, stacks))


def unrolled(module: nn.Module) -> nn.Module:
    """The same network without stacks."""
    return module.clone(scan=False) if _stacks(module) else module


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
