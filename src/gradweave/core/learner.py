"""Gradient-based learners declared in parts: targets, loss, optimiser, learning rate.

A semi-gradient update (temporal differences, actor-critic) does not differentiate its targets, but its *meta*-gradient
must: the path x_k -> targets -> x_{k+1} exists. Writing `stop_gradient` in the loss removes that path too, which is
right for one inner step and wrong for every longer horizon. Here the targets are computed outside the function that the
learner differentiates,

    T_k = targets(theta_k, eta, batch_k)
    G_k = d/dtheta loss(theta, T_k, eta, batch_k) at theta_k
    theta_{k+1} = theta_k - learning_rate(eta) * direction(G_k, optimiser state),

so that no `stop_gradient` is needed. `MixedMode` needs the same parts (Kemaev et al. 2025, arXiv 2505.00793).
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax.extend.core import Jaxpr, Var
from jaxtyping import Array, PyTree

from gradweave.core.contract import check_pair, check_scalar
from gradweave.core.optimizers.direction import check_descends, checked_params, checked_rate, direction_of
from gradweave.core.remembered import Remembered

Result = TypeVar("Result", bound=PyTree)


class LearnerState(NamedTuple):
    """The state of a gradient-based learner: `params` (inexact arrays) and the optimiser's own state."""

    params: PyTree
    optimizer_state: PyTree


class Microbatches(NamedTuple):
    """The parts of a batch, for a loss that is a mean over them.

    Attributes:
        num_parts: their number, at least 1.
        part: `(batch, index) -> one part`, of the same shapes for every index; the index, below `num_parts`, is traced.
    """

    num_parts: int
    part: Callable[[PyTree, Array], PyTree]


class RecordedBatch(NamedTuple):
    """Batch number `step` of a window; `GradientLearner.batch_mean` slices it out where it is read."""

    batches: PyTree
    step: Array


def _forward_is_identity(params: PyTree, batch: PyTree) -> PyTree:
    return params


