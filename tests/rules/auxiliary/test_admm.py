import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from scipy.optimize import minimize, minimize_scalar

import anyprop as ap
from anyprop.contract import Batch, DataInfo
from anyprop.losses import SquaredError
from anyprop.nets import ACTIVATIONS, Chain, Conv, Dense, Flatten, activation, affines, mlp
from anyprop.rules.auxiliary._admm import ADMM, Hinge

EXAMPLES = 48
HALF_ALPHA = {"admm": 0.0, "bcd": 0.35}


def info(model):
    shape = jax.ShapeDtypeStruct(model.input_shape, jnp.float32)
    return DataInfo(EXAMPLES, shape, jax.ShapeDtypeStruct((), jnp.int32))


def data(sizes=(4, 6, 5, 3), activation="relu", bias=True):
    """A small net, and one cloud of inputs for each class."""
    model = mlp(*sizes, activation=activation, bias=bias, key=jax.random.key(0))
    y = jnp.arange(EXAMPLES) % sizes[-1]
    centres = 2 * jax.random.normal(jax.random.key(1), (sizes[-1], sizes[0]))
    x = centres[y] + jax.random.normal(jax.random.key(2), (EXAMPLES, sizes[0]))
    return model, Batch(x, y, jnp.arange(EXAMPLES))


@eqx.filter_jit
def step(rule, learner, batch):
    return rule.credit(learner, batch, key=jax.random.key(0))


def train(rule, learner, batch, steps):
    """Steps of optax.sgd(1.0), which applies old - new exactly."""
    optimizer = optax.sgd(1.0)
    seen = []
    for _ in range(steps):
        found = step(rule, learner, batch)
        updates, _ = optimizer.update(found.grads, optimizer.init(learner.params))
        learner = learner.apply(updates, found.memory)
        seen.append(found)
    return learner, seen


def random(*shape, seed):
    return jax.random.normal(jax.random.key(seed), shape)


# Each block is the objective's minimum over it -------------------------------------------------------


@pytest.mark.parametrize("bias", [True, False])
def test_the_weights_are_those_of_least_squares(x64, bias):
    site = Dense(4, 3, bias=bias, key=jax.random.key(0))
    a, z = random(20, 4, seed=1), random(20, 3, seed=2)
    new = ADMM(ridge=1e-14)._weights(site, a, z, 20)
    inputs = np.hstack([a, np.ones((20, 1))]) if bias else np.asarray(a)
    expected = np.linalg.lstsq(inputs, np.asarray(z))[0]
    got = np.vstack([new.weight, new.bias]) if bias else new.weight
    np.testing.assert_allclose(got, expected, rtol=1e-9)


def test_the_weights_of_coordinate_descent_are_the_proximal_minimum(x64):
    rule = ADMM(solver="bcd", proximal=0.7, beta=1.3)
    site = Dense(4, 3, bias=False, key=jax.random.key(0))
    a, z = random(20, 4, seed=1), random(20, 3, seed=2)
    new = rule._weights(site, a, z, 20)

    def cost(W):
        return 1.3 * jnp.sum((z - a @ W) ** 2) + 0.35 * jnp.sum((W - site.weight) ** 2)

    assert jnp.max(jnp.abs(jax.grad(cost)(new.weight))) < 1e-10
    twice = rule._weights(site, jnp.vstack([a, a]), jnp.vstack([z, z]), 20)
    np.testing.assert_allclose(twice.weight, new.weight, rtol=1e-10)


def test_coordinate_descent_on_many_inputs_that_depend_on_each_other_stays_finite_in_single_precision():
    site = Dense(60, 3, key=jax.random.key(0))
    a = random(200, 5, seed=1) @ random(5, 60, seed=2)
    new = ADMM(solver="bcd", proximal=0.01)._weights(site, a, site(a), 60_000)
    np.testing.assert_allclose(new(a), site(a), atol=0.01 * float(jnp.abs(site(a)).max()))


