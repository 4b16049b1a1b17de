"""Evaluations of one configuration under several seeds, in one compiled program."""

from collections.abc import Iterable, Sequence
from typing import Any

from gradweave.comparison.population import Population
from gradweave.config.schema import Config

__all__ = ["evaluations"]


def evaluations(config: Config, seeds: Sequence[int], lengths: Iterable[int]) -> list[dict[str, Any]]:
    """A row for each seed after each stretch of learning: the mean return of episodes of their own.

    Args:
        config: of the agent, and of its evaluations.
        seeds: trained side by side.
        lengths: windows of each stretch, 0 or more; the first rollout comes before the first window.
    """
    population = Population(config, len(seeds))
    members = population.begin(seeds, [{}] * len(seeds))
    rows = []
    for length in lengths:
        members, found = population.advance(members, length)
        for index, seed in enumerate(seeds):
            steps, mean = int(found.environment_steps[index]), float(found.evaluation_return[index])
            rows.append({"seed": seed, "environment_steps": steps, "return": mean})
    return rows
