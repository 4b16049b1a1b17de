"""The adapter of jax-envelope against small environments of its contract, whose observations and ends are known."""

import sys
from dataclasses import dataclass, replace
from types import ModuleType, SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradweave.envs import EnvelopeEnvironment, check_environment, make_environment, suites, validate_environment
from gradweave.envs.envelope import from_suite


@dataclass
class Discrete:
    """As `envelope.Discrete`."""

    n: Any

    @property
    def shape(self) -> tuple[int, ...]:
        return np.shape(self.n)


@dataclass
class Continuous:
    """As `envelope.Continuous`."""

    low: Any
    high: Any

    @property
    def shape(self) -> tuple[int, ...]:
        return np.shape(self.low)


@dataclass
class PyTreeSpace:
    """As `envelope.PyTreeSpace`."""

    tree: Any

    @property
    def shape(self) -> Any:
        return jax.tree.map(np.shape, self.tree)


CELLS = np.array([[[0, 2], [1, 0]], [[2, 1], [0, 0]]], np.uint8)
"""A board of 2 x 2 cells, each with a kind (of 3) and a colour (of 3)."""


class Aim:
    """Numbers are seen, and two numbers are the action; the reward is 100 times the first and the second."""

    action_space = Continuous(np.float32([-2, 0]), np.float32([2, 10]))
    observation_space = Continuous(np.full(3, -np.inf, np.float32), np.full(3, np.inf, np.float32))

    def __init__(self, lasts: int = 5, limit: int = 4) -> None:
        self.lasts, self.limit = lasts, limit
        self.max_steps = 100

    def init(self, key: Any) -> tuple[Any, Any]:
        state = {"key": key, "time": 0}  # a Python number, as in envelope's own TruncationWrapper
        return state, self.seen(state, jnp.zeros(2, jnp.float32))

    def step(self, state: Any, action: Any) -> tuple[Any, Any]:
        state = {"key": jax.random.split(state["key"])[1], "time": state["time"] + 1}
        return state, self.seen(state, action)

    def seen(self, state: Any, action: Any) -> Any:
        noise = jax.random.normal(state["key"], (), jnp.float32)
        return SimpleNamespace(
            obs=jnp.concatenate([action, noise[None]]),
            reward=100 * action[0] + action[1],
            terminated=state["time"] >= self.lasts,
            truncated=state["time"] >= self.limit,
        )


class Rooms(Aim):
    """A tree is seen, with a board of categories and a mask; two choices are made."""

    action_space = Discrete(np.array([2, 3]))
    observation_space = PyTreeSpace(
        {
            "action_mask": Discrete(np.full(5, 2)),
            "board": Discrete(np.full((2, 2, 2), 3)),
            "hour": Discrete(np.array(4)),
            "privileged_state": Continuous(np.zeros(7), np.ones(7)),
            "speed": Continuous(np.float32([-1]), np.float32([1])),
        }
    )

    def seen(self, state: Any, action: Any) -> Any:
        obs = {
            "action_mask": jnp.asarray([1, 0, 1, 1, 0], jnp.int8),
            "board": jnp.asarray(CELLS),
            "hour": jnp.asarray(state["time"] % 4, jnp.int32),
            "privileged_state": jnp.full(7, 9.0, jnp.float32),
            "speed": jnp.asarray(0.5, jnp.float32)[None],
        }
        reward = 10 * action[0].astype(jnp.int32) + action[1].astype(jnp.int32)
        late, over = state["time"] >= self.limit, state["time"] >= self.lasts
        return SimpleNamespace(obs=obs, reward=reward, terminated=over, truncated=late)


def showing(space: Any, obs: Any) -> EnvelopeEnvironment:
    """An environment that always shows `obs`."""
    env = Aim()
    env.observation_space = space
    env.seen = lambda state, action: SimpleNamespace(obs=obs, reward=0.0, terminated=False, truncated=False)
    return EnvelopeEnvironment(env)


def view(environment: EnvelopeEnvironment) -> Any:
    return environment.reset(key=jax.random.key(0))[1].view


