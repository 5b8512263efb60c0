import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from scipy.optimize import minimize

from anyprop.contract import Batch, DataInfo, exact_gradient
from anyprop.losses import CrossEntropy, SquaredError
from anyprop.nets import Activate, Chain, Conv, Dense, Elman, Flatten, Pool, Residual, mlp
from anyprop.rules.auxiliary._method_of_auxiliary_coordinates import MethodOfAuxiliaryCoordinates as MAC
from anyprop.rules.auxiliary._method_of_auxiliary_coordinates import energy, forward

EXAMPLES = 24


def info(model):
    shape = jax.ShapeDtypeStruct(model.input_shape, jnp.float32)
    return DataInfo(EXAMPLES, shape, jax.ShapeDtypeStruct((), jnp.int32))


def data(sizes=(4, 6, 5, 3), **options):
    model = mlp(*sizes, key=jax.random.key(0), **options)
    y = jnp.arange(EXAMPLES) % sizes[-1]
    centres = jax.random.normal(jax.random.key(1), (sizes[-1], sizes[0]))
    x = centres[y] + 0.3 * jax.random.normal(jax.random.key(2), (EXAMPLES, sizes[0]))
    return model, Batch(x, y, jnp.arange(EXAMPLES))


def disturbed(model, x, scale=0.5):
    """Codes some way from what the net computes."""
    codes = forward(model, x)
    keys = jax.random.split(jax.random.key(5), len(codes))
    return tuple(z + scale * jax.random.normal(k, z.shape) for k, z in zip(keys, codes, strict=True))


def settled(rule, model, batch, mu, steps=30):
    solve = jax.jit(lambda codes: rule.solve(model, codes, batch, mu))
    codes = forward(model, batch.x)
    for _ in range(steps):
        codes = solve(codes)
    return codes


def train(rule, learner, batch, steps, optimizer=None):
    optimizer = optimizer or optax.adam(0.03)
    arrays, static = eqx.partition((learner, optimizer.init(learner.params)), eqx.is_array)

    @jax.jit
    def run(arrays):
        def step(arrays, _):
            learner, state = eqx.combine(arrays, static)
            credit = rule.credit(learner, batch, key=jax.random.key(0))
            updates, state = optimizer.update(credit.grads, state)
            return eqx.filter((learner.apply(updates, credit.memory), state), eqx.is_array), (
                credit.loss,
                credit.metrics,
            )

        return jax.lax.scan(step, arrays, length=steps)

    arrays, seen = run(arrays)
    return eqx.combine(arrays, static)[0], *seen


@eqx.filter_jit
def step(rule, learner, batch):
    return rule.credit(learner, batch, key=jax.random.key(0))


def relative(a, b):
    a, b = (jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(tree)]) for tree in (a, b))
    return float(jnp.linalg.norm(a - b) / jnp.linalg.norm(b))


def test_at_the_minimum_over_codes_the_update_tends_to_backprop(x64):
    model, batch = data()
    rule, backprop = MAC(iterations=20), exact_gradient(CrossEntropy(), model, batch)[2]
    errors = []

    def mean_energy(model, codes, mu):
        return jnp.mean(energy(rule.loss, model, codes, batch, jnp.asarray(mu)))

    for mu in (1e2, 1e3, 1e4):
        codes = settled(rule, model, batch, jnp.asarray(mu))
        gradient = eqx.filter_grad(mean_energy)(model, codes, mu)
        errors.append(relative(gradient, backprop))
    np.testing.assert_allclose(np.divide(errors[:-1], errors[1:]), 10, rtol=0.1)  # an error of order 1/mu
    assert errors[-1] < 1e-3


@pytest.mark.parametrize("loss", ["cross-entropy", "squared-error"])
def test_the_z_step_finds_the_numeric_minimum_of_each_example(x64, loss):
    model, batch = data()
    rule, mu = MAC(iterations=20, loss=loss), jnp.asarray(3.0)
    codes = settled(rule, model, batch, mu)
    lowest = energy(rule.loss, model, codes, batch, mu)
    for n in (0, 1):
        one = Batch(batch.x[n : n + 1], batch.y[n : n + 1])
        cost = jax.jit(lambda flat, one=one: energy(rule.loss, model, (flat[None, :6], flat[None, 6:]), one, mu)[0])
        start = jnp.concatenate([z[n] for z in forward(model, batch.x)])
        found = minimize(cost, start, jac=jax.jit(jax.grad(cost)), tol=1e-10)
        np.testing.assert_allclose(lowest[n], found.fun, rtol=1e-8)


def test_one_z_step_solves_a_linear_net(x64):
    model, batch = data(activation="identity")
    rule, mu = MAC(iterations=20, loss="squared-error"), jnp.asarray(3.0)
    codes = jax.jit(lambda codes: rule.solve(model, codes, batch, mu))(disturbed(model, batch.x))
    slope = jax.grad(lambda codes: jnp.sum(energy(rule.loss, model, codes, batch, mu)))(codes)
    assert max(float(jnp.max(jnp.abs(s))) for s in slope) < 1e-9