class GradientLearner(eqx.Module):
    """A `MetaProblem` declared in parts.

    Args:
        targets: `(params, eta, batch) -> targets`, evaluated outside the learner's own gradient.
        loss: `(params, targets, eta, batch) -> (scalar, aux)`; must not contain `stop_gradient`.
        optimizer: an optax transformation *without* a learning rate, such as `optax.scale_by_adam(eps_root=1e-16)`.
            `optax.adam(...)` has one and its sign turned: with that the learner would climb, and `init` refuses it.
            Adam's square root has no finite second derivative at zero: wrap it in `gradweave.differentiable`, or give
            it a tiny `eps_root` (1e-8 puts a floor of 1e-4 under every gradient).
        learning_rate: `(eta) -> real scalar`, or a pytree that is a prefix of `params` (one rate for each group).
        outer_loss: `(state, batch) -> (scalar, aux)`. The field is called `outer_loss_of`, because `outer_loss` is the
            method that evaluates it; the constructor takes both names, so that `dataclasses.replace` serves.
        forward: optional `(params, batch) -> outputs`. When given, `targets` and `loss` receive these outputs in the
            place of `params`, and `outer_loss` receives `LearnerState(outputs, optimizer_state)`: the network is then
            evaluated once where `MixedMode` needs all three, and their derivatives travel back through it in one pass.
            Outputs that the loss does not read cost the learner no pass back.
        companion_loss: optional `(outputs, targets, batch) -> scalar`, trained along: its gradient is added to the
            loss's, and the meta-gradient treats it as a constant, in every mode, which costs nothing. That is exact if
            and only if the parameters that it moves do not reach the losses through anything that is differentiated: an
            outer critic that supplies baselines, say. (A clipping of the global norm is such a way.)
        microbatches: optional parts of a batch, for a loss that is a mean over them: gradients and outer losses are
            then computed part by part and averaged. Changes nothing but the rounding, and the memory: parts that fit
            into a processor's cache are several times faster.
    """

    targets: Callable[..., PyTree]
    loss: Callable[..., tuple[Array, PyTree]]
    optimizer: optax.GradientTransformation
    learning_rate: Callable[[PyTree], PyTree]
    outer_loss_of: Callable[..., tuple[Array, PyTree]]
    forward: Callable[[PyTree, PyTree], PyTree]
    companion_loss: Callable[..., Array] | None
    microbatches: Microbatches | None

    def __init__(
        self,
        targets: Callable[..., PyTree],
        loss: Callable[..., tuple[Array, PyTree]],
        optimizer: optax.GradientTransformation,
        learning_rate: Callable[[PyTree], PyTree],
        outer_loss: Callable[..., tuple[Array, PyTree]] | None = None,
        *,
        forward: Callable[[PyTree, PyTree], PyTree] | None = None,
        companion_loss: Callable[..., Array] | None = None,
        microbatches: Microbatches | None = None,
        outer_loss_of: Callable[..., tuple[Array, PyTree]] | None = None,
    ) -> None:
        outer_loss = outer_loss_of if outer_loss is None else outer_loss
        for name, part in (
            ("targets", targets),
            ("loss", loss),
            ("learning_rate", learning_rate),
            ("outer_loss", outer_loss),
        ):
            if not callable(part):
                raise TypeError(f"GradientLearner needs a function for {name}, but was given {part!r}.")
        assert outer_loss is not None
        if not all(callable(getattr(optimizer, name, None)) for name in ("init", "update")):
            raise TypeError(
                f"GradientLearner needs an optax transformation for optimizer, but was given {optimizer!r}; call the "
                "factory first: optax.scale_by_adam()."
            )
        if microbatches is not None and microbatches.num_parts < 1:
            raise ValueError(f"a batch has at least 1 part; Microbatches was given num_parts={microbatches.num_parts}.")
        self.targets = targets
        self.loss = loss
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.outer_loss_of = outer_loss
        self.forward = _forward_is_identity if forward is None else forward
        self.companion_loss = companion_loss
        self.microbatches = microbatches

    def init(self, params: PyTree) -> LearnerState:
        """The state before the first update.

        Raises:
            TypeError: a parameter is no inexact array, or the optimiser wants more than a gradient.
            ValueError: the optimiser's direction would climb.
        """
        params = checked_params(params)
        check_descends(self.optimizer, params)
        return LearnerState(params, self.optimizer.init(params))

    def update(self, state: LearnerState, eta: PyTree, batch: PyTree) -> tuple[LearnerState, PyTree]:
        """One inner update (the equations at the head of this file)."""
        gradient, aux = self.inner_gradient(state, eta, batch)
        return self.apply_gradient(gradient, state, eta), aux

    def recorded_update(self, state: LearnerState, eta: PyTree, batch: PyTree) -> tuple[LearnerState, PyTree, PyTree]:
        """(the state after an update, its inner gradient, aux), for `MixedMode`. The batch may be a `RecordedBatch`."""
        gradient, aux = self.inner_gradient(state, eta, batch)
        return self.apply_gradient(gradient, state, eta), gradient, aux

    def outer_loss(self, state: LearnerState, batch: PyTree) -> tuple[Array, PyTree]:
        """The outer loss at `state` on `batch`."""

        def evaluated(part: PyTree) -> tuple[Array, PyTree]:
            return self._evaluated(state._replace(params=self.forward(state.params, part)), part)

        return self.batch_mean(evaluated, batch)

    def _evaluated(self, state: LearnerState, part: PyTree) -> tuple[Array, PyTree]:
        evaluated: tuple[Array, PyTree] = check_pair(self.outer_loss_of(state, part), "outer_loss", "(scalar, aux)")
        return evaluated

    def with_outer_loss(self, outer_loss: Callable[..., tuple[Array, PyTree]]) -> "GradientLearner":
        """The same learner with another outer loss, `(state, batch) -> (scalar, aux)`; the arguments are as for the
        constructor's.
        """
        return dataclasses.replace(self, outer_loss_of=outer_loss)

    def remembering(self) -> "GradientLearner":
        """The same learner for one trace of an update, in which the Python of its parts runs once."""
        if isinstance(self.loss, Remembered):
            return self
        companion = self.companion_loss
        return dataclasses.replace(
            self,
            targets=Remembered(self.targets),
            loss=Remembered(self.loss),
            outer_loss_of=Remembered(self.outer_loss_of),
            forward=self.forward if self.forward is _forward_is_identity else Remembered(self.forward),
            companion_loss=None if companion is None else Remembered(companion),
        )

    def map_eta(self, function: Callable[[PyTree], PyTree]) -> "GradientLearner":
        """The same learner over other meta-parameters, of which eta is `function`."""
        return dataclasses.replace(
            self,
            targets=lambda outputs, given, batch: self.targets(outputs, function(given), batch),
            loss=lambda outputs, targets, given, batch: self.loss(outputs, targets, function(given), batch),
            learning_rate=lambda given: self.learning_rate(function(given)),
        )

    def map_batch(
        self, function: Callable[[PyTree], PyTree], part: Callable[[PyTree, Array], PyTree] | None = None
    ) -> "GradientLearner":
        """The same learner over other batches, of which its own are `function`.

        Args:
            function: `(given batch) -> batch`.
            part: `(given batch, index) -> one part of the given kind`, as in `Microbatches`; needed if and only if the
                learner has microbatches, whose parts are of its own kind of batch.

        Raises:
            ValueError: `part` is missing, or there are no microbatches that it could cut.
        """
        companion_loss, parts = self.companion_loss, self.microbatches
        if (part is None) != (parts is None):
            raise ValueError(
                f"map_batch was given part={part!r} for a learner with microbatches={parts!r}: give the function that "
                "cuts a part of the new kind of batch if, and only if, the learner has microbatches."
            )
        return dataclasses.replace(
            self,
            targets=lambda outputs, eta, given: self.targets(outputs, eta, function(given)),
            loss=lambda outputs, targets, eta, given: self.loss(outputs, targets, eta, function(given)),
            outer_loss_of=lambda state, given: self.outer_loss_of(state, function(given)),
            forward=lambda params, given: self.forward(params, function(given)),
            companion_loss=None
            if companion_loss is None
            else lambda outputs, targets, given: companion_loss(outputs, targets, function(given)),
            microbatches=None if parts is None or part is None else Microbatches(parts.num_parts, part),
        )

    def inner_gradient(self, state: LearnerState, eta: PyTree, batch: PyTree) -> tuple[PyTree, PyTree]:
        """(G_k, aux): the learner's own gradient, with the targets held constant by position, not by
        `stop_gradient`.
        """
        learner = self.remembering()
        return learner.batch_mean(lambda part: learner._part_gradient(state, eta, part)[:2], batch)

    def gradient_and_outer_loss(
        self, state: LearnerState, eta: PyTree, batch: PyTree
    ) -> tuple[PyTree, PyTree, tuple[Array, PyTree]]:
        """(G_k, aux, (outer loss at x_k, its aux)) on one batch, for one forward pass."""
        learner = self.remembering()

        def part_gradient(part: PyTree) -> tuple[PyTree, PyTree, tuple[Array, PyTree]]:
            gradient, aux, outputs = learner._part_gradient(state, eta, part)
            return gradient, aux, learner._evaluated(state._replace(params=outputs), part)

        return learner.batch_mean(part_gradient, batch)

    def _part_gradient(self, state: LearnerState, eta: PyTree, batch: PyTree) -> tuple[PyTree, PyTree, PyTree]:
        """(gradient, aux, outputs) of one part of a batch."""
        reads = self._read_by_loss(state.params, eta, batch)

        def forward(params: PyTree) -> tuple[PyTree, PyTree]:
            outputs = self.forward(params, batch)
            return eqx.partition(outputs, jax.tree.unflatten(jax.tree.structure(outputs), reads))

        read, pullback, others = jax.vjp(forward, state.params, has_aux=True)
        targets = self.targets(eqx.combine(read, others), eta, batch)

        def loss(read: PyTree) -> tuple[Array, PyTree]:
            value, aux = check_pair(self.loss(eqx.combine(read, others), targets, eta, batch), "loss", "(scalar, aux)")
            check_scalar(value, "loss")
            return value, aux

        output_gradient, aux = jax.grad(loss, has_aux=True)(read)
        (gradient,) = pullback(output_gradient)
        if self.companion_loss is not None:
            gradient = jax.tree.map(jnp.add, gradient, self._companion_gradient(state.params, targets, batch))
        return gradient, aux, eqx.combine(read, others)

    def _read_by_loss(self, params: PyTree, eta: PyTree, batch: PyTree) -> list[bool]:
        """Whether the loss itself reads and can differentiate each leaf of the outputs. No gradient arrives at the
        others (values to bootstrap from, say), and a pass back through them would push zeros.
        """
        outputs = jax.eval_shape(lambda params: self.forward(params, batch), params)
        targets = jax.eval_shape(lambda outputs: self.targets(outputs, eta, batch), outputs)
        loss = jax.make_jaxpr(
            lambda outputs, targets: check_pair(self.loss(outputs, targets, eta, batch), "loss", "(scalar, aux)")[0]
        )
        read = _read_inputs(loss(outputs, targets).jaxpr)
        leaves = jax.tree.leaves(outputs)
        return [
            is_read and jnp.issubdtype(leaf.dtype, jnp.inexact) for is_read, leaf in zip(read, leaves, strict=False)
        ]

    def read_by_outer_loss(self, state: LearnerState, batch: PyTree) -> PyTree:
        """Whether the outer loss reads each leaf of the optimiser's state, usually none: a tree of its structure."""
        outputs = jax.eval_shape(lambda params: self.forward(params, batch), state.params)
        loss = jax.make_jaxpr(lambda kept, outputs: self.outer_loss_of(LearnerState(outputs, kept), batch)[0])
        read = _read_inputs(loss(state.optimizer_state, outputs).jaxpr)
        leaves, structure = jax.tree.flatten(state.optimizer_state)
        return jax.tree.unflatten(structure, read[: len(leaves)])

    def batch_mean(self, function: Callable[..., Result], *batches: PyTree) -> Result:
        """The mean of `function(*parts)` over the parts of batches; `function(*batches)` where they are not split.

        Batches may be `RecordedBatch`.
        """
        parts = self.microbatches
        if parts is None:
            return function(*(sliced_out(batch) for batch in batches))

        def of_part(index: Array) -> Result:
            return function(*(None if batch is None else _part(parts, batch, index) for batch in batches))

        def add(total: Result, index: Array) -> tuple[Result, None]:
            return jax.tree.map(lambda leaf, more: leaf + jnp.asarray(more, leaf.dtype), total, of_part(index)), None

        # A running sum: all parts' results side by side would take as many times their memory.
        nothing = jax.tree.map(_zeros_to_average, jax.eval_shape(of_part, jnp.zeros((), jnp.int32)))
        total, _ = jax.lax.scan(add, nothing, jnp.arange(parts.num_parts, dtype=jnp.int32))
        mean: Result = jax.tree.map(lambda leaf: leaf / jnp.asarray(parts.num_parts, leaf.dtype), total)
        return mean

    def _companion_gradient(self, params: PyTree, targets: PyTree, batch: PyTree) -> PyTree:
        """A number to the meta-gradient, by contract: this, and no inner loss, is where a derivative is stopped."""
        companion_loss = self.companion_loss
        assert companion_loss is not None
        params, targets = jax.lax.stop_gradient((params, targets))
        # The same forward pass as the loss's: the compiler makes it once.
        return jax.grad(lambda params: companion_loss(self.forward(params, batch), targets, batch))(params)

    def apply_gradient(self, gradient: PyTree, state: LearnerState, eta: PyTree) -> LearnerState:
        """theta - learning_rate(eta) * direction, elementwise in the parameters for the usual optimisers."""
        direction, optimizer_state = direction_of(self.optimizer, gradient, state.optimizer_state, state.params)
        params = _descend(state.params, direction, checked_rate(self.learning_rate(eta), state.params))
        return LearnerState(params, optimizer_state)


