"""The check of environments finds each broken promise, says which, and finds none where there is none."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

import gradweave as gw

from .corridors import Broken, Corridor, drawn_outside


class Tag:
    """All are equal, but each is shown by its own address."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tag)

    def __hash__(self) -> int:
        return 0


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Tagged:
    """A state with an object in its structure, as MuJoCo's."""

    inner: object
    tag: Tag = dataclasses.field(default_factory=Tag, metadata={"static": True})


class TaggedCorridor(Corridor):
    """A corridor whose every step returns a new tag."""

    def reset(self, *, key):
        state, seen = super().reset(key=key)
        return Tagged(state), seen

    def step(self, state, action, *, key):
        next_state, step = super().step(state.inner, action, key=key)
        return Tagged(next_state), step


def test_equal_objects_in_a_state_are_equal() -> None:
    report = gw.check_environment(TaggedCorridor(), num_steps=4, num_copies=1)
    assert report.ok, report


def test_a_good_environment_has_no_findings() -> None:
    report = gw.check_environment(Corridor(), num_steps=40)
    assert report.ok and report.findings == ()
    assert report.observation == ((4,), 0)
    assert report.num_steps == 160
    assert report.num_terminated > 0 and report.num_truncated > 0
    assert "Corridor keeps the contract; 160 steps" in str(report)


def test_too_few_steps_for_an_end_are_said() -> None:
    report = gw.check_environment(Corridor(), num_steps=2)
    assert report.ok and "no episode ended" in str(report)


@pytest.mark.parametrize(
    ("how", "what", "remedy"),
    [
        ("no array operations", "cannot be traced: TracerBoolConversionError", "jnp.where"),
        ("state's type", "step turns ['time'] from int32[] into int16[]", "astype"),
        ("state's fields", "step turns a state", "same fields"),
        ("reward's type", "the reward is of type int32 and shape ()", "result_type(float)"),
        ("ends' shape", "terminated is of type bool and shape (1,)", "one boolean"),
        ("view's axes", "step shows a view of shape (2, 2)", "board"),
        ("mask", "step has an action mask of type bool and shape (3,)", "(2,)"),
        ("another draw each time", "step is another function each time", "jax.random"),
        ("step is a tuple", "step returns a tuple", "Step("),
        ("infinite reward", "the reward is nan at step 3", "divisions"),
        ("view is no number", "observation is not finite at step 3", "divisions"),
        ("nothing allowed", "no action is allowed at step 4 of random play, and the episode goes on", "allow one"),
        ("both ends", "both terminated and truncated at step", "~terminated"),
        ("nothing is written yet", "cannot be traced: NotImplementedError", "jax.numpy"),
        ("view's length", "reset shows view of shape (4,), and step of shape (5,)", "same shape"),
        ("scalars' length", "reset shows scalars of shape (0,), and step of shape (1,)", "same shape"),
        ("view is drawn outside of JAX", "the same key gives another episode", "jax.random"),
        ("error in a callback", "random play fails: ", "step"),
    ],
)
def test_a_broken_promise_is_found(how: str, what: str, remedy: str) -> None:
    report = gw.check_environment(Broken(how=how, slip=0.0), num_steps=20)
    assert not report.ok
    (found,) = [finding for finding in report.findings if what in finding.what]
    assert remedy in found.remedy
    assert "BREAKS" in str(report) and found.what in str(report)


def test_a_first_observation_drawn_outside_of_jax_is_found() -> None:
    class Elsewhere(Corridor):
        def reset(self, *, key):
            state, seen = super().reset(key=key)
            return state, seen._replace(view=drawn_outside(4))

    # So few steps that no episode ends, and only the first reset tells.
    (found,) = gw.check_environment(Elsewhere(), num_steps=2, num_copies=8).findings
    assert "the same key gives another episode" in found.what


def test_constants_may_be_missing_values_or_keys() -> None:
    class Constants(Corridor):
        table: object = dataclasses.field(default_factory=lambda: jnp.array([1.0, jnp.nan]))
        layout: object = dataclasses.field(default_factory=lambda: jax.random.key(3))

        def step(self, state, action, *, key):
            after, step = super().step(state, action, key=key)
            drawn = jax.random.uniform(jax.random.clone(self.layout))
            return after, step._replace(reward=self.table[0] + drawn)

    report = gw.check_environment(Constants(), num_steps=20)
    assert report.ok, report


