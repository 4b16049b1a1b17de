"""An agent's state after its configuration was edited: values moved by no gradient or tuner are the configured ones."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from gradweave.agents.self_tuning import SelfTuning
from gradweave.agents.state import SelfTuningState, leaf_name
from gradweave.core.bijectors import split_learned

__all__ = ["as_configured"]


def as_configured(agent: SelfTuning, state: SelfTuningState) -> SelfTuningState:
    """The state with the agent's own values of the meta-parameters that neither the meta-gradient nor a tuner moves.

    Also of the state that a guard would go back to. Where nothing was edited the state stays the same to the bit.

    Args:
        agent: built from the configuration as it is now.
        state: from a checkpoint, which may be older than the configuration.
    """

    def fixed_in(old: PyTree) -> PyTree:
        scheduled = agent.schedule is not None
        base = old.weights.base if scheduled else old
        configured = split_learned(agent.initial_raw, agent.spec)[1]

        def one(path: Any, before: Array, now: Array) -> Array:
            # A copy, since buffers are donated.
            return before if leaf_name(path) in agent.tuners else jnp.array(now, before.dtype)

        base = jax.tree_util.tree_map_with_path(one, base, configured)
        return old._replace(weights=old.weights._replace(base=base)) if scheduled else base

    state = state._replace(fixed=fixed_in(state.fixed))
    if agent.guard is None:
        return state
    saved = state.guard.saved
    return state._replace(guard=state.guard._replace(saved=saved._replace(fixed=fixed_in(saved.fixed))))