@pytest.mark.parametrize("env", [Aim(), Rooms()])
def test_the_contract_is_kept(env: Any) -> None:
    report = check_environment(EnvelopeEnvironment(env), num_steps=9, num_copies=2)
    assert report.ok, report
    assert (report.num_terminated, report.num_truncated) == (0, 4)


@pytest.mark.parametrize(
    ("action", "reward"), [((-1.0, -1.0), -200), ((0.0, 0.5), 7.5), ((1.0, 1.0), 210), ((-9.0, 9.0), -190)]
)
def test_actions_from_minus_one_to_one_span_the_bounds(action: tuple[float, float], reward: float) -> None:
    environment = EnvelopeEnvironment(Aim())
    assert (environment.continuous, environment.num_actions, environment.action_sizes) == (True, 2, None)
    state, _ = environment.reset(key=jax.random.key(0))
    step = environment.step(state, jnp.asarray(action), key=jax.random.key(1))[1]
    assert step.reward == reward
    assert step.reward.dtype == jnp.float64


@pytest.mark.parametrize(("lasts", "limit", "ends"), [(2, 9, (2, 0)), (9, 2, (0, 2)), (2, 2, (2, 0))])
def test_an_end_at_the_time_limit_is_a_termination(lasts: int, limit: int, ends: tuple[int, int]) -> None:
    environment = EnvelopeEnvironment(Aim(lasts, limit))
    state, _ = environment.reset(key=jax.random.key(0))
    action = jnp.asarray([0.5, 0.0])
    for count in (1, 2):
        state, step = environment.step(state, action, key=jax.random.key(0))
        assert (count * int(step.terminated), count * int(step.truncated)) == (ends if count == 2 else (0, 0))
    assert step.observation.view[0] == 1.0  # what the action led to, also at the end


def test_the_key_decides() -> None:
    environment = EnvelopeEnvironment(Aim())
    first, again, other = (environment.reset(key=jax.random.key(seed))[1].view[2] for seed in (3, 3, 4))
    assert float(first) == float(again) != float(other)
    assert float(first) == float(jax.random.normal(jax.random.key(3), (), jnp.float32))


class Noting(Aim):
    """As Brax's robots: a step writes Python numbers into the metrics of the state that it is given."""

    def init(self, key: Any) -> tuple[Any, Any]:
        state, info = super().init(key)
        return {**state, "metrics": {"cost": jnp.zeros((), jnp.float32)}}, info

    def step(self, state: Any, action: Any) -> tuple[Any, Any]:
        next_state, info = super().step(state, action)
        state["metrics"].update(cost=-2.0)
        return {**next_state, "metrics": state["metrics"]}, info


def test_a_state_is_not_written_into() -> None:
    environment = EnvelopeEnvironment(Noting())
    assert check_environment(environment, num_steps=9, num_copies=2).ok
    state, _ = environment.reset(key=jax.random.key(0))
    next_state, _ = environment.step(state, jnp.zeros(2), key=jax.random.key(1))
    assert (float(state["metrics"]["cost"]), float(next_state["metrics"]["cost"])) == (0.0, -2.0)
    assert next_state["metrics"]["cost"].dtype == jnp.float32


def test_a_tree_becomes_a_board_numbers_and_a_mask() -> None:
    environment = EnvelopeEnvironment(Rooms())
    assert (environment.continuous, environment.num_actions, environment.action_sizes) == (False, 5, (2, 3))
    state, seen = environment.reset(key=jax.random.key(0))
    np.testing.assert_array_equal(seen.view[1, 0], [0, 0, 1, 0, 1, 0])  # kind 2, colour 1
    np.testing.assert_array_equal(seen.view.reshape(2, 2, 2, 3).argmax(-1), CELLS)
    assert (seen.view.sum(-1) == 2).all()
    np.testing.assert_array_equal(seen.action_mask, [True, False, True, True, False])
    np.testing.assert_array_equal(seen.scalars, [1, 0, 0, 0, 0.5])  # hour 0 of 4, and the speed
    _, step = environment.step(state, jnp.asarray([1, 2]), key=jax.random.key(0))
    assert step.reward == 12
    np.testing.assert_array_equal(step.observation.scalars, [0, 1, 0, 0, 0.5])