def test_a_last_step_without_choice_is_noted() -> None:
    class Trap(Corridor):
        """Where it ends, nothing has been allowed."""

        def step(self, state, action, *, key):
            after, step = super().step(state, action, key=key)
            seen = step.observation._replace(action_mask=jnp.broadcast_to(after["time"] != 3, 2))
            trapped = state["time"] == 3
            return after, step._replace(observation=seen, terminated=step.terminated | trapped)

    report = gw.check_environment(Trap(), num_steps=40)
    assert report.ok and report.num_without_choice > 0
    assert f"no action was allowed in {report.num_without_choice} steps" in str(report)
    assert gw.check_environment(Corridor(), num_steps=40).num_without_choice == 0


def test_one_of_several_choices_that_allows_nothing_is_noted() -> None:
    class Choices(Corridor):
        mask: tuple[bool, ...] = (True, False, False, False)
        num_actions: int = eqx.field(static=True, default=4)
        action_sizes: tuple[int, ...] | None = eqx.field(static=True, default=(2, 2))

        def reset(self, *, key):
            state, seen = super().reset(key=key)
            return state, seen._replace(action_mask=jnp.array(self.mask))

        def step(self, state, action, *, key):
            after, step = super().step(state, action[0], key=key)
            return after, step._replace(observation=step.observation._replace(action_mask=jnp.array(self.mask)))

    report = gw.check_environment(Choices(), num_steps=20)  # as an agent of several that has arrived
    assert report.ok and report.num_without_choice == report.num_steps and "no action was allowed in" in str(report)
    whole = gw.check_environment(Choices(mask=(True, False, False, True)), num_steps=20)
    assert whole.ok and whole.num_without_choice == 0
    nothing = gw.check_environment(Choices(mask=(False, False, False, False)), num_steps=20)
    assert [finding.what for finding in nothing.findings] == [
        "no action is allowed at step 0 of random play, and the episode goes on"
    ]


def test_ends_that_may_be_a_time_limit_are_noted() -> None:
    class Limited(Corridor):
        def step(self, state, action, *, key):
            after, step = super().step(state, action, key=key)
            return after, step._replace(terminated=step.truncated, truncated=step.terminated)

    class OnlyLimit(Limited):
        def step(self, state, action, *, key):
            after, step = super().step(state, action, key=key)
            return after, step._replace(truncated=jnp.zeros((), bool))

    report = gw.check_environment(OnlyLimit(length=40), num_steps=40)
    assert report.ok and report.common_length == 12
    assert "every episode terminated after 12 steps" in str(report) and "truncated" in str(report).splitlines()[-1]
    for other in (Corridor(length=40), Limited(length=4), Corridor(slip=0.0, length=2)):
        assert gw.check_environment(other, num_steps=40).common_length == 0


@pytest.mark.parametrize("sizes", [(0, 2), [1, 1], ()])
def test_sizes_of_choices_that_cannot_be_are_named(sizes) -> None:
    class Choices(Corridor):
        def __init__(self):
            self.length, self.slip, self.num_actions, self.can_truncate = 4, 0.0, 2, True
            self.action_sizes = sizes

        action_sizes: object = eqx.field(static=True)

    (found,) = gw.check_environment(Choices()).findings
    assert f"action_sizes are {sizes!r}" in found.what and "tuple" in found.remedy


def test_a_broken_promise_not_to_truncate_is_found() -> None:
    liar = dataclasses.replace(Corridor(), can_truncate=False)
    assert "though can_truncate is False" in gw.check_environment(liar, num_steps=20).findings[0].what


def test_weak_types_are_told_from_others() -> None:
    class Weak(Corridor):
        def reset(self, *, key):
            state, seen = super().reset(key=key)
            return state | {"time": 0}, seen

        def step(self, state, action, *, key):
            after, step = super().step(state, action, key=key)
            return after | {"time": after["time"].astype(jnp.int32)}, step

    (found,) = gw.check_environment(Weak()).findings
    assert "['time'] from weak int" in found.what and "Python number" in found.remedy


def test_what_is_no_environment_is_refused() -> None:
    with pytest.raises(TypeError, match=r"derived from gradweave\.envs\.AbstractEnvironment"):
        gw.check_environment(Corridor)


@pytest.mark.slow
def test_the_key_decides_the_play() -> None:
    reports = [gw.check_environment(Corridor(), num_steps=40, key=jax.random.key(seed)) for seed in (1, 1, 2)]
    assert reports[0] == reports[1] != reports[2]
