"""How good is a meta-gradient? Bias, variance and signal-to-noise from independent samples.

Everything here works on any pytree of gradients, so the same functions serve a quadratic in a test and an agent on
Snake.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PyTree


class EstimatorStatistics(NamedTuple):
    """Statistics of n independent samples of a gradient. Fields shaped like one sample, except `cosine` and
    `num_samples`.

    Attributes:
        mean: sample mean.
        variance: unbiased sample variance, elementwise.
        standard_error: of the mean, sqrt(variance / n).
        snr: signal-to-noise of one sample, |mean| / sqrt(variance); 0 where both are 0, infinite where only the
            variance is.
        bias: mean - reference; None without a reference.
        mse: variance + bias ** 2, the mean squared error of one sample; None without a reference. The squared bias is
            itself biased up by the sampling variance of the mean.
        cosine: mean cosine between one sample and the reference (without one: the mean of all other samples, because a
            sample always resembles a mean that contains it), over all leaves together. In [-1, 1].
        sign_agreement: fraction of samples whose sign is that of the reference (without one: of the others' mean); a
            sample counts half where either is exactly 0.
        num_samples: n.
    """

    mean: PyTree
    variance: PyTree
    standard_error: PyTree
    snr: PyTree
    bias: PyTree | None
    mse: PyTree | None
    cosine: Float[Array, ""]
    sign_agreement: PyTree
    num_samples: int


def gradient_samples(
    sample: Callable[[Key[Array, ""]], PyTree], keys: Key[Array, " samples"], *, batch_size: int | None = None
) -> PyTree:
    """Many independent samples of the result of `sample`: one gradient, or a pytree of several estimators' on the
    same data.

    Args:
        sample: `(key) -> pytree`, pure: draws data with `key` and returns meta-gradients. Returning several estimators'
            gradients from one call pairs them on the same data, which makes their comparison far more precise.
        keys: one key for each sample.
        batch_size: the number of samples computed side by side (`jax.lax.map`); None: one after another, in the least
            memory.

    Returns:
        The pytree of `sample` with a leading axis of samples.

    Raises:
        TypeError: keys is no array of keys.
    """
    is_array = isinstance(keys, jax.Array | np.ndarray)
    if not is_array or keys.ndim != (1 if jnp.issubdtype(keys.dtype, jax.dtypes.prng_key) else 2):
        found = f"of shape {keys.shape} and dtype {keys.dtype}" if is_array else f"a {type(keys).__name__}"
        raise TypeError(f"keys must be an array of one key for each sample, jax.random.split(key, 32), but is {found}.")
    return jax.lax.map(sample, keys, batch_size=batch_size)


def estimator_statistics(samples: PyTree, reference: PyTree | None = None) -> EstimatorStatistics:
    """Statistics of independent gradient samples.

    Args:
        samples: pytree with a leading axis of n >= 2 samples.
        reference: pytree shaped like one sample, the gradient that is taken for true; without it bias and mse are None.

    Raises:
        ValueError: fewer than two samples, or a reference of another structure or shape.
    """
    leaves = jax.tree.leaves(samples)
    if not leaves or jnp.ndim(leaves[0]) == 0 or leaves[0].shape[0] < 2:
        raise ValueError("samples needs a leading axis of at least 2 samples: a variance cannot be had from fewer.")
    given: Any = jax.tree.structure(samples if reference is None else reference)
    if given != jax.tree.structure(samples):
        raise ValueError(
            f"the reference has structure {given}, the samples {jax.tree.structure(samples)}; they must be the same."
        )
    expected = [jnp.shape(leaf)[1:] for leaf in leaves]
    given = expected if reference is None else [jnp.shape(leaf) for leaf in jax.tree.leaves(reference)]
    if given != expected:
        raise ValueError(f"the reference has shapes {given}, one sample {expected}; they must be the same.")
    count = leaves[0].shape[0]
    mean = jax.tree.map(lambda leaf: leaf.mean(0), samples)
    variance = jax.tree.map(lambda leaf: leaf.var(0, ddof=1), samples)
    standard_error = jax.tree.map(lambda leaf: jnp.sqrt(leaf / count), variance)
    if reference is None:
        bias, target = None, jax.tree.map(lambda leaf: (leaf.sum(0, keepdims=True) - leaf) / (count - 1), samples)
    else:
        bias = jax.tree.map(jnp.subtract, mean, reference)
        target = jax.tree.map(lambda true, leaf: jnp.broadcast_to(true, leaf.shape), reference, samples)
    mse = None if bias is None else jax.tree.map(lambda spread, shift: spread + shift**2, variance, bias)
    return EstimatorStatistics(
        mean=mean,
        variance=variance,
        standard_error=standard_error,
        snr=jax.tree.map(_signal_to_noise, mean, variance),
        bias=bias,
        mse=mse,
        cosine=_mean_cosine(samples, target),
        sign_agreement=jax.tree.map(
            lambda leaf, true: (1 + (jnp.sign(leaf) * jnp.sign(true)).mean(0)) / 2, samples, target
        ),
        num_samples=count,
    )


def _signal_to_noise(mean: Array, variance: Array) -> Array:
    noise = jnp.sqrt(variance)
    silent = noise == 0
    return jnp.where(silent, jnp.where(mean == 0, 0.0, jnp.inf), jnp.abs(mean) / jnp.where(silent, 1.0, noise))


def _mean_cosine(samples: PyTree, target: PyTree) -> Float[Array, ""]:
    flat, true = (
        jnp.concatenate([leaf.reshape(leaf.shape[0], -1) for leaf in jax.tree.leaves(tree)], axis=1)
        for tree in (samples, target)
    )
    norms = jnp.linalg.norm(flat, axis=1) * jnp.linalg.norm(true, axis=1)
    return jnp.mean(jnp.where(norms > 0, (flat * true).sum(1) / jnp.where(norms > 0, norms, 1.0), 0.0))
