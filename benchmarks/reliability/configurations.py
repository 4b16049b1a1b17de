"""Configurations that no run can have: each is to be refused with exit code 2, a remedy, before JAX is imported."""

from typing import Final, NamedTuple

__all__ = ["BAD", "Case"]


class Case(NamedTuple):
    """A command line that is to be refused.

    Attributes:
        argv: what follows `gradweave`; FILE stands for a file with `text` in it.
        text: of that file, where there is one.
        names: what the message has to name.
    """

    argv: tuple[str, ...]
    names: str
    text: str | None = None


_DIGITS: Final = "9" * 400
_MANY_DIGITS: Final = "9" * 5000


def _train(names: str, *argv: str) -> Case:
    return Case(("train", "discounting-chain", *argv), names)


def _file(names: str, text: str) -> Case:
    return Case(("train", "--config", "FILE"), names, text)


BAD: Final[dict[str, Case]] = {
    "discount that float32 rounds to 1": _train("inner.discount", "--inner.discount", "0.99999999999"),
    "discount 1, learned": _train("inner.discount", "--inner.discount", "1.0"),
    "discount 1e-60": _train("inner.discount", "--inner.discount", "1e-60"),
    "discount NaN": _train("inner.discount", "--inner.discount", "nan"),
    "discount of 400 digits": _train("inner.discount", "--inner.discount", _DIGITS),
    "discount of words": _train("--inner.discount", "--inner.discount", "high"),
    "outer discount 1e-60": _train("outer.discount", "--outer.discount", "1e-60"),
    "upper end that float32 rounds to the start": _train(
        "meta.max_discount", "--inner.discount", "0.9", "--meta.max-discount", "0.90000000001"
    ),
    "lambda -1": _train("inner.lambda", "--inner.lambda", "-1"),
    "learning rate 1e-60": _train("inner.learning_rate", "--inner.learning-rate", "1e-60"),
    "learning rate 1e39": _train("inner.learning_rate", "--inner.learning-rate", "1e39"),
    "learning rate infinite": _train("inner.learning_rate", "--inner.learning-rate", "inf"),
    "learning rate 0": _train("inner.learning_rate", "--inner.learning-rate", "0"),
    "meta learning rate 1e39": _train("meta.learning_rate", "--meta.learning-rate", "1e39"),
    "meta learning rate 1e-60": _train("meta.learning_rate", "--meta.learning-rate", "1e-60"),
    "norm 1e-60": _train("inner.max_grad_norm", "--inner.max-grad-norm", "1e-60"),
    "eps_root 1e-60": _train("inner.eps_root", "--inner.eps-root", "1e-60"),
    "entropy cost 1e39": _train("inner.entropy_cost", "--inner.entropy-cost", "1e39"),
    "value cost 1e39": _train("outer.value_cost", "--outer.value-cost", "1e39", "--network.outer-torso", "own"),
    "layers of a billion": _train("network.policy_layers", "--network.policy-layers", "1000000000"),
    "value layers of a billion": _train("network.value_layers", "--network.value-layers", "1000000000"),
    "channels of a billion": _train("network.channels", "--network.channels", "1000000000", "--network.strides", "1"),
    "a thousand layers": _train("network.policy_layers", "--network.policy-layers", *(["4"] * 1000)),
    "a layer of 0": _train("network.policy_layers", "--network.policy-layers", "0"),
    "kernel of a billion": _train("network.kernel_size", "--network.kernel-size", "1000000000"),
    "environments of 400 digits": _train("inner.num_envs", "--inner.num-envs", _DIGITS),
    "a billion environments": _train("inner.num_envs", "--inner.num-envs", "1000000000"),
    "environments -1": _train("inner.num_envs", "--inner.num-envs", "-1"),
    "environments 2.5": _train("--inner.num-envs", "--inner.num-envs", "2.5"),
    "steps of a billion": _train("inner.num_steps", "--inner.num-steps", "1000000000"),
    "inner steps of a billion": _train("meta.num_inner_steps", "--meta.num-inner-steps", "1000000000"),
    "chunk of 10^12": _train("run.chunk_size", "--chunk-size", "1000000000000"),
    "chunk 0": _train("run.chunk_size", "--chunk-size", "0"),
    "chunk of 400 digits": _train("run.chunk_size", "--chunk-size", _DIGITS),
    "steps of 400 digits": _train("run.total_steps", "--total-steps", _DIGITS),
    "steps of 5000 digits": _train("--total-steps", "--total-steps", _MANY_DIGITS),
    "steps of 10^13": _train("run.total_steps", "--total-steps", "10000000000000"),
    "steps 0": _train("run.total_steps", "--total-steps", "0"),
    "evaluation of 10^12 episodes": _train("run.evaluation_episodes", "--evaluation-episodes", "1000000000000"),
    "episodes of 10^12 steps": _train("run.max_episode_steps", "--max-episode-steps", "1000000000000"),
    "10^12 samples": _train("run.measure_samples", "--measure-samples", "1000000000000"),
    "seed -1": _train("run.seed", "--seed", "-1"),
    "seed 2^32": _train("run.seed", "--seed", "4294967296"),
    "devices 0": _train("run.devices", "--devices", "0"),
    "more devices than environments": _train("inner.num_envs", "--devices", "100000"),
    "devices of words": _train("--devices", "--devices", "many"),
    "an unknown estimator": _train("meta.estimator", "--meta.estimator", "unroled"),
    "weights of 400 digits": _train("meta.estimator", "--meta.estimator", f"horizon-mix:{_DIGITS}"),
    "an unknown mode": _train("meta.mode", "--meta.mode", "mixd"),
    "an unknown meta-parameter": _train("meta.learned", "--meta.learned", "discuont"),
    "an unknown flag": _train("--inner.num-env", "--inner.num-env", "3"),
    "an unknown preset": Case(("train", "quikc"), "preset"),
    "an unknown environment": _train("environment.name", "--environment.name", "snak"),
    "a board of a billion": Case(
        ("train", "snake", "--environment.num-rows", "1000000000"), "environment.options.num_rows"
    ),
    "a folder without a name": _train("run.runs_dir", "--runs-dir", ""),
    "a folder of bytes": _train("run.runs_dir", "--runs-dir", "\udcff"),
    "a port of 99999": _train(
        "--coordinator", "--coordinator", "localhost:99999", "--num-processes", "2", "--process-id", "0"
    ),
    "a file that is not there": Case(("train", "--config", "absent.toml"), "--config"),
    "a file of nested arrays": _file("--config", "x = " + "[" * 100_000 + "]" * 100_000),
    "a number of 400 digits in a file": _file("inner.discount", f"[inner]\ndiscount = {_DIGITS}"),
    "steps of 400 digits in a file": _file("run.total_steps", f"[run]\ntotal_steps = {_DIGITS}"),
    "a number of 5000 digits in a file": _file("--config", f"[inner]\ndiscount = {_MANY_DIGITS}"),
    "a zero byte in a path": _file("run.runs_dir", '[run]\nruns_dir = "a\\u0000b"'),
    "a date": _file("inner.discount", "[inner]\ndiscount = 1979-05-27"),
    "a table for a number": _file("inner.discount", "[inner.discount]\nx = 1"),
    "a table for a name": _file("preset", "[preset]\nx = 1"),
    "a number for a name": _file("environment.name", "[environment]\nname = 3"),
    "a table for an environment's name": _file("environment.name", "[environment.name]\nx = 1"),
    "a learned list of numbers": _file("meta.learned", "[meta]\nlearned = [1]"),
    "an unknown key": _file("inner.num_env", "[inner]\nnum_env = 3"),
    "a key of 400 letters": _file("inner", f"[inner]\n{'a' * 400} = 3"),
    "a complete file that is not": _file("environment", "complete = true"),
    "a complete that is no word": _file("complete", 'complete = "yes"'),
    "no TOML": _file("--config", "= = ="),
}