def test_pictures_are_scaled_and_flat_boards_get_a_channel() -> None:
    picture = np.arange(12, dtype=np.uint8).reshape(2, 2, 3) * 23
    seen = view(showing(Discrete(np.full((2, 2, 3), 256)), jnp.asarray(picture)))
    np.testing.assert_allclose(seen, picture / 255)
    assert view(showing(Discrete(np.full((2, 2), 3)), jnp.asarray(CELLS[..., 0]))).shape == (2, 2, 3)
    heights = Continuous(np.zeros((2, 4)), np.ones((2, 4)))
    assert view(showing(heights, jnp.ones((2, 4), jnp.float32))).shape == (2, 4, 1)
    several = PyTreeSpace({"a": heights, "b": heights})
    assert view(showing(several, {"a": jnp.ones((2, 4)), "b": jnp.ones((2, 4))})).shape == (16,)


def test_what_cannot_be_adapted_is_said() -> None:
    class AutoResetWrapper(Aim):
        env = Aim()

    with pytest.raises(ValueError, match=r"Aim comes in a AutoResetWrapper.*VectorEnvironment does"):
        EnvelopeEnvironment(AutoResetWrapper())
    for space, wanted in (
        (Continuous(np.float32([-np.inf]), np.float32([1])), "bounds on each side"),
        (PyTreeSpace({"a": Discrete(3)}), "discrete ones or a vector"),
        (Continuous(np.zeros((2, 2)), np.ones((2, 2))), "discrete ones or a vector"),
    ):
        env = Aim()
        env.action_space = space
        with pytest.raises(ValueError, match=f"(?s)Aim has actions in .*{wanted}"):
            EnvelopeEnvironment(env)
    with pytest.raises(ValueError, match="Aim shows nothing"):
        showing(PyTreeSpace({"privileged_state": Continuous(np.zeros(2), np.ones(2))}), {})


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What `envelope.create` is called with, as if jax-envelope and its suites were there, on Python 3.12."""
    calls: list[Any] = []
    module = ModuleType("envelope")
    module.create = lambda name, **options: calls.append((name, options)) or Aim()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "envelope", module)
    monkeypatch.setattr(suites, "find_spec", lambda name: name)
    monkeypatch.setattr(suites, "sys", SimpleNamespace(version_info=(3, 12, 1)))
    from_suite.cache_clear()
    return calls


def test_names_are_made_by_envelope_itself(installed: list[Any]) -> None:
    made = make_environment("envelope:brax/ant", max_episode_steps=7)
    assert isinstance(made, EnvelopeEnvironment)
    assert make_environment("envelope:brax/ant", max_episode_steps=7) == made != make_environment("envelope:brax/ant")
    limits: list[Any] = [7, "default"]
    assert installed == [("brax::ant", {"max_episode_steps": limit}) for limit in limits]
    from_suite.cache_clear()


def test_a_suite_may_use_a_key_twice_when_it_makes_an_environment(
    installed: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As jax-envelope does, to see what Craftax reports of a step."""

    def create(name: str, **options: Any) -> Aim:
        key = jax.random.key(0)
        jax.random.split(key)
        jax.random.split(key)
        return Aim()

    monkeypatch.setattr(sys.modules["envelope"], "create", create)
    make_environment("envelope:brax/ant")


def test_options_are_arguments_of_the_suites_constructor(installed: list[Any]) -> None:
    make_environment("envelope:brax/hopper", healthy_reward=2, terminate_when_unhealthy=False, backend="spring")
    make_environment("envelope:mujoco_playground/CartpoleSwingup", ctrl_dt=0.02, max_episode_steps=9)
    healthy = {"healthy_reward": 2, "terminate_when_unhealthy": False, "backend": "spring"}
    assert installed == [
        ("brax::hopper", {"max_episode_steps": "default", "env_kwargs": healthy}),
        ("mujoco_playground::CartpoleSwingup", {"max_episode_steps": 9, "env_kwargs": {"ctrl_dt": 0.02}}),
    ]


