"""Random estimators have the right mean, and mixes the right variance: three standard errors, fixed seeds.

And the identities between estimators, exactly.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradweave as gw
from gradweave.core.modes.mixed import record

from ..more_problems import TABLE
from ..problems import CURVATURE, OUTER_CURVATURE, QuadraticBatch, quadratic

NUM_SAMPLES = 4000


def case_and_data(num_steps):
    case = quadratic()
    return case, case.data(num_steps, online=False)


def exact(case, data):
    return gw.meta_gradient(case.problem, case.raw, case.spec, case.state, *data).grad


def samples_of(estimator, case, data, num_samples=NUM_SAMPLES):
    def sample(key):
        memory = estimator.init(case.raw, case.spec, case.state, key=key)
        args = (case.problem, case.raw, case.spec, case.state, *data)
        return gw.meta_gradient(*args, estimator=estimator, estimator_state=memory).grad

    return jax.jit(jax.vmap(sample))(jax.random.split(jax.random.key(3), num_samples))


def deviations(samples, truth):
    """How many standard errors the mean lies from the truth, leaf by leaf."""
    found = gw.estimator_statistics(samples, reference=truth)
    return jax.tree.map(lambda bias, error: float(bias / error), found.bias, found.standard_error)


@pytest.mark.slow
@pytest.mark.parametrize("probability", [0.5, 0.9])
def test_random_truncation_is_unbiased_and_a_fixed_one_is_not(probability):
    case, data = case_and_data(5)
    truth = exact(case, data)
    samples = samples_of(gw.RandomTruncation(probability), case, data)
    assert all(abs(z) < 3 for z in jax.tree.leaves(deviations(samples, truth)))
    for leaf in samples.values():
        assert len(np.unique(np.asarray(leaf).round(9))) == 5  # one value for each depth
    short = gw.meta_gradient(case.problem, case.raw, case.spec, case.state, *data, estimator=gw.Truncated(2)).grad
    assert all(abs(short[name] - truth[name]) > 0.05 * abs(truth[name]) for name in truth)


def test_step_weights_average_to_one_when_every_depth_is_enumerated():
    estimator = gw.RandomTruncation(0.7)
    keys = jax.random.split(jax.random.key(0), 2000)
    drawn = np.asarray(jax.vmap(lambda key: estimator.step_weights(4, key=key))(keys))
    values, counts = np.unique(drawn, axis=0, return_counts=True)
    depths = (values > 0).sum(1)
    probabilities = np.where(depths < 4, 0.7 ** (depths - 1) * 0.3, 0.7**3)
    assert sorted(depths) == [1, 2, 3, 4] and probabilities.sum() == pytest.approx(1)
    np.testing.assert_allclose(probabilities @ values, np.ones(4), rtol=1e-12)
    assert (np.abs(counts / 2000 - probabilities) < 3 * np.sqrt(probabilities * (1 - probabilities) / 2000)).all()


def test_probability_one_is_the_full_unroll():
    case, data = case_and_data(4)
    samples = samples_of(gw.RandomTruncation(1.0), case, data, 3)
    for name, leaf in exact(case, data).items():
        np.testing.assert_allclose(samples[name], np.full(3, leaf), rtol=1e-12)


@pytest.mark.parametrize("num_pairs", [1, 4])
def test_evolution_strategies_have_the_exact_gradient_as_their_mean(num_pairs):
    case, data = case_and_data(4)
    samples = samples_of(gw.EvolutionStrategies(0.01, num_pairs=num_pairs), case, data)
    truth = exact(case, data)
    assert all(abs(z) < 3 for z in jax.tree.leaves(deviations(samples, truth)))
    # Antithetic directions of a nearly linear function: n_i (g . n), whose variance is |g|^2 + g_i^2, over the pairs.
    square = sum(float(leaf) ** 2 for leaf in truth.values())
    for name, leaf in samples.items():
        expected = (square + float(truth[name]) ** 2) / num_pairs
        assert float(leaf.var()) == pytest.approx(expected, rel=0.15)


@pytest.mark.slow
def test_persistent_evolution_strategies_see_through_all_windows_and_truncation_does_not():
    length, num_windows = 2, 4
    case, (batches, outer_batches) = case_and_data(length * num_windows)
    truth = exact(case, (batches, outer_batches))
    windows = jax.tree.map(lambda leaf: leaf.reshape(num_windows, length, *leaf.shape[1:]), (batches, outer_batches))

    def last(estimator):
        def run(key):
            def window(carry, data):
                args = (case.problem, case.raw, case.spec, carry[0], *data)
                result = gw.meta_gradient(*args, estimator=estimator, estimator_state=carry[1])
                return (result.state, result.estimator_state), result.grad

            memory = estimator.init(case.raw, case.spec, case.state, key=key)
            return jax.tree.map(lambda leaf: leaf[-1], jax.lax.scan(window, (case.state, memory), windows)[1])

        return jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(5), NUM_SAMPLES))

    persistent = last(gw.PersistentEvolutionStrategies(0.01, num_pairs=4))
    assert all(abs(z) < 3 for z in jax.tree.leaves(deviations(persistent, truth)))
    plain = last(gw.EvolutionStrategies(0.01, num_pairs=4))
    assert all(abs(z) > 10 for z in jax.tree.leaves(deviations(plain, truth)))
    again = last(gw.PersistentEvolutionStrategies(0.01, 4, num_windows=1))
    for name, leaf in again.items():  # restarted in every window, it is the plain kind
        np.testing.assert_allclose(leaf, plain[name], rtol=1e-9)


def moments_of_shift(case, num_steps):
    """Mean and covariance of (g_1 .. g_L) and of (h_1 .. h_L) by the shift, over the noise of all batches, by algebra.

    x_k = c^k x_0 + sum_{j<k} c^(k-1-j) alpha a (xi_j + s); g_k = b (x_k - zeta_k) . (1 - c^k); xi, zeta normal.
    """
    alpha, s, start = np.exp(float(case.raw["rate"])), float(case.raw["shift"]), np.asarray(case.state)
    a, b, c = CURVATURE, OUTER_CURVATURE, 1 - alpha * CURVATURE
    ks = np.arange(1, num_steps + 1)
    reach = np.stack([1 - c**k for k in ks])
    center = np.stack([c**k * start + (1 - c**k) * s for k in ks])
    noise = np.zeros((num_steps, num_steps, 3))  # noise[k - 1, j]: what xi_j adds to x_k
    for k in ks:
        for j in range(k):
            noise[k - 1, j] = c ** (k - 1 - j) * alpha * a
    covariance = np.einsum("kjd,ljd->kld", noise, noise) + np.eye(num_steps)[:, :, None]
    horizons = (b * center * reach).sum(1), np.einsum("d,kd,ld,kld->kl", b**2, reach, reach, covariance)
    last = covariance[-1, -1]
    windows = (b * center[-1] * reach).sum(1), np.einsum("d,kd,ld,d->kl", b**2, reach, reach, last)
    return horizons, windows


def shifts(estimators, case, num_steps, num_samples):
    def sample(key):
        inner, outer = jax.random.split(key)
        batches = jax.vmap(case.draw)(jax.random.split(inner, num_steps))
        outer_batches = jax.vmap(case.draw)(jax.random.split(outer, num_steps))
        args = (case.problem, case.raw, case.spec, case.state, batches, outer_batches)
        return {
            name: gw.meta_gradient(*args, estimator=estimator).grad["shift"] for name, estimator in estimators.items()
        }

    return jax.jit(jax.vmap(sample))(jax.random.split(jax.random.key(6), num_samples))


@pytest.mark.slow
def test_the_variance_of_mixes_is_that_of_the_algebra():
    case, num_steps, num_samples = quadratic(), 4, 20_000
    odd = np.array([0.1, 0.4, 0.2, 0.3])
    weights = {
        "uniform": gw.uniform_weights(4),
        "geometric": gw.geometric_weights(4, 0.7),
        "odd": jnp.asarray(odd),
        "last": jnp.eye(4)[-1],
    }
    estimators = {("horizon", name): gw.HorizonMix(w) for name, w in weights.items()}
    estimators |= {("window", name): gw.TruncationMix(w) for name, w in weights.items()}
    samples = shifts({f"{kind} {name}": e for (kind, name), e in estimators.items()}, case, num_steps, num_samples)
    horizons, windows = moments_of_shift(case, num_steps)
    for kind, name in estimators:
        mean, covariance = horizons if kind == "horizon" else windows
        w, found = np.asarray(weights[name]), np.asarray(samples[f"{kind} {name}"])
        variance = w @ covariance @ w
        assert abs(found.mean() - w @ mean) < 3 * np.sqrt(variance / num_samples)
        assert abs(found.var(ddof=1) - variance) < 3 * variance * np.sqrt(2 / (num_samples - 1))
    assert (
        samples["horizon uniform"].var() < 0.7 * samples["window uniform"].var()
    )  # evaluated on four batches, not one


def test_a_trace_in_windows_of_one_update_is_the_full_unroll_when_nothing_decays():
    case, (batches, outer_batches) = case_and_data(6)
    estimator = gw.Trace(1.0)

    def window(carry, data):
        data = jax.tree.map(lambda leaf: leaf[None], data)
        result = gw.meta_gradient(
            case.problem, case.raw, case.spec, carry[0], *data, estimator=estimator, estimator_state=carry[1]
        )
        return (result.state, result.estimator_state), result.grad

    start = case.state, estimator.init(case.raw, case.spec, case.state)
    _, gradients = jax.jit(lambda start: jax.lax.scan(window, start, (batches, outer_batches)))(start)
    every = gw.horizon_gradients(case.problem, case.raw, case.spec, case.state, batches, outer_batches)
    for name in every:
        np.testing.assert_allclose(gradients[name], every[name], rtol=1e-10)


@pytest.mark.parametrize("decay", [0.0, 0.3, 1.0])
def test_a_trace_from_zero_is_a_geometric_mix_of_windows(decay):
    case, data = case_and_data(5)
    estimator, args = gw.Trace(decay), (case.problem, case.raw, case.spec, case.state)
    found = gw.meta_gradient(*args, *data, estimator=estimator, estimator_state=estimator.init(*args[1:])).grad
    mixed = gw.meta_gradient(*args, *data, estimator=gw.TruncationMix(gw.geometric_weights(5, decay))).grad
    for name in found:
        np.testing.assert_allclose(found[name], mixed[name], rtol=1e-10)


@pytest.mark.slow
def test_a_bootstrap_of_one_plain_step_is_the_rate_times_the_full_unroll():
    def loss(params, targets, eta, batch):
        return 0.5 * jnp.sum(CURVATURE * (params - batch.inner - eta["shift"]) ** 2), None

    def outer_loss(state, batch):
        return 0.5 * jnp.sum(OUTER_CURVATURE * (state.params - batch.outer) ** 2), None

    case, data = case_and_data(4)
    identity = gw.GradientLearner(lambda *_: None, loss, optax.identity(), lambda eta: eta["rate"], outer_loss)
    args = (identity, case.raw, case.spec, identity.init(case.state), *data)
    truth = gw.meta_gradient(*args).grad
    rate = float(gw.constrain(case.raw, case.spec)["rate"])
    for mode in (gw.ReverseMode(), gw.ForwardMode(), gw.MixedMode()):
        estimators = gw.Bootstrapped(1), gw.Bootstrapped(1, target_learning_rate=0.25)
        own, chosen = jax.jit(lambda: [gw.meta_gradient(*args, estimator=e, mode=mode).grad for e in estimators])()  # noqa: B023
        for name in truth:
            np.testing.assert_allclose(own[name], rate * truth[name], rtol=1e-10)
            np.testing.assert_allclose(chosen[name], 0.25 * truth[name], rtol=1e-10)


@pytest.mark.slow
def test_a_bootstrap_uses_a_recording_and_any_distance():
    case = TABLE["shared_forward"]()
    batches, outer_batches = case.data(4, online=False)
    recording, _ = jax.jit(lambda: record(case.problem, gw.constrain(case.raw, case.spec), case.state, batches))()

    def distance(state, target, batch):
        values = [jnp.tanh(batch.before @ each.params["torso"]["w"]) @ each.params["head"] for each in (state, target)]
        return jnp.mean((values[0] - values[1]) ** 4)

    args = (case.problem, case.raw, case.spec, case.state, batches, outer_batches)
    ways = (
        (gw.ReverseMode(), None),
        (gw.ForwardMode(), None),
        (gw.MixedMode(), None),
        (gw.MixedMode(), recording),
    )
    for steps in (1, 3):
        estimator = gw.Bootstrapped(steps, distance)
        found = jax.jit(
            lambda e=estimator: [gw.meta_gradient(*args, estimator=e, mode=m, recording=given) for m, given in ways]
        )()
        for other in found[1:]:
            same = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-14)  # noqa: E731
            jax.tree.map(
                same, (found[0].grad, found[0].outer_loss, found[0].state), (other.grad, other.outer_loss, other.state)
            )
        assert all(np.any(np.asarray(leaf) != 0) for leaf in jax.tree.leaves(found[0].grad))


@pytest.mark.slow
def test_batches_of_online_cross_validation_serve_as_well():
    case = quadratic()
    batches, _ = case.data(4, online=True)
    split = jax.tree.map(lambda leaf: leaf[:-1], batches), jax.tree.map(lambda leaf: leaf[1:], batches)
    assert isinstance(batches, QuadraticBatch)
    for estimator in (
        gw.Trace(0.5),
        gw.RandomTruncation(0.5),
        gw.Bootstrapped(2, target_learning_rate=0.1),
        gw.PersistentEvolutionStrategies(0.1),
        gw.EvolutionStrategies(0.1),
        gw.AdaptiveMix(4),
    ):

        @jax.jit
        def both(raw, estimator=estimator):
            def gradient(data):
                memory = estimator.init(raw, case.spec, case.state, key=jax.random.key(1))
                args = (case.problem, raw, case.spec, case.state, *data)
                return gw.meta_gradient(*args, estimator=estimator, estimator_state=memory).grad

            return gradient((batches, None)), gradient(split)

        online, apart = both(case.raw)
        for name in online:
            np.testing.assert_allclose(online[name], apart[name], rtol=1e-10)
            assert online[name] != 0


@pytest.mark.parametrize(
    "build",
    [
        lambda: gw.Trace(1.5),
        lambda: gw.Trace(-0.1),
        lambda: gw.RandomTruncation(0.0),
        lambda: gw.RandomTruncation(1.1),
        lambda: gw.Bootstrapped(0),
        lambda: gw.Bootstrapped(1, target_learning_rate=0.0),
        lambda: gw.Bootstrapped(4).check(3),
        lambda: gw.EvolutionStrategies(0.0),
        lambda: gw.EvolutionStrategies(0.1, num_pairs=0),
        lambda: gw.PersistentEvolutionStrategies(0.1, 2, num_windows=0),
        lambda: gw.AdaptiveMix(0),
        lambda: gw.AdaptiveMix(3, decay=1.0),
        lambda: gw.AdaptiveMix(3, warmup=1),
        lambda: gw.AdaptiveMix(3).check(4),
        lambda: gw.SignalToNoise(shrinkage=0.0),
        lambda: gw.LeastError(shrinkage=1.5),
        lambda: gw.LeastError(num_averaged=0.0),
    ],
)
def test_values_out_of_range_are_refused(build):
    with pytest.raises(ValueError, match=r"(must|at least|needs|was given)"):
        build()


def test_a_bootstrap_of_a_learner_without_parts_asks_for_a_rate():
    case, data = case_and_data(3)
    with pytest.raises(ValueError, match="target_learning_rate"):
        gw.meta_gradient(case.problem, case.raw, case.spec, case.state, *data, estimator=gw.Bootstrapped(2))


def test_a_trace_of_another_learner_is_refused():
    case, data = case_and_data(3)
    estimator = gw.Trace(0.5)
    other = estimator.init(case.raw, case.spec, jnp.zeros(4))
    with pytest.raises(ValueError, match="begin again"):
        gw.meta_gradient(
            case.problem, case.raw, case.spec, case.state, *data, estimator=estimator, estimator_state=other
        )


@pytest.mark.parametrize(
    ("estimator", "maker"),
    [
        (gw.AdaptiveMix(3), gw.AdaptiveMix(2)),
        (gw.AdaptiveMix(3), None),
        (gw.PersistentEvolutionStrategies(0.1), gw.PersistentEvolutionStrategies(0.1, num_pairs=4)),
        (gw.PersistentEvolutionStrategies(0.1), None),
    ],
)
def test_a_memory_of_other_learned_numbers_or_another_estimator_is_refused(estimator, maker):
    case, data = case_and_data(3)
    spec = case.spec if maker else {**case.spec, "shift": gw.Fixed()}  # with one learned number, not two
    other = (maker or estimator).init(case.raw, spec, case.state)
    with pytest.raises(ValueError, match=rf"estimator_state of {type(estimator).__name__}.*begin again"):
        gw.meta_gradient(
            case.problem, case.raw, case.spec, case.state, *data, estimator=estimator, estimator_state=other
        )


def test_particles_of_another_learner_are_refused():
    case, data = case_and_data(3)
    estimator = gw.PersistentEvolutionStrategies(0.1)
    other = estimator.init(case.raw, case.spec, jnp.zeros(4))
    with pytest.raises(ValueError, match="estimator_state of PersistentEvolutionStrategies"):
        gw.meta_gradient(
            case.problem, case.raw, case.spec, case.state, *data, estimator=estimator, estimator_state=other
        )


@pytest.mark.parametrize("estimator", [gw.AdaptiveMix(3), gw.PersistentEvolutionStrategies(0.1)], ids=str)
def test_whole_number_meta_parameters_have_the_memory_of_real_ones(estimator):
    case, data = case_and_data(3)
    found = {}
    for kind in (int, float):
        raw = {"rate": kind(-2), "shift": kind(1)}
        memory = estimator.init(raw, case.spec, case.state)
        found[kind] = gw.meta_gradient(
            case.problem, raw, case.spec, case.state, *data, estimator=estimator, estimator_state=memory
        )
        dtypes = [[leaf.dtype for leaf in jax.tree.leaves(each)] for each in (memory, found[kind].estimator_state)]
        assert dtypes[0] == dtypes[1]
    assert found[int].grad == found[float].grad and found[int].outer_loss == found[float].outer_loss
    assert all(float(leaf) != 0 for leaf in found[int].grad.values())


def test_a_boolean_is_one_pair_and_the_persistent_kind_is_named():
    with pytest.warns(UserWarning, match=r"num_pairs=1.*PersistentEvolutionStrategies\(sigma\)"):
        estimator = gw.EvolutionStrategies(0.1, True)
    assert (type(estimator), estimator.num_pairs) == (gw.EvolutionStrategies, 1)
    assert type(estimator.num_pairs) is int
    with pytest.raises(ValueError, match="num_pairs=True"):
        gw.PersistentEvolutionStrategies(0.1, True)
