"""ReLU: values and derivatives; a compiled program computes it once."""

import re

import jax
import jax.numpy as jnp
import numpy as np

from cnn_jax.models.layers import relu


def test_values_and_not_a_number():
    x = jnp.array([-2.0, -0.0, 0.0, 3.0, jnp.inf, -jnp.inf, jnp.nan])
    expected = np.array([0.0, 0.0, 0.0, 3.0, np.inf, 0.0, np.nan])
    np.testing.assert_array_equal(relu(x), expected)


def test_derivative_is_0_at_0_in_every_mode():
    x = jnp.array([-2.0, 0.0, 3.0])
    np.testing.assert_array_equal(jax.grad(lambda x: (2 * relu(x)).sum())(x), [0, 0, 2])
    _, tangent = jax.jvp(relu, (x,), (jnp.ones(3),))
    np.testing.assert_array_equal(tangent, [0, 0, 1])
    cube = jax.vmap(jax.hessian(lambda x: relu(x) ** 3))
    np.testing.assert_array_equal(cube(x), [0, 0, 18])


def test_type_is_kept():
    assert relu(jnp.ones(2, jnp.bfloat16)).dtype == jnp.bfloat16


def largest_fusion(activation, depth=6):
    """Largest operand count of a fusion in the gradient of a chain of residual sums.

    The weight gradient of block i needs the activation of block i. Where that is
    recomputed, a fusion takes in the branches of all the blocks before it.
    """

    def loss(kernels, x):
        for kernel in kernels:
            branch = jax.lax.conv_general_dilated(
                x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
            x = activation(x + branch)
        return (x**2).sum()

    kernels = [jnp.full((3, 3, 20, 20), 0.01 * (i + 1)) for i in range(depth)]
    x = jnp.ones((16, 8, 8, 20))
    program = jax.jit(jax.grad(loss)).lower(kernels, x).compile().as_text()
    calls = re.findall(r"= f32\[20,8,8,16\]\S* fusion\(([^)]*)\)", program)
    assert len(calls) >= depth - 1, "the transposed operands of the weight gradients"
    return max(len(re.findall(r"%", call)) for call in calls)


def test_a_residual_chain_is_not_recomputed():
    assert largest_fusion(relu) <= 2
    # what this is about; should it fail one day, XLA copies maxima no more
    assert largest_fusion(lambda x: jnp.maximum(x, 0)) > 4
