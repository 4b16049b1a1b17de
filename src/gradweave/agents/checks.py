"""Checks for parts of a self-tuning agent that do not go together."""

from typing import TYPE_CHECKING

from gradweave.agents.differentiation import sampling_terms
from gradweave.agents.tuners import check_tuners
from gradweave.core import GradientLearner
from gradweave.core.bijectors import split_learned
from gradweave.core.estimators.base import chosen_mode
from gradweave.core.sampling_correction import check_correctable

if TYPE_CHECKING:
    from gradweave.agents.self_tuning import SelfTuning

__all__ = ["check_parts"]


def check_parts(agent: "SelfTuning") -> None:
    """Raise where an agent cannot learn as it was put together.

    Raises:
        ValueError: a number is out of range, or two parts exclude each other; the message names them and a remedy.
        TypeError: the mode cannot differentiate the estimator.
    """
    if agent.num_inner_steps < 1 or agent.num_steps < 1:
        raise ValueError(
            f"num_inner_steps={agent.num_inner_steps} and num_steps={agent.num_steps} must both be at least 1."
        )
    if agent.outer_rollout not in ("next", "own"):
        raise ValueError(f'outer_rollout={agent.outer_rollout!r} is not known: give "next" or "own".')
    if agent.learns:
        agent.estimator.check(agent.num_inner_steps)
        chosen_mode(agent.estimator, agent.mode)
        if agent.sampling_correction is not None:
            check_correctable(agent.estimator)
            sampling_terms(agent)
    _check_schedule(agent)
    diverges = agent.agent.divergence is not None
    if agent.trust_region is not None:
        if not agent.trust_region > 0:
            raise ValueError(f"trust_region={agent.trust_region} must be above 0, or None.")
        if not (agent.learns and diverges):
            raise ValueError(
                "a trust region cuts moves of learned meta-parameters by Agent.divergence, (state before, state after, "
                "batch) -> mean KL: let one be learned and give it, or leave trust_region out."
            )
    check_tuners(agent.tuners, split_learned(agent.initial_raw, agent.spec)[1], diverges)


def _check_schedule(agent: "SelfTuning") -> None:
    if agent.schedule is None:
        return
    if agent.schedule.reads == "rewards" and agent.agent.sampling is None:
        raise ValueError("a schedule of rewards reads Agent.sampling, the mean reward of a batch; give it.")
    if agent.schedule.reads == "learning" and not isinstance(agent.agent.problem, GradientLearner):
        raise ValueError("a schedule reads the norm of inner gradients, which only a GradientLearner reports.")
    if not agent.learns:
        raise ValueError(
            "a schedule moves learned meta-parameters, but every leaf of the spec is Fixed; let one be learned, or "
            "leave the schedule out."
        )
    if agent.tuners:
        raise ValueError("a schedule moves every learned meta-parameter by itself; leave it or the tuners out.")