@pytest.mark.parametrize(("activation", "mu"), [("tanh", 0.1), ("relu", 1.0), ("sigmoid", 100.0)])
def test_the_z_step_never_raises_an_examples_energy(x64, activation, mu):
    model, batch = data(activation=activation)
    rule = MAC(iterations=3)
    codes = disturbed(model, batch.x, 2.0)
    cost = jax.jit(lambda codes: energy(rule.loss, model, codes, batch, jnp.asarray(mu)))
    before, after = cost(codes), cost(jax.jit(lambda codes: rule.solve(model, codes, batch, jnp.asarray(mu)))(codes))
    assert jnp.all(after <= before)
    assert jnp.mean(after) < 0.9 * jnp.mean(before)


@pytest.mark.parametrize("loss", ["cross-entropy", "squared-error"])
def test_a_gauss_newton_regression_lowers_the_energy_and_solves_linear_layers(x64, loss):
    model, batch = data(activation="identity")
    rule = MAC(iterations=60, loss=loss, regression="gauss-newton")
    learner = rule.init(model, data=info(model), key=jax.random.key(0))
    learner, _, _ = train(rule, learner, batch, 1, optimizer=optax.sgd(1.0))
    codes, mu = learner.memory.coordinates.codes, jnp.asarray(rule.mu)

    def cost(model):
        return jnp.mean(energy(rule.loss, model, codes, batch, mu))

    lowered, slope = eqx.filter_value_and_grad(cost)(learner.model)
    assert lowered < cost(model)
    *below, last = slope.stages
    assert max(float(jnp.max(jnp.abs(s))) for s in jax.tree.leaves(below)) < 1e-9
    if loss == "squared-error":
        assert max(float(jnp.max(jnp.abs(s))) for s in jax.tree.leaves(last)) < 1e-9


def test_steps_on_codes_and_weights_in_turn_never_raise_the_energy_while_mu_stays(x64):
    model, batch = data(activation="relu")
    rule = MAC(mu_every=10**12, regression="gauss-newton")
    learner = rule.init(model, data=info(model), key=jax.random.key(0))
    _, _, metrics = train(rule, learner, batch, 20, optimizer=optax.sgd(1.0))
    energies = np.stack([metrics["objective"], metrics["solved"]], axis=1).ravel()
    assert np.all(np.diff(energies) <= 1e-12)
    assert energies[-1] < 0.1 * energies[0]


def test_a_gauss_newton_regression_is_a_whole_step():
    assert MAC(regression="gauss-newton").whole_step
    assert not MAC().whole_step


def test_the_violation_vanishes_as_mu_grows(x64):
    model, batch = data()
    rule = MAC(growth=10.0, mu_every=50)
    learner = rule.init(model, data=info(model), key=jax.random.key(0))
    _, loss, metrics = train(rule, learner, batch, 300)
    np.testing.assert_allclose(metrics["mu"][::50], 10.0 ** np.arange(6), rtol=1e-9)
    violations = np.asarray(metrics["violation"])
    assert violations[-1] < 1e-6
    assert violations[-1] < 1e-3 * violations[:50].max()
    # Where the constraints hold, the penalty problem is the nested one.
    np.testing.assert_allclose(metrics["solved"][-1], loss[-1], rtol=0.05)
    assert loss[-1] < 0.1 * loss[0]


def test_mu_stops_before_rounding_hides_the_cost():
    assert MAC(mu_every=1).penalty(jnp.asarray(10**6), jnp.dtype("float32")) < 1e5


@pytest.mark.parametrize("loss", ["cross-entropy", "squared-error"])
def test_finishing_fits_the_last_layer_and_never_raises_the_nested_cost(x64, loss):
    model, batch = data()
    rule = MAC(loss=loss)
    learner = rule.init(model, data=info(model), key=jax.random.key(0))
    learner, _, _ = train(rule, learner, batch, 5)
    finished = eqx.filter_jit(rule.finish)(learner, batch, steps=5)
    before, _, _ = exact_gradient(rule.loss, learner.model, batch)
    after, _, gradient = exact_gradient(rule.loss, finished.model, batch)
    assert after < before
    for old, new in zip(learner.model.stages[:-1], finished.model.stages[:-1], strict=True):
        assert eqx.tree_equal(old, new)
    if isinstance(rule.loss, SquaredError):
        assert jnp.linalg.norm(gradient.stages[-1].weight) < 1e-6
    again, _, _ = exact_gradient(rule.loss, eqx.filter_jit(rule.finish)(finished, batch, steps=5).model, batch)
    assert again <= after


