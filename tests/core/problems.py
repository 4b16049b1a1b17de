"""Meta-problems with known answers, and slow references that share no code with the library's modes.

A `Case` is a problem with starting values and fixed data. `horizon_losses` and `window_losses` are plain Python loops
over `update` and `outer_loss`; their central differences are what every estimator and every mode is compared with. For
the noisy quadratic the answer is written down by hand, in numpy.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import gradweave as gw


class Case(NamedTuple):
    """A meta-problem, where it starts, and how a batch is drawn: `draw(key) -> batch`."""

    problem: Any
    raw: Any
    spec: Any
    state: Any
    draw: Callable[[Any], Any]

    def data(self, num_steps: int, online: bool, seed: int = 0) -> tuple[Any, Any]:
        """(batches, outer_batches) of a window; outer_batches is None for online cross-validation."""
        batches = jax.vmap(self.draw)(jax.random.split(jax.random.key(seed), num_steps + online))
        return batches, None if online else jax.vmap(self.draw)(
            jax.random.split(jax.random.key(seed + 1000), num_steps)
        )


# ---------------------------------------------------------------------------------------------- the noisy quadratic

CURVATURE, OUTER_CURVATURE = np.array([0.3, 1.0, 2.5]), np.array([1.0, 0.5, 0.2])


class QuadraticBatch(NamedTuple):
    """Noise on the learner's target (inner) and on that of the outer loss (outer)."""

    inner: Any
    outer: Any


def _quadratic_update(x: Any, eta: Any, batch: QuadraticBatch) -> tuple[Any, Any]:
    error = x - batch.inner - eta["shift"]
    return x - eta["rate"] * CURVATURE * error, {"error": error}


def _quadratic_outer(x: Any, batch: QuadraticBatch) -> tuple[Any, Any]:
    return 0.5 * jnp.sum(OUTER_CURVATURE * (x - batch.outer) ** 2), {"x": x}


def quadratic() -> Case:
    """SGD on a noisy quadratic whose target is shifted: eta = (learning rate, shift)."""
    spec = {"rate": gw.Positive(), "shift": gw.Unbounded()}
    raw = gw.unconstrain({"rate": jnp.float64(0.15), "shift": jnp.float64(0.4)}, spec)

    def draw(key: Any) -> QuadraticBatch:
        inner, outer = jax.random.normal(key, (2, 3))
        return QuadraticBatch(inner, outer)

    problem = gw.MetaProblem(_quadratic_update, _quadratic_outer)
    return Case(problem, raw, spec, jnp.array([1.0, -2.0, 0.5]), draw)


