"""Observation of an environment: a view, a few further numbers, and the allowed actions.

Every environment of gradweave speaks this one type, so that networks and rollouts are written once. A board goes in
`view` with a channel axis, a feature vector goes in `view` flat, and numbers that belong to no cell of a board (for
example the fraction of the time limit that is used up) go in `scalars`.
"""

from typing import NamedTuple

from jaxtyping import Array, Bool, Float

__all__ = ["Observation"]


class Observation(NamedTuple):
    """One observation, without a batch axis; batches of it have their axes in front of every field.

    Floats have JAX's default precision: `jnp.result_type(float)`.
    """

    view: Float[Array, "..."]
    """A board, (height, width, channels), or a vector, (features,)."""
    scalars: Float[Array, " num_scalars"]
    """Further numbers, of order one; may have length 0."""
    action_mask: Bool[Array, " num_actions"]
    """True where the action is allowed. Where none is, any is taken, all as likely, and the policy learns nothing."""