@pytest.mark.parametrize("solver", ["admm", "bcd"])
def test_the_activities_are_a_numeric_minimum(x64, solver):
    rule = ADMM(solver=solver, gamma=2.0, beta=0.7, proximal=0.7)
    above = eqx.tree_at(lambda s: s.bias, Dense(5, 3, key=jax.random.key(0)), random(3, seed=1))
    old, z, h = random(1, 5, seed=2), random(1, 3, seed=3), random(1, 5, seed=4)

    @jax.jit
    def cost(a):
        fit = 2.0 * jnp.sum((a - h[0]) ** 2) + 0.7 * jnp.sum((z - above.drive(a[None])) ** 2)
        return fit + HALF_ALPHA[solver] * jnp.sum((a - old[0]) ** 2)

    expected = minimize(cost, np.zeros(5), jac=jax.jit(jax.grad(cost)), tol=1e-12).x
    np.testing.assert_allclose(rule._activity(old, above, z, h)[0], expected, atol=1e-7)


def numeric(cost):
    """The entrywise minimum of a cost of one variable with kinks at 0 and 1, by a search in each part."""
    parts = [minimize_scalar(cost, bounds=ends, method="bounded", options={"xatol": 1e-10}) for ends in PARTS]
    return min(parts, key=lambda part: part.fun)


PARTS = [(-30, 0), (0, 1), (1, 30)]


@pytest.mark.parametrize("name", ["relu", "identity", "hard-sigmoid"])
@pytest.mark.parametrize("solver", ["admm", "bcd"])
def test_hidden_drives_are_a_numeric_minimum(x64, solver, name):
    rule = ADMM(solver=solver, gamma=2.0, beta=0.7, proximal=0.7)
    h = activation(name)
    h_numpy = {"relu": lambda z: max(z, 0), "identity": lambda z: z, "hard-sigmoid": lambda z: min(max(z, 0), 1)}[name]
    old, m, a = (2 * random(1, 40, seed=seed) for seed in (1, 2, 3))
    got = rule._hidden(old, m, a, h)
    for o, n, b, z in zip(*(np.asarray(v)[0] for v in (old, m, a, got)), strict=True):

        def cost(z, b=b, n=n, o=o):
            return 2.0 * (b - h_numpy(z)) ** 2 + 0.7 * (z - n) ** 2 + HALF_ALPHA[solver] * (z - o) ** 2

        best = numeric(cost)
        assert cost(z) <= best.fun + 1e-9
        assert abs(z - best.x) < 1e-4


@pytest.mark.parametrize("loss", [Hinge(), SquaredError()])
@pytest.mark.parametrize("solver", ["admm", "bcd"])
def test_outputs_are_a_numeric_minimum(x64, solver, loss):
    rule = ADMM(solver=solver, beta=0.7, proximal=0.7, loss=loss)
    old, m, multiplier = (2 * random(40, 1, seed=seed) for seed in (1, 2, 3))
    y = jnp.asarray(jax.random.bernoulli(jax.random.key(4), shape=(40, 1)), float)
    got = rule._output(old, m, multiplier, y)
    for z, o, n, p, t in zip(*(np.asarray(v)[:, 0] for v in (got, old, m, multiplier, y)), strict=True):

        def cost(z, o=o, n=n, p=p, t=t):
            hinge = max(1 - z, 0) if t else max(z, 0)
            own = hinge if isinstance(loss, Hinge) else (z - t) ** 2 / 2
            return own + p * z + 0.7 * (z - n) ** 2 + HALF_ALPHA[solver] * (z - o) ** 2

        best = numeric(cost)
        assert cost(z) <= best.fun + 1e-9
        assert abs(z - best.x) < 1e-4


# The whole method ------------------------------------------------------------------------------------