def test_an_example_starts_from_the_codes_that_the_net_computes():
    model, batch = data()
    rule = MAC()
    learner = rule.init(model, data=info(model), key=jax.random.key(0))
    credit = step(rule, learner, batch)
    np.testing.assert_allclose(credit.metrics["objective"], credit.loss, rtol=1e-6)
    assert credit.metrics["solved"] < credit.loss
    later = step(rule, learner.apply(jax.tree.map(jnp.zeros_like, credit.grads), credit.memory), batch)
    assert later.metrics["solved"] < credit.metrics["solved"]


def test_a_batch_moves_its_own_rows_only():
    model, batch = data()
    rule = MAC()
    learner = rule.init(model, data=info(model), key=jax.random.key(0))
    rows = jnp.array([7, 3, 20])
    credit = step(rule, learner, Batch(batch.x[rows], batch.y[rows], rows))
    kept = credit.memory.coordinates
    np.testing.assert_array_equal(np.flatnonzero(~kept.fresh), [3, 7, 20])
    for z in kept.codes:
        np.testing.assert_array_equal(np.flatnonzero(jnp.any(z, axis=1)), [3, 7, 20])


def test_examples_on_several_devices_give_the_same_update(x64):
    model, batch = data()
    rule = MAC()
    learner = rule.init(model, data=info(model), key=jax.random.key(0))
    mesh = jax.make_mesh((4,), ("examples",), axis_types=(jax.sharding.AxisType.Auto,))
    spread = jax.device_put(batch, NamedSharding(mesh, PartitionSpec("examples")))
    one, many = step(rule, learner, batch), step(rule, learner, spread)
    assert len(many.output.sharding.device_set) == 4
    for a, b in zip(jax.tree.leaves((one.grads, one.memory)), jax.tree.leaves((many.grads, many.memory)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-10)


def test_it_takes_convolutions(key):
    k = jax.random.split(key, 2)
    stages = [Conv(1, 2, 3, activation="tanh", key=k[0]), Pool("mean", 2), Flatten(), Dense(8, 3, key=k[1])]
    model = Chain(stages, input_shape=(4, 4, 1))
    rule = MAC()
    learner = rule.init(model, data=info(model), key=key)
    batch = Batch(jax.random.normal(key, (6, 4, 4, 1)), jnp.arange(6) % 3, jnp.arange(6))
    credit = step(rule, learner, batch)
    assert credit.metrics["solved"] < credit.metrics["objective"]
    assert all(bool(jnp.any(g)) for g in jax.tree.leaves(credit.grads))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mu": 0.0}, "mu"),
        ({"growth": 1.0}, "growth must be above 1"),
        ({"growth": -2.0}, "growth"),
        ({"mu_every": 0}, "mu_every"),
        ({"iterations": 0}, "iterations"),
        ({"regression": "gauss-newton", "loss": "hinge"}, r"loss=Hinge\(\) has no curvature"),
    ],
)
def test_hyperparameters_out_of_range(settings, message):
    with pytest.raises(ValueError, match=message):
        MAC(**settings)


def test_missing_data_index_and_steps(key):
    model, batch = data()
    with pytest.raises(ValueError, match="data is missing"):
        MAC().init(model, key=key)
    learner = MAC().init(model, data=info(model), key=key)
    with pytest.raises(ValueError, match=r"batch\.index is missing"):
        MAC().credit(learner, Batch(batch.x, batch.y), key=key)
    with pytest.raises(ValueError, match="steps"):
        MAC().finish(learner, batch, steps=0)


def hard(where, key):
    k = jax.random.split(key, 3)
    if where == "a step of its own":
        return Chain([Dense(4, 5, key=k[0]), Activate("step"), Dense(5, 3, key=k[1])])
    if where == "a residual block":
        body = [Dense(4, 4, activation="sign", key=k[0])]
        return Chain([Dense(4, 4, key=k[1]), Residual(body), Dense(4, 3, key=k[2])])
    if where == "a recurrent layer":
        return Chain([Elman(4, 5, activation="sign", key=k[0]), Dense(5, 3, key=k[1])], input_shape=(2, 4))
    return mlp(4, 6, 5, 3, activation="sign", key=key)


@pytest.mark.parametrize("where", ["every layer", "a step of its own", "a residual block", "a recurrent layer"])
def test_units_without_a_derivative_are_refused(where, key):
    model = hard(where, key)
    with pytest.raises(TypeError, match=r"sign or a step.*pass activation='tanh'.*AlternatingMinimization"):
        MAC().init(model, data=info(model), key=key)


def test_the_hinge_cannot_be_finished_but_its_learner_can(x64, key):
    model, batch = data()
    learner, _, _ = train(MAC(loss="hinge"), MAC(loss="hinge").init(model, data=info(model), key=key), batch, 5)
    with pytest.raises(ValueError, match=r"loss=Hinge\(\) has no curvature.*loss='squared-error'"):
        MAC(loss="hinge").finish(learner, batch)
    finished = MAC(loss="squared-error").finish(learner, batch).model
    before, after = (exact_gradient(MAC(loss="hinge").loss, m, batch)[0] for m in (learner.model, finished))
    assert after < before
