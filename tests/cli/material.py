"""A run that was never trained, for commands that only read."""

import jax
import jax.numpy as jnp

from gradweave.config.learners.actor_critic import InnerConfig, NetworkConfig
from gradweave.config.schema import Config, EnvironmentConfig, MetaConfig, RunConfig
from gradweave.training.build import build_agent, init_state


def tiny_config(tmp_path, learned=("discount", "entropy_cost")):
    return Config(
        environment=EnvironmentConfig("discounting-chain"),
        network=NetworkConfig(policy_layers=(4,), value_layers=(4,)),
        inner=InnerConfig(num_envs=2, num_steps=2, discount=0.9, microbatches=2),
        meta=MetaConfig(learned=learned, num_inner_steps=2),
        run=RunConfig(runs_dir=str(tmp_path), measure_samples=4, max_episode_steps=9),
    )


def first_state(config, count):
    """A state that says that it is of so many meta-steps."""
    agent = build_agent(config)
    state = jax.jit(lambda key: init_state(agent, config, key=key))(jax.random.key(count))
    return state._replace(num_meta_steps=jnp.array(count, jnp.int32))


def content_of(run):
    return {path.relative_to(run): path.read_bytes() for path in sorted(run.rglob("*")) if path.is_file()}
