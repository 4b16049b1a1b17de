"""The meta-gradient of a collected window, with or without a sampling correction."""

from typing import TYPE_CHECKING

import jax.numpy as jnp

from gradweave.agents.agent import SamplingTerms
from gradweave.agents.state import CollectedWindow, SelfTuningState
from gradweave.core import MetaGradient, Recording, corrected_meta_gradient, meta_gradient

if TYPE_CHECKING:
    from gradweave.agents.self_tuning import SelfTuning

__all__ = ["sampling_terms", "window_gradient"]


def window_gradient(agent: "SelfTuning", state: SelfTuningState, window: CollectedWindow) -> MetaGradient:
    """The meta-gradient of a window that an agent collected from `state`."""
    recorded = agent.mode.recording is Recording and window.recording.gradients is not None
    recording = window.recording if recorded else None
    if agent.sampling_correction is None:
        return meta_gradient(
            agent.meta_problem,
            state.raw,
            agent.meta_spec,
            state.learner,
            window.batches,
            window.outer_batches,
            estimator=agent.estimator,
            mode=agent.mode,
            estimator_state=state.estimator_state,
            recording=recording if window.horizons is None else window.horizons,
        )
    return corrected_meta_gradient(
        agent.meta_problem,
        state.raw,
        agent.meta_spec,
        state.learner,
        window.batches,
        correction=agent.sampling_correction,
        log_prob=sampling_terms(agent).log_likelihood,
        reward=sampling_terms(agent).mean_reward,
        estimator=agent.estimator,
        baseline=jnp.zeros(()) if state.usual_reward is None else state.usual_reward.mean(0.0),
        mode=agent.mode,
        recording=recording,
    )


def sampling_terms(agent: "SelfTuning") -> SamplingTerms:
    """The agent's functions for the sampling correction.

    Raises:
        ValueError: the agent does not give it, or its batches do not both update and evaluate.
    """
    terms = agent.agent.sampling
    if terms is None:
        raise ValueError(
            "a sampling correction needs Agent.sampling, the log-likelihood and mean reward of a batch, which this "
            "agent does not give (an actor-critic does, unless it standardises advantages, which are not in units "
            "of rewards); leave sampling_correction out."
        )
    if agent.outer_rollout == "own":
        raise ValueError('a sampling correction needs batches that update and evaluate: outer_rollout="next".')
    return terms
