"""Read a run's agent without touching the run: no lock, no change to its metrics, also while it is still training."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from gradweave.config.schema import Config
from gradweave.config.toml_file import read_config
from gradweave.config.validation import validate
from gradweave.errors import CheckpointError
from gradweave.runs.run_folder import checkpoint_steps, find_run

if TYPE_CHECKING:  # imports JAX, which bad arguments must not wait for
    from gradweave.agents import SelfTuning, SelfTuningState

__all__ = ["LoadedAgent", "check_run", "read_agent"]


class LoadedAgent(NamedTuple):
    """An agent as a checkpoint has it."""

    config: Config
    agent: "SelfTuning"
    state: "SelfTuningState"
    step: int
    """Environment steps done."""


def check_run(path: Path, step: int | None = None) -> Config:
    """The configuration of a run from which an agent can be read.

    Args:
        path: the run's folder.
        step: environment steps of the checkpoint that is wanted; None: any.

    Raises:
        ConfigError: there is no run, or its config.toml is bad.
        CheckpointError: there is no checkpoint, or none of this step.
    """
    config = read_config(find_run(path) / "config.toml")
    validate(config)
    steps = checkpoint_steps(path)
    if not steps:
        raise CheckpointError(
            f"there is no checkpoint in {path / 'checkpoints'} yet; wait for the first, or train again"
        )
    if step is not None and step not in steps:
        raise CheckpointError(
            f"there is no checkpoint of step {step} in {path}; there are {', '.join(map(str, steps))}"
        )
    return config


def read_agent(path: Path, step: int | None = None, warn: Callable[[str], None] = warnings.warn) -> LoadedAgent:
    """The agent of a run at one of its checkpoints.

    Args:
        path: the run's folder.
        step: environment steps of the checkpoint; by default the newest that verifies.
        warn: told of each newer checkpoint that does not.

    Raises:
        ConfigError: there is no run, or its config.toml is bad.
        CheckpointError: there is no such checkpoint, or it is damaged or of another run.
    """
    config = check_run(path, step)
    import jax

    from gradweave.agents.edited import as_configured
    from gradweave.runs.checkpoints import checkpoint_path, describe, newest_good
    from gradweave.runs.identity import check_origin, raise_changed, unaccepted
    from gradweave.runs.provenance import recorded
    from gradweave.training.build import build_agent, init_state
    from gradweave.training.checkpoints import Checkpoint, load
    from gradweave.training.nonfinite import check_checkpoint

    folder = path / "checkpoints"
    run_id, accepted = recorded(path)
    agent = build_agent(config)
    like: Any = jax.eval_shape(lambda: init_state(agent, config, key=jax.random.key(config.run.seed)))

    def own(file: Path) -> Checkpoint:
        found = describe(file)
        check_origin(file, found, run_id)
        changes = unaccepted((file, found), config, accepted)
        if changes:
            raise_changed(path, found.step, changes)
        checkpoint = load(file, like)
        check_checkpoint(agent.environment_steps, checkpoint)
        return checkpoint

    checkpoint = newest_good(folder, own, warn)[1] if step is None else own(checkpoint_path(folder, step))
    return LoadedAgent(config, agent, as_configured(agent, checkpoint.tree), checkpoint.step)