def test_where_the_multiplier_balances_the_loss_nothing_moves(x64):
    model, batch = data()
    rule = ADMM(warm_start=0, ridge=1e-14, loss=SquaredError())
    learner = rule.init(model, data=info(model), key=jax.random.key(3))
    output, traces = model.record(batch.x)
    memory = eqx.tree_at(
        lambda m: (m.a, m.z, m.multiplier),
        learner.memory,
        (
            tuple(trace.output for trace in traces[:-1]),
            tuple(trace.drive for trace in traces),
            -rule.loss.error(output, batch.y),
        ),
    )
    credit = step(rule, eqx.tree_at(lambda l: l.memory, learner, memory), batch)
    for new, old in zip(*(jax.tree.leaves((m.a, m.z, m.multiplier)) for m in (credit.memory, memory)), strict=True):
        np.testing.assert_allclose(new, old, atol=1e-9)
    for update in jax.tree.leaves(credit.grads):
        np.testing.assert_allclose(update, 0, atol=1e-7)


@pytest.mark.parametrize("activation", ["relu", "hard-sigmoid"])
@pytest.mark.parametrize("loss", [Hinge(), SquaredError()])
def test_block_coordinate_descent_never_raises_the_objective(x64, loss, activation):
    model, batch = data(activation=activation)
    rule = ADMM(solver="bcd", loss=loss)
    learner, seen = train(rule, rule.init(model, data=info(model), key=jax.random.key(3)), batch, 40)
    objectives = np.array([credit.metrics["objective"] for credit in seen])
    assert np.all(np.diff(objectives) <= 1e-12 * objectives[0])
    assert objectives[-1] < 0.1 * objectives[0]
    assert not jnp.any(learner.memory.multiplier)


@pytest.mark.parametrize("solver", ["admm", "bcd"])
def test_it_learns(solver):
    model, batch = data()
    rule = ADMM(solver=solver, proximal=0.1)
    learner, seen = train(rule, rule.init(model, data=info(model), key=jax.random.key(3)), batch, 60)
    assert seen[-1].loss < 0.8 * seen[0].loss
    assert jnp.mean(jnp.argmax(learner.model(batch.x), -1) == batch.y) > 0.5  # of three classes
    assert seen[-1].metrics["violation"] < 0.1 * seen[0].metrics["violation"]


def test_one_output_tells_two_classes_apart():
    y = np.arange(EXAMPLES) % 2
    noise = np.random.default_rng(0).normal(size=(2, EXAMPLES, 4)).astype(np.float32)
    x, x_test = noise + 3 * y[:, None]
    net = mlp(4, 6, 1, activation="relu", key=jax.random.key(0))
    run = ap.fit(ADMM(), net, ap.data.load((x, y, x_test, y)), epochs=20, batch_size=EXAMPLES, progress=False)
    assert run.records[0]["test_error"] > 0.2
    assert run.records[-1]["test_error"] < 0.05
    said_one = run.model(jnp.asarray(x_test))[:, 0] > 0.5
    assert run.records[-1]["test_error"] == pytest.approx(float(jnp.mean(said_one != y)))


def test_the_multiplier_waits_for_the_warm_start():
    model, batch = data()
    rule = ADMM(warm_start=2)
    _, seen = train(rule, rule.init(model, data=info(model), key=jax.random.key(3)), batch, 3)
    assert [bool(jnp.any(credit.memory.multiplier)) for credit in seen] == [False, False, True]


def test_a_forward_start_leaves_the_features_as_they_are(x64):
    model, batch = data()
    rule = ADMM(start="forward", ridge=1e-14)
    learner = rule.init(model, data=info(model), key=jax.random.key(3))
    credit = step(rule, learner, batch)
    for a, trace in zip(credit.memory.a, model.record(batch.x)[1], strict=False):
        np.testing.assert_allclose(a, trace.output, atol=1e-9)
    later = step(rule, learner.apply(jax.tree.map(jnp.negative, credit.grads), credit.memory), batch)
    assert float(jnp.max(jnp.abs(later.memory.a[-1] - credit.memory.a[-1]))) > 1e-3


def test_old_minus_new_is_exact_under_sgd(x64):
    model, batch = data(sizes=(4, 3))
    rule = ADMM(ridge=1e-14)
    learner = rule.init(model, data=info(model), key=jax.random.key(3))
    inputs = np.hstack([batch.x, np.ones((EXAMPLES, 1))])
    expected = np.linalg.lstsq(inputs, np.asarray(learner.memory.z[0]))[0]
    (site,) = affines(train(rule, learner, batch, 1)[0].model)
    np.testing.assert_allclose(np.vstack([site.weight, site.bias]), expected, rtol=1e-8)