def quadratic_answer(raw: Any, start: Any, inner: Any, evaluating: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Every g_k and every h_m of the quadratic, by algebra.

    With a the curvature, b the outer loss's, alpha = exp(raw rate) and c = 1 - alpha a, elementwise,

        x_k           = c^k x_0 + sum_{j<k} c^(k-1-j) alpha a (xi_j + s)
        dx_k / ds     = 1 - c^k,                    of which the last m updates give 1 - c^m
        dx_k / dalpha = sum_j c^(k-1-j) (-a) (x_j - xi_j - s),   the last m updates: only j >= k - m
        dJ_k          = b (x_k - zeta_k) . dx_k,    and d/d(raw rate) = alpha d/dalpha.
    """
    alpha, s = np.exp(float(raw["rate"])), float(raw["shift"])
    a, b, c = CURVATURE, OUTER_CURVATURE, 1 - np.exp(float(raw["rate"])) * CURVATURE
    inner, evaluating, length = np.asarray(inner), np.asarray(evaluating), len(evaluating)

    def x(k: int) -> Any:
        return c**k * np.asarray(start) + sum(c ** (k - 1 - j) * alpha * a * (inner[j] + s) for j in range(k))

    def gradient(k: int, m: int) -> tuple[float, float]:
        slope = b * (x(k) - evaluating[k - 1])
        by_alpha = sum(c ** (k - 1 - j) * -a * (x(j) - inner[j] - s) for j in range(k - m, k))
        return alpha * float(slope @ by_alpha), float(slope @ (1 - c**m))

    horizons = np.array([gradient(k, k) for k in range(1, length + 1)])
    windows = np.array([gradient(length, m) for m in range(1, length + 1)])
    return tuple({"rate": table[:, 0], "shift": table[:, 1]} for table in (horizons, windows))


# ------------------------------------------------------------------------------------------------ gradient learners


class Transitions(NamedTuple):
    """Features before and after, rewards, and the true values, for the outer loss."""

    before: Any
    after: Any
    rewards: Any
    truth: Any


def _draw_transitions(key: Any) -> Transitions:
    features = jax.random.normal(key, (8, 4))
    return Transitions(features[:4], features[4:], features[0], features[1])


def _memory_cost(optimizer_state: Any) -> Any:
    """Makes the outer loss read the optimiser's state too, so that its cotangent is not zero at the start."""
    leaves = [leaf for leaf in jax.tree.leaves(optimizer_state) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    return sum((jnp.sum(leaf**2) for leaf in leaves), jnp.zeros(()))


def linear_td(optimizer: optax.GradientTransformation) -> Case:
    """Semi-gradient TD(0) on linear values: the targets depend on the parameters; eta = (discount, decay, rate)."""

    def targets(params: Any, eta: Any, batch: Transitions) -> Any:
        return batch.rewards + eta["discount"] * (batch.after @ params["w"] + params["b"])

    def loss(params: Any, targets: Any, eta: Any, batch: Transitions) -> tuple[Any, Any]:
        error = targets - batch.before @ params["w"] - params["b"]
        return 0.5 * jnp.mean(error**2) + 0.5 * eta["decay"] * jnp.sum(params["w"] ** 2), {"error": jnp.mean(error)}

    def outer_loss(state: gw.LearnerState, batch: Transitions) -> tuple[Any, Any]:
        values = batch.before @ state.params["w"] + state.params["b"]
        return jnp.mean((batch.truth - values) ** 2) + 0.1 * _memory_cost(state.optimizer_state), {"values": values}

    problem = gw.GradientLearner(targets, loss, optimizer, lambda eta: eta["rate"], outer_loss)
    spec = {"discount": gw.Interval(), "decay": gw.Positive(), "rate": gw.Positive()}
    raw = gw.unconstrain({"discount": jnp.float64(0.9), "decay": jnp.float64(0.05), "rate": jnp.float64(0.1)}, spec)
    params = {"w": jnp.array([0.5, -1.0, 0.3, 0.8]), "b": jnp.float64(0.2)}
    return Case(problem, raw, spec, problem.init(params), _draw_transitions)


def shared_forward() -> Case:
    """TD on a small network whose outputs are shared by all losses (`forward=`), with a rate per group."""

    def forward(params: Any, batch: Transitions) -> Any:
        def values(features: Any) -> Any:
            return jnp.tanh(features @ params["torso"]["w"] + params["torso"]["b"][None]) @ params["head"]

        return {"before": values(batch.before), "after": values(batch.after)}

    def targets(outputs: Any, eta: Any, batch: Transitions) -> Any:
        return batch.rewards + eta["discount"] * outputs["after"]

    def loss(outputs: Any, targets: Any, eta: Any, batch: Transitions) -> tuple[Any, Any]:
        return eta["cost"] * jnp.mean((targets - outputs["before"]) ** 2), None

    def outer_loss(state: gw.LearnerState, batch: Transitions) -> tuple[Any, Any]:
        outputs = state.params
        return jnp.mean((batch.truth - outputs["before"]) ** 2 + outputs["after"] ** 3), {
            "mean": outputs["before"].mean()
        }

    optimizer = optax.scale_by_adam(eps_root=1e-16)
    problem = gw.GradientLearner(targets, loss, optimizer, lambda eta: eta["rates"], outer_loss, forward=forward)
    spec = {"discount": gw.Interval(), "cost": gw.Positive(), "rates": gw.Positive()}
    eta = {"discount": 0.8, "cost": 0.7, "rates": {"torso": 0.05, "head": 0.1}}
    raw = gw.unconstrain(jax.tree.map(jnp.float64, eta), spec)
    torso, head = jax.random.normal(jax.random.key(5), (2, 4, 3))
    params = {"torso": {"w": torso, "b": jnp.zeros(3)}, "head": head[0]}
    return Case(problem, raw, spec, problem.init(params), _draw_transitions)


def rate_groups() -> Case:
    """Regression with one learning rate for each group of parameters: `learning_rate` returns a prefix of them."""

    def loss(params: Any, targets: Any, eta: Any, batch: Transitions) -> tuple[Any, Any]:
        hidden = jnp.tanh(batch.before @ params["first"]["w"] + params["first"]["b"][None])
        return jnp.mean((batch.rewards - hidden @ params["second"]) ** 2), None

    def outer_loss(state: gw.LearnerState, batch: Transitions) -> tuple[Any, Any]:
        return loss(state.params, None, None, batch)

    problem = gw.GradientLearner(lambda params, eta, batch: None, loss, optax.identity(), lambda eta: eta, outer_loss)
    spec = {"first": gw.Positive(), "second": gw.Positive()}
    raw = gw.unconstrain({"first": jnp.float64(0.3), "second": jnp.float64(0.1)}, spec)
    first, second = jax.random.normal(jax.random.key(6), (2, 4, 2))
    params = {"first": {"w": first, "b": jnp.zeros(2)}, "second": second[0]}
    return Case(problem, raw, spec, problem.init(params), _draw_transitions)


# ------------------------------------------------------------------------------------------------- no gradient inside


class Counted(NamedTuple):
    """A state with an integer in it, which the update and the outer loss both read."""

    count: Any
    x: Any


def counter() -> Case:
    """A nonlinear update that is no gradient step, with an integer counter in the state."""

    def update(state: Counted, eta: Any, noise: Any) -> tuple[Counted, Any]:
        time = state.count.astype(noise.dtype)
        turned = jnp.sin(state.x[::-1] * (1 + eta.gain * time) + noise) / (1 + time * eta.damping)
        return Counted(state.count + 1, 0.5 * state.x + eta.gain * turned), state.count

    def outer_loss(state: Counted, noise: Any) -> tuple[Any, Any]:
        return jnp.sum(jnp.cos(state.x - noise)) * (1 + state.count.astype(noise.dtype)), None

    spec = CounterEta(gw.Interval(0.0, 2.0), gw.Positive())
    raw = gw.unconstrain(CounterEta(jnp.float64(0.8), jnp.float64(0.3)), spec)
    state = Counted(jnp.array(2), jnp.array([[0.3, -0.4], [1.0, 0.2]]))
    return Case(gw.MetaProblem(update, outer_loss), raw, spec, state, lambda key: jax.random.normal(key, (2, 2)))


class CounterEta(NamedTuple):
    """Meta-parameters of `counter`."""

    gain: Any
    damping: Any


def nested() -> Case:
    """A deep pytree of meta-parameters: vectors, a matrix, and Fixed leaves (an integer one, too) in several places."""

    def update(x: Any, eta: Any, noise: Any) -> tuple[Any, Any]:
        scale, (gain, power), block = eta["scale"], eta["pair"], eta["deep"]["block"]
        pull = jnp.tanh(block @ x) * scale[:2] + gain * noise * eta["deep"]["frozen"]
        return (1 - 0.1 * scale[2]) * x - 0.2 * jnp.where(power == 3, pull**3, jnp.nan), None

    def outer_loss(x: Any, noise: Any) -> tuple[Any, Any]:
        return jnp.sum((x - noise) ** 2), None

    spec = {
        "scale": gw.Interval(-1.0, 3.0),
        "pair": (gw.Positive(), gw.Fixed()),
        "deep": {"block": gw.Unbounded(), "frozen": gw.Fixed()},
    }
    eta = {
        "scale": jnp.array([0.5, 1.5, 0.7]),
        "pair": (jnp.array(0.3), jnp.array(3)),
        "deep": {"block": jnp.array([[0.4, -0.7], [0.9, 0.6]]), "frozen": jnp.array([1.0, 2.0])},
    }
    state = jnp.array([0.9, -1.1])
    problem = gw.MetaProblem(update, outer_loss)
    return Case(problem, gw.unconstrain(eta, spec), spec, state, lambda key: jax.random.normal(key, (2,)))


CASES: dict[str, Callable[[], Case]] = {
    "quadratic": quadratic,
    "td_sgd": lambda: linear_td(optax.identity()),
    "td_adam": lambda: linear_td(optax.scale_by_adam(eps_root=1e-16)),
    "td_rmsprop": lambda: linear_td(optax.scale_by_rms(eps=1e-6, eps_in_sqrt=True)),
    "shared_forward": shared_forward,
    "rate_groups": rate_groups,
    "counter": counter,
    "nested": nested,
}


# ---------------------------------------------------------------------------------------------------- slow references


class Compiled(NamedTuple):
    """The problem's two functions, compiled: `update(state, raw, batch)` and `outer_loss(state, batch)`."""

    update: Any
    outer_loss: Any


def compiled(case: Case) -> Compiled:
    """What the loops below call; compiling a whole unrolled loop would take far longer than running it."""
    return Compiled(
        jax.jit(lambda state, raw, batch: case.problem.update(state, gw.constrain(raw, case.spec), batch)[0]),
        jax.jit(lambda state, batch: case.problem.outer_loss(state, batch)[0]),
    )


def _steps(batches: Any, outer_batches: Any) -> tuple[list[Any], list[Any]]:
    """Batches as Python lists: those that drive the updates, and those that evaluate x_1, x_2, ..."""

    def rows(tree: Any) -> list[Any]:
        return [jax.tree.map(lambda leaf: leaf[k], tree) for k in range(jax.tree.leaves(tree)[0].shape[0])]  # noqa: B023

    listed = rows(batches)
    return (listed[:-1], listed[1:]) if outer_batches is None else (listed, rows(outer_batches))


def horizon_losses(case: Case, functions: Compiled, raw: Any, batches: Any, outer_batches: Any) -> list[Any]:
    """J(x_1), ..., J(x_L)."""
    driving, evaluating = _steps(batches, outer_batches)
    state, losses = case.state, []
    for batch, following in zip(driving, evaluating, strict=True):
        state = functions.update(state, raw, batch)
        losses.append(functions.outer_loss(state, following))
    return losses


def window_losses(case: Case, functions: Compiled, raw: Any, batches: Any, outer_batches: Any) -> list[Any]:
    """J(x_L) where only the last m updates use `raw`, and those before them the case's own; m = 1, ..., L."""
    driving, evaluating = _steps(batches, outer_batches)
    losses = []
    for window in range(1, len(driving) + 1):
        state = case.state
        for k, batch in enumerate(driving):
            state = functions.update(state, raw if k >= len(driving) - window else case.raw, batch)
        losses.append(functions.outer_loss(state, evaluating[-1]))
    return losses


def direction_of(case: Case, seed: int = 7) -> Any:
    """A random direction over the learned leaves of raw; 0 over the Fixed ones."""

    def draw(key: Any, leaf: Any, bijector: Any) -> Any:
        if isinstance(bijector, gw.Fixed):
            return jnp.zeros_like(leaf)
        return jax.random.normal(key, leaf.shape, leaf.dtype)

    spec = full_spec(case)
    leaves, structure = jax.tree.flatten(case.raw)
    keys = list(jax.random.split(jax.random.key(seed), len(leaves)))
    return jax.tree.unflatten(structure, [draw(*args) for args in zip(keys, leaves, spec, strict=True)])


def full_spec(case: Case) -> list[Any]:
    """One bijector for each leaf of raw."""

    def is_bijector(node: Any) -> bool:
        return isinstance(node, gw.AbstractBijector)

    expanded = jax.tree.map(
        lambda bijector, sub: jax.tree.map(lambda _: bijector, sub), case.spec, case.raw, is_leaf=is_bijector
    )
    return jax.tree.leaves(expanded, is_leaf=is_bijector)


def along(case: Case, direction: Any, distance: Any) -> Any:
    """raw + distance * direction; integers stay as they are."""

    def move(leaf: Any, change: Any) -> Any:
        return leaf + distance * change if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

    return jax.tree.map(move, case.raw, direction)


def dot(one: Any, other: Any) -> float:
    """Inner product of two pytrees of the same structure."""
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return float(sum(np.sum(np.asarray(a, float) * np.asarray(b, float)) for a, b in pairs))
