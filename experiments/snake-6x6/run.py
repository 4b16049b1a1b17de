"""Trains every arm and seed of sweep.py, or continues them."""

from pathlib import Path

import tyro
from sweep import ARMS, SIZES, TEST_ARMS, Size, base

from _study.jobs import Flags, Job, folders, jobs, train, with_changes
from gradweave.config.schema import Config


def planned_jobs(size: Size, shared: Config, runs: Path) -> list[Job]:
    """Every arm with every seed, and the arms of the test with further seeds."""
    further = [seed for seed in size.test_seeds if seed not in size.seeds]
    planned = jobs(shared, {arm: ARMS[arm] for arm in size.arms}, size.seeds, size.inner_steps, runs)
    planned += jobs(shared, {arm: ARMS[arm] for arm in TEST_ARMS}, further, size.test_steps, runs)
    return [job._replace(config=with_total_steps(job.config)) for job in planned]


def with_total_steps(config: Config) -> Config:
    """`config`, whose total counts inner steps, with a total that counts all: outer rollouts and the very first one."""
    rollouts = 2 if config.own_outer_rollouts else 1
    first = config.inner.num_envs * config.inner.num_steps
    return with_changes(config, {"run.total_steps": rollouts * config.run.total_steps + first})


def main(flags: Flags) -> None:
    size = SIZES[flags.size]
    runs, _ = folders("snake-6x6", flags)
    train(flags, planned_jobs(size, base(flags.size), runs))


if __name__ == "__main__":
    main(tyro.cli(Flags, description=__doc__))
