"""A trained agent as an object: it acts, and its metrics are a table."""

import functools
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradweave.config.schema import Config
from gradweave.errors import ConfigError
from gradweave.runs.metrics import read_metrics
from gradweave.training.loading import read_agent

if TYPE_CHECKING:  # imports JAX, or NumPy
    from gradweave.agents import SelfTuning, SelfTuningState
    from gradweave.envs import AbstractEnvironment, Observation
    from gradweave.reports.episode import DrawnEpisode
    from gradweave.runs.metrics_table import MetricsTable
    from gradweave.training.evaluation import Evaluation

__all__ = ["Run", "load_run", "read_table"]


@dataclass(frozen=True)
class Run:
    """A trained agent and its logged metrics.

    Attributes:
        agent: the agent: learner, environment, estimator, mode.
        state: everything that changes, as training left it: `state.learner.params` are the network's parameters.
        step: environment steps taken.
        metrics: the logged meta-steps as columns; also those after the checkpoint that was asked for.
        config: None of an agent that was not built from a configuration.
        path: the run's folder; None of an agent that was trained without one.
        summary: the command's text at the end of training; empty of a run that was read.
    """

    agent: "SelfTuning"
    state: "SelfTuningState"
    step: int
    metrics: "MetricsTable"
    config: Config | None = None
    path: Path | None = None
    summary: str = ""

    @property
    def environment(self) -> "AbstractEnvironment[Any]":
        """One environment, to reset and to step."""
        return self.agent.environment.environment

    @property
    def eta(self) -> dict[str, float]:
        """The meta-parameters in their natural range, learned or not; of an array an entry each, as in "rates[0]"."""
        from gradweave.agents.state import named_numbers

        return {name: float(value) for name, value in named_numbers(self.agent.eta(self.state.raw)).items()}

    def policy(self, observation: "Observation", memory: Any = None, *, key: Any = None) -> Any:
        """The action for one observation; of an agent with a memory (action, memory).

        ```python
        memory = None  # at the beginning of each episode
        action, memory = run.policy(observation, memory)
        ```

        Args:
            observation: of one environment, without a batch axis; `jax.vmap` serves many.
            memory: the agent's memory of the episode, as the last call returned it; None at its beginning.
                Always None of an agent without a memory.
            key: sample the action as in training; without it the most probable one is taken.

        Returns:
            An integer, or of several numbers a vector; of an agent with a memory (that, the next memory).

        Raises:
            ValueError: a memory for an agent that has none.

        Example:
            >>> run = load_run(folder)
            >>> state, observation = run.environment.reset(key=jax.random.key(0))
            >>> state, step = run.environment.step(state, run.policy(observation), key=jax.random.key(1))
            >>> float(step.reward)
            0.0
        """
        start = self.agent.agent.memory
        if start is None and memory is not None:
            raise ValueError("this agent remembers nothing between observations: call run.policy without a memory.")
        params, raw, before = self.state.learner.params, self.state.raw, start if memory is None else memory
        action, after = self._act(params, raw, self._normalization, observation, before, key)
        return action if start is None else (action, after)

    @functools.cached_property
    def _act(self) -> Callable[..., Any]:
        import jax

        agent = self.agent

        @jax.jit
        def act(params: Any, raw: Any, normalization: Any, observation: Any, memory: Any, key: Any) -> Any:
            batch, remembered = jax.tree.map(lambda leaf: leaf[None], (observation, memory))
            greedy, key = key is None, jax.random.key(0) if key is None else key
            policy = agent.policy(params, agent.conditioning(raw), greedy=greedy, normalization=normalization)
            acted = policy(batch, remembered, key)
            return jax.tree.map(lambda leaf: leaf[0], (acted.actions, acted.memory))

        return act

    @functools.cached_property
    def _normalization(self) -> Any:
        """Of the network's observations, or None; the state is a whole one, after any number of devices."""
        return self.agent.normalization(self.state.rollout)

    def evaluate(
        self, num_episodes: int = 32, *, seed: int = 0, greedy: bool = False, max_steps: int = 4000
    ) -> "Evaluation":
        """Undiscounted returns and lengths of whole episodes from fresh starts.

        Args:
            num_episodes: played side by side, at least 1.
            seed: of environments and actions.
            greedy: take the most probable action instead of sampling.
            max_steps: steps after which an episode is cut off.
        """
        import jax

        from gradweave.training.evaluation import evaluate

        def played(params: Any, raw: Any, normalization: Any, key: Any) -> "Evaluation":
            return evaluate(
                self.agent,
                params,
                raw,
                normalization=normalization,
                key=key,
                greedy=greedy,
                num_episodes=num_episodes,
                max_steps=max_steps,
            )

        state = self.state
        return jax.device_get(
            jax.jit(played)(state.learner.params, state.raw, self._normalization, jax.random.key(seed))
        )

    def play(
        self, output: str | Path | None = None, *, seed: int = 0, greedy: bool = False, max_steps: int | None = None
    ) -> "DrawnEpisode":
        """Play one episode and write it as a GIF, as `gradweave play` does.

        Args:
            output: the GIF; by default `agent.gif` in the run's folder.
            seed: of the episode.
            greedy: take the most probable action instead of sampling.
            max_steps: steps after which the episode is cut off; by default the configuration's `max_episode_steps`.

        Raises:
            ConfigError: the run has no folder, and no output is given; or no configuration, which says how to draw.
        """
        import jax

        from gradweave.reports.episode import save_episode

        if self.config is None or (self.path is None and output is None):
            accepted = "a run with a configuration, and a file to write"
            raise ConfigError("output", output, accepted, "train a configuration, or draw run.evaluate's episodes")
        path = self.path / "agent.gif" if output is None and self.path is not None else Path(str(output))
        return save_episode(
            path,
            self.agent,
            self.state,
            self.config,
            key=jax.random.key(seed),
            greedy=greedy,
            max_steps=max_steps,
        )


def load_run(path: str | Path, step: int | None = None, warn: Callable[[str], None] = warnings.warn) -> Run:
    """A run from its folder, at one of its checkpoints; also while it is still training. Only reads.

    Args:
        path: the run's folder.
        step: environment steps of the checkpoint; by default the newest that verifies.
        warn: told of each newer checkpoint that does not.

    Raises:
        ConfigError: there is no run, or its config.toml is bad.
        CheckpointError: there is no such checkpoint, or it is damaged.

    Example:
        >>> run = load_run(folder)
        >>> run.step, len(run.metrics.rows), run.config.preset
        (240, 6, 'discounting-chain')
        >>> 0 < run.eta["discount"] < 1
        True
    """
    path = Path(path)
    loaded = read_agent(path, step, warn)
    return Run(loaded.agent, loaded.state, loaded.step, read_table(path), loaded.config, path)


def read_table(path: Path) -> "MetricsTable":
    """The metrics of a run's folder."""
    from gradweave.runs.metrics_table import MetricsTable

    return MetricsTable(list(read_metrics(path / "metrics.jsonl")))