def test_a_batch_moves_its_own_rows_only():
    model, batch = data()
    rule = ADMM(warm_start=0)
    learner = rule.init(model, data=info(model), key=jax.random.key(3))
    rows = jnp.arange(40, 8, -1)
    credit = step(rule, learner, Batch(batch.x[rows], batch.y[rows], rows))
    inside = np.isin(np.arange(EXAMPLES), rows)
    states = (jax.tree.leaves((m.a, m.z, m.multiplier)) for m in (learner.memory, credit.memory))
    for old, new in zip(*states, strict=True):
        moved = np.any(np.asarray(old != new), axis=1)
        np.testing.assert_array_equal(moved, inside)


def test_examples_on_several_devices_give_the_same_update(x64):
    model, batch = data()
    rule = ADMM()
    learner = rule.init(model, data=info(model), key=jax.random.key(3))
    mesh = jax.make_mesh((4,), ("examples",), axis_types=(jax.sharding.AxisType.Auto,))
    split, whole = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in (("examples",), ()))
    spread = jax.device_put(batch, split)
    arrays, static = eqx.partition(learner, eqx.is_array)
    weights, memory = jax.device_put(eqx.tree_at(lambda l: l.memory, arrays, None), whole), arrays.memory
    placed = eqx.tree_at(lambda l: l.memory, weights, jax.device_put(memory, split), is_leaf=lambda leaf: leaf is None)
    one, many = step(rule, learner, batch), step(rule, eqx.combine(placed, static), spread)
    assert len(many.memory.z[0].sharding.device_set) == 4
    for a, b in zip(jax.tree.leaves((one.grads, one.memory)), jax.tree.leaves((many.grads, many.memory)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-10)


def test_the_hinge_loss():
    cost = Hinge()(jnp.array([[0.25, 0.5], [2.0, -1.0]]), jnp.array([0, 0]))
    assert cost.tolist() == [0.75 + 0.5, 0.0]
    assert Hinge()(jnp.array([[0.25], [0.25]]), jnp.array([[1.0], [0.0]])).tolist() == [0.75, 0.25]


# Bad input -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"gamma": 0.0}, "gamma"),
        ({"beta": -1.0}, "beta"),
        ({"ridge": 0.0}, "ridge"),
        ({"proximal": 0.0}, "proximal"),
        ({"warm_start": -1}, "warm_start"),
        ({"loss": "cross-entropy"}, "loss=CrossEntropy"),
    ],
)
def test_hyperparameters_out_of_range(settings, message):
    with pytest.raises(ValueError, match=message):
        ADMM(**settings)


def test_units_without_closed_form(key):
    with pytest.raises(TypeError, match=r"stages\[0\].*identity or relu or hard-sigmoid, or choose Alternating"):
        ADMM().init(mlp(4, 3, 2, activation="tanh", key=key), key=key)
    with pytest.raises(TypeError, match=r"stages\[1\].*pass identity, "):
        ADMM().init(mlp(4, 3, 2, activation="relu", output="relu", key=key), key=key)
    assert "tanh" in ACTIVATIONS


def test_layers_that_are_not_dense(key):
    net = Chain([Conv(1, 2, 3, key=key), Flatten(), Dense(18, 2, key=key)], input_shape=(3, 3, 1))
    with pytest.raises(TypeError, match=r"stages\[0\] is a Conv"):
        ADMM().init(net, key=key)


def test_missing_data_and_index(key):
    model, batch = data()
    with pytest.raises(ValueError, match="data is missing"):
        ADMM().init(model, key=key)
    learner = ADMM().init(model, data=info(model), key=key)
    with pytest.raises(ValueError, match=r"batch\.index is missing"):
        ADMM().credit(learner, ap.Batch(batch.x, batch.y), key=key)
