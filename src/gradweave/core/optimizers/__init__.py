"""Optimisers inside and outside of a meta-gradient."""

from gradweave.core.optimizers.differentiable import differentiable
from gradweave.core.optimizers.guarded import GuardedState, guarded
from gradweave.core.optimizers.tunable import tunable

__all__ = ["GuardedState", "differentiable", "guarded", "tunable"]