def _read_inputs(jaxpr: Jaxpr) -> list[bool]:
    """Whether each input matters to the outputs; an input of a call counts if the call does."""
    matter = {variable for variable in jaxpr.outvars if isinstance(variable, Var)}
    for equation in reversed(jaxpr.eqns):
        if matter.intersection(equation.outvars):
            matter.update(variable for variable in equation.invars if isinstance(variable, Var))
    return [variable in matter for variable in jaxpr.invars]


def _part(parts: Microbatches, batch: PyTree, index: Array) -> PyTree:
    if isinstance(batch, RecordedBatch):
        # The barrier makes the slice depend on the part: the compiler would copy the whole batch before the loop.
        which, index = jax.lax.optimization_barrier((batch.step, index))
        batch = sliced_out(RecordedBatch(batch.batches, which))
    return parts.part(batch, index)


def sliced_out(batch: PyTree) -> PyTree:
    """The batch that a `RecordedBatch` stands for; any other batch is returned as it is."""
    if not isinstance(batch, RecordedBatch):
        return batch
    return jax.tree.map(lambda leaf: jax.lax.dynamic_index_in_dim(leaf, batch.step, keepdims=False), batch.batches)


def _zeros_to_average(like: jax.ShapeDtypeStruct) -> Array:
    dtype = like.dtype if jnp.issubdtype(like.dtype, jnp.inexact) else jnp.result_type(float)
    return jnp.zeros(like.shape, dtype)


def _descend(params: PyTree, direction: PyTree, rate: PyTree) -> PyTree:
    def group(group_rate: float | Array, group_params: PyTree, group_direction: PyTree) -> PyTree:
        return jax.tree.map(
            lambda leaf, change: leaf - jnp.asarray(group_rate, leaf.dtype) * change, group_params, group_direction
        )

    return jax.tree.map(group, rate, params, direction)
