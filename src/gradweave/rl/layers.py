"""Dense layers and convolutions whose leaves are all arrays, and how their weights are drawn.

Convolutions are written as patches times a matrix. Outside of loops that costs about the same on CPU as XLA's own
convolution; inside a `lax.scan`, where all learning takes place, the derivatives of XLA's are many times slower.
Patches are cut out by a few static slices, not by a gather, whose derivative is a scatter.
"""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

__all__ = ["Convolution", "Dense", "draw_dense"]

_LONG = 32  # inputs of a patch from which the product's derivative is worth guarding


class Dense(eqx.Module):
    """Affine map y = x W + b."""

    weight: Float[Array, "num_in num_out"]
    bias: Float[Array, " num_out"]

    def __call__(self, inputs: Float[Array, "*batch num_in"]) -> Float[Array, "*batch num_out"]:
        """Map the last axis."""
        return inputs @ self.weight + self.bias


class Convolution(eqx.Module):
    """Convolution of a board with SAME padding: ceil(height / stride) by ceil(width / stride) outputs.

    Equal to `jax.lax.conv_general_dilated` with the weight reshaped to (kernel_size, kernel_size, num_in, num_out).
    """

    dense: Dense
    """From the kernel_size² num_in numbers of one patch, ordered by row, column, channel."""
    kernel_size: int = eqx.field(static=True)
    stride: int = eqx.field(static=True)

    def __call__(self, board: Float[Array, "height width num_in"]) -> Float[Array, "new_height new_width num_out"]:
        """Convolve one board."""
        patches, dense = _patches(board, self.kernel_size, self.stride), self.dense
        # The first convolution's few inputs are quicker the usual way (benchmarks/).
        product = _long_product if dense.weight.shape[0] >= _LONG else jnp.matmul
        return product(patches, dense.weight) + dense.bias


@jax.custom_jvp
def _long_product(inputs: Float[Array, "*batch num_in"], weight: Array) -> Array:
    """`inputs @ weight`, whose derivative by the weight XLA's CPU compiler is not to rearrange.

    That derivative sums over thousands of patches. Automatic differentiation writes it as (cotangents' inputs)', which
    is quick; the compiler turns it into (inputs' cotangents), which is right, shorter, and takes three times as long.
    Each use of the weight needs a barrier of its own, because sums of derivatives would be rearranged as well.
    """
    return inputs @ weight


@_long_product.defjvp
def _long_product_jvp(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    (inputs, weight), (inputs_dot, weight_dot) = primals, tangents
    return _long_product(inputs, weight), inputs_dot @ _kept(weight) + inputs @ _barred(weight_dot)


@jax.custom_jvp
def _kept(weight: Array) -> Array:
    """The weight, with a barrier before its cotangent."""
    return weight


@_kept.defjvp
def _kept_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    return _kept(primals[0]), _barred(tangents[0])


def _barred(matrix: Array) -> Array:
    """The matrix; of its cotangent the transpose is fixed before it is turned round."""
    return jax.lax.optimization_barrier(matrix.T).T


def draw_dense(num_in: int, num_out: int, scale: float, dtype: jnp.dtype, *, key: Key[Array, ""]) -> Dense:
    """Biases of 0 and weights from a normal distribution of standard deviation scale / sqrt(num_in), cut off at two.

    The standard deviation is that before the cut, as in Haiku; after it, it is 0.88 of that.
    """
    weight = jax.random.truncated_normal(key, -2.0, 2.0, (num_in, num_out), dtype)
    return Dense(weight * (scale / math.sqrt(num_in)), jnp.zeros(num_out, dtype))


def _patches(board: Float[Array, "height width num_in"], size: int, stride: int) -> Float[Array, "rows columns num"]:
    """The patch that every output of a SAME convolution sees, its size² num_in numbers by row, column, channel."""
    height, width, num_channels = board.shape
    rows, columns = math.ceil(height / stride), math.ceil(width / stride)
    if size == 1 and stride == 1:
        return board
    top, bottom = _same_padding(height, size, stride)
    left, right = _same_padding(width, size, stride)
    if top or bottom or left or right:
        board = jnp.pad(board, ((top, bottom), (left, right), (0, 0)))
    if size == stride:  # patches tile the board: nothing is copied twice
        tiles = board.reshape(rows, size, columns, size, num_channels)
        return tiles.transpose(0, 2, 1, 3, 4).reshape(rows, columns, size * size * num_channels)
    slices = [
        jax.lax.slice(
            board,
            (row, column, 0),
            (row + (rows - 1) * stride + 1, column + (columns - 1) * stride + 1, num_channels),
            (stride, stride, 1),
        )
        for row in range(size)
        for column in range(size)
    ]
    return jnp.concatenate(slices, axis=-1)


def _same_padding(length: int, size: int, stride: int) -> tuple[int, int]:
    """Zeros before and after: as many as the last patch reaches over the edge, the odd one after."""
    total = max((math.ceil(length / stride) - 1) * stride + size - length, 0)
    return total // 2, total - total // 2
