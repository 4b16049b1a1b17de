"""Central differences against a polynomial."""

import jax.numpy as jnp
import numpy as np
import pytest

import gradweave as gw


def test_finite_difference_of_a_cubic_and_what_it_refuses():
    def cubic(raw):
        return raw["a"] ** 3 + jnp.sum(raw["b"])

    raw, ones = {"a": jnp.array(2.0), "b": jnp.ones(2)}, {"a": jnp.array(1.0), "b": jnp.ones(2)}
    np.testing.assert_allclose(gw.finite_difference(cubic, raw, ones), 14.0, rtol=1e-9)
    np.testing.assert_allclose(
        gw.finite_difference(cubic, raw, ones, step=0.1), 14.0 + 0.1**2, rtol=1e-9
    )  # h^2 f''' / 6
    with pytest.raises(ValueError, match=r"direction has structure"):
        gw.finite_difference(cubic, raw, {"a": jnp.array(1.0)})
    with pytest.raises(ValueError, match=r"direction has shapes"):
        gw.finite_difference(cubic, raw, {"a": jnp.array(1.0), "b": jnp.array(1.0)})
    for step in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="must be above 0"):
            gw.finite_difference(cubic, raw, ones, step=step)