@pytest.mark.parametrize(("options", "limit"), [({"max_episode_steps": 50}, 50), ({}, 100)])
def test_a_penalty_counts_by_the_time_limit(installed: list[Any], options: dict[str, int], limit: int) -> None:
    """Navix subtracts penalty_coeff * steps / max_steps, and jax-envelope's own max_steps is infinite."""
    make_environment("envelope:navix/Navix-Empty-5x5-v0", penalty_coeff=0.5, **options)
    assert installed[-1][1] == {
        "max_episode_steps": options.get("max_episode_steps", "default"),
        "env_kwargs": {"penalty_coeff": 0.5, "max_steps": limit},
    }


@dataclass
class Fields:
    """As a dataclass of flax: a copy with other values is made by `replace`."""

    def replace(self, **values: Any) -> Any:
        return replace(self, **values)


@dataclass
class Params(Fields):
    day_length: int = 300
    spawn_cow_chance: float = 0.1


@dataclass
class StaticParams(Fields):
    max_cows: int = 3


@dataclass
class Craft:
    """As an environment of Craftax."""

    static_env_params: StaticParams


@dataclass
class Adapted(Fields, Aim):
    """As `envelope.adapters.craftax_envelope.CraftaxEnvelope`."""

    craftax_env: Any
    env_params: Any
    lasts: int = 5
    limit: int = 4


@dataclass
class Limited(Adapted):
    """As `envelope.wrappers.TruncationWrapper`."""

    craftax_env: Any = None
    env_params: Any = None
    env: Any = None


def test_options_are_fields_of_craftaxs_two_kinds_of_parameters(
    installed: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    limited = Limited(env=Adapted(Craft(StaticParams()), Params()))
    monkeypatch.setattr(sys.modules["envelope"], "create", lambda name, **options: limited)
    made = make_environment("envelope:craftax/Craftax-Classic-Symbolic-v1", max_cows=5, spawn_cow_chance=1)
    assert made.held.env.env == Adapted(Craft(StaticParams(5)), Params(300, 1.0))
    assert type(made.held.env.env.env_params.spawn_cow_chance) is float
    plain = make_environment("envelope:craftax/Craftax-Classic-Symbolic-v1")
    assert plain.held.env.env == limited.env
    with pytest.raises(ValueError, match="Craftax has no parameter god_mod"):
        from_suite("craftax/Craftax-Classic-Symbolic-v1", god_mod=True)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("brax/ant", {"healthy_rewards": 2}, r"no option 'healthy_rewards' \(did you mean 'healthy_reward'\?\)"),
        ("brax/ant", {"backend": "brax"}, "backend = 'brax' does .* one of generalized, mjx, positional, spring"),
        ("brax/ant", {"backend": 1}, "backend = 1 does .* give one of"),
        ("brax/ant", {"terminate_when_unhealthy": 1}, "terminate_when_unhealthy = 1 does .* give True or False"),
        ("brax/ant", {"n_frames": 0}, "n_frames = 0 does .* give a whole number of at least 1"),
        ("navix/Navix-Empty-5x5-v0", {"height": 7}, "no option 'height'; options are max_episode_steps, penalty_coeff"),
        ("craftax/Craftax-Symbolic-v1", {"god_mod": True}, "did you mean 'god_mode'"),
        ("mujoco_playground/CheetahRun", {"ctrl_dt": "fast"}, "ctrl_dt = 'fast' does .* give a number"),
    ],
)
def test_wrong_options_are_named_with_the_accepted_ones(
    installed: list[Any], name: str, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        make_environment(f"envelope:{name}", **options)
    assert installed == []


def test_what_is_not_installed_is_said(installed: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    validate_environment("envelope:navix/Navix-Empty-5x5-v0", {})
    monkeypatch.setattr(suites, "find_spec", lambda name: None if name == "navix" else name)
    with pytest.raises(
        ValueError, match=r'from Navix, which needs navix, which is not installed: pip install .* "navix'
    ):
        make_environment("envelope:navix/Navix-Empty-5x5-v0")
    monkeypatch.setattr(suites, "sys", SimpleNamespace(version_info=(3, 11, 4)))
    with pytest.raises(ValueError, match=r"from Brax, which needs Python 3.12 or newer, and this is 3.11: with such a"):
        make_environment("envelope:brax/ant")
    assert installed == []
