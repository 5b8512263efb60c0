import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from anyprop.contract import Batch
from anyprop.losses import SquaredError
from anyprop.nets import Activate, Chain, Dense, Elman, Residual, affines, elman, lenet5, mlp, sites
from anyprop.rules.auxiliary import AlternatingMinimization
from anyprop.rules.auxiliary._codes import encode, shift
from anyprop.rules.exact import Backprop


def examples(key, model, count=6):
    x = jax.random.normal(key, (count, *model.input_shape))
    return Batch(x, jnp.arange(count) % model.output_shape[-1])


@eqx.filter_jit
def credit(rule, model, batch):
    return rule.credit(rule.init(model, key=jax.random.key(0)), batch, key=jax.random.key(0))


@eqx.filter_jit
def moved_codes(rule, model, batch):
    return rule.update_codes(model, batch, encode(model, batch.x)[0], rule.mu)


def coefficients(steps):
    """How far a constant gradient carries a code, in units of the rate."""
    velocity = distance = 0.0
    for _ in range(steps):
        velocity = 0.9 * velocity + 1
        distance += 1 + 0.9 * velocity
    return distance


@pytest.mark.parametrize("steps", [1, 3])
def test_each_layer_tends_to_its_multiple_of_backprop(x64, steps):
    model = mlp(4, 5, 4, 3, key=jax.random.key(0))
    batch = examples(jax.random.key(1), model)
    exact = credit(Backprop(), model, batch).grads[0]
    mu, rate, hidden = 0.5, 1e-5, 2
    s = rate * coefficients(steps)
    rule = AlternatingMinimization(mu=mu, code_rate=rate, code_steps=steps, reduction="sum")
    update = credit(rule, model, batch).grads[0]
    scales = [s / mu * 2 * (2 * s) ** (hidden - l) for l in range(1, hidden + 1)] + [1.0]
    for site, true, scale in zip(sites(update), sites(exact), scales, strict=True):
        for found, gradient in ((site.weight, true.weight), (site.bias, true.bias)):
            expected = scale * gradient
            assert jnp.linalg.norm(found - expected) < 1e-3 * jnp.linalg.norm(expected)


def test_a_layer_learns_from_what_the_code_below_has_left_to_learn(x64):
    """In a linear net, one step at a large mu: (I - 2 s W^T W) times the displacement of the layer's own code."""
    model = mlp(4, 5, 6, 3, activation="identity", key=jax.random.key(0))
    batch = examples(jax.random.key(1), model)
    mu, s = 1e6, 0.4
    rule = AlternatingMinimization(mu=mu, code_steps=1, code_rate=s / coefficients(1))
    update = credit(rule, model, batch).grads[0]
    _, middle, top = sites(model)
    (first, _), output = encode(model, batch.x)
    error = rule.loss.error(output, batch.y) @ top.weight.T
    left = error @ (jnp.eye(6) - 2 * s * middle.weight.T @ middle.weight)
    expected = 2 * s / mu * first.T @ left / len(batch.x)
    np.testing.assert_allclose(sites(update)[1].weight, expected, rtol=1e-4, atol=1e-10)


def test_many_small_steps_solve_both_problems(x64):
    """In a linear net with a quadratic cost both are least squares, with a solution in closed form."""
    model = mlp(4, 3, 5, 2, activation="identity", key=jax.random.key(0))
    batch = Batch(jax.random.normal(jax.random.key(1), (6, 4)), jax.random.normal(jax.random.key(2), (6, 2)))
    mu = 0.5
    rule = AlternatingMinimization(mu=mu, code_rate=0.02, code_steps=500, reduction="sum", loss=SquaredError())
    (m1, m2), _ = encode(model, batch.x)
    c1, c2 = moved_codes(rule, model, batch)
    _, two, three = affines(model)

    def solution(site, target, weight, centre):
        """argmin_c weight ||target - site(c)||^2 + ||c - centre||^2."""
        w = np.asarray(site.weight)
        right = weight * (np.asarray(target) - np.asarray(site.bias)) @ w.T + np.asarray(centre)
        return np.linalg.solve(weight * w @ w.T + np.eye(len(w)), right.T).T

    np.testing.assert_allclose(c2, solution(three, batch.y, 0.5 / mu, m2), rtol=1e-8)
    np.testing.assert_allclose(c1, solution(two, c2, 1.0, m1), rtol=1e-8)


def test_the_objective_falls_when_codes_move(key):
    model = mlp(6, 5, 5, 5, 3, key=key)
    batch = examples(key, model)
    rule = AlternatingMinimization(mu=0.5, code_rate=0.02, code_sparsity=0.01, reduction="sum")
    codes, _ = encode(model, batch.x)
    values = [
        rule.objective(model, batch, c, rule.mu) for c in (codes, rule.update_codes(model, batch, codes, rule.mu))
    ]
    assert values[1] < values[0]


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("build", [mlp, elman])
def test_the_objective_charges_the_size_of_every_vector_of_units(build, reduction, key):
    model = build(4, 5, 3, key=key) if build is mlp else elman(4, 5, 3, steps=7, key=key)
    batch = examples(key, model)
    codes, _ = encode(model, batch.x)
    dense, sparse = (
        AlternatingMinimization(code_sparsity=weight, reduction=reduction).objective(model, batch, codes, 1.0)
        for weight in (0.0, 2.0)
    )
    over = {"mean": jnp.mean, "sum": jnp.sum}[reduction]
    sizes = [jnp.sum(over(jnp.abs(code), axis=-1)) for code in codes]  # summed over time steps, as residuals are
    assert sparse - dense == pytest.approx(float(2 * sum(sizes) / len(batch.x)), rel=1e-4)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_an_elman_net_is_a_chain_with_shared_weights(x64, reduction):
    """With input at the first time step only, it is a chain whose later layers all have the recurrent weight."""
    net = elman(4, 5, 3, steps=3, key=jax.random.key(0))
    net = eqx.tree_at(lambda n: n.stages[0].input.bias, net, jax.random.normal(jax.random.key(1), (5,)))
    layer, reader = net.stages
    first = Dense(4, 5, activation="tanh", key=jax.random.key(0))
    first = eqx.tree_at(lambda d: (d.weight, d.bias), first, (layer.input.weight, layer.input.bias))
    later = Dense(5, 5, activation="tanh", key=jax.random.key(0))
    later = eqx.tree_at(lambda d: (d.weight, d.bias), later, (layer.recurrent.weight, layer.input.bias))
    chain = Chain([first, later, later, reader])

    x = jax.random.normal(jax.random.key(2), (6, 4))
    sequence = jnp.zeros((6, 3, 4)).at[:, 0].set(x)
    y = jnp.arange(6) % 3
    rule = AlternatingMinimization(reduction=reduction, mu=0.1, code_rate=0.05)
    recurrent, unrolled = credit(rule, net, Batch(sequence, y)), credit(rule, chain, Batch(x, y))

    one, two, three, out = sites(unrolled.grads[0])
    expected = (one.weight, one.bias + two.bias + three.bias, two.weight + three.weight, out.weight, out.bias)
    layer, reader = recurrent.grads[0].stages
    found = (layer.input.weight, layer.input.bias, layer.recurrent.weight, reader.weight, reader.bias)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-14)
    np.testing.assert_allclose(recurrent.loss, unrolled.loss, rtol=1e-12)
    np.testing.assert_allclose(recurrent.metrics["code_shift"], unrolled.metrics["code_shift"], rtol=1e-9)


def test_every_time_step_of_an_elman_net_teaches_the_input_weights(x64):
    net = elman(4, 5, 3, steps=3, key=jax.random.key(0))
    batch = examples(jax.random.key(1), net)
    rule = AlternatingMinimization(reduction="sum", mu=0.1, code_rate=0.05)
    (codes,) = moved_codes(rule, net, batch)
    layer = net.stages[0]
    expected = np.zeros_like(layer.input.weight)
    state = jnp.zeros((6, 5))
    for t in range(3):
        residual = layer.input(batch.x[:, t]) + layer.recurrent(state) - codes[:, t]
        expected += 2 / 6 * np.asarray(batch.x[:, t].T @ residual)
        state = jnp.tanh(codes[:, t])
    found = credit(rule, net, batch).grads[0].stages[0].input.weight
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-14)


def test_a_mean_over_units_is_a_sum_with_other_settings(x64):
    """In a net of width D, the mean's problems are the sum's over D, with mu, rate and lambda over D."""
    width = 5
    model = mlp(4, width, width, 3, key=jax.random.key(0))
    batch = examples(jax.random.key(1), model)
    settings = {"mu": 0.5, "code_rate": 0.05, "code_sparsity": 0.1}
    mean = AlternatingMinimization(reduction="mean", **settings)
    total = AlternatingMinimization(reduction="sum", **{name: value / width for name, value in settings.items()})
    for a, b in zip(moved_codes(mean, model, batch), moved_codes(total, model, batch), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10)
    *hidden, output = sites(credit(mean, model, batch).grads[0])
    *hidden_total, output_total = sites(credit(total, model, batch).grads[0])
    for a, b in zip(hidden, hidden_total, strict=True):
        np.testing.assert_allclose(width * a.weight, b.weight, rtol=1e-9, atol=1e-14)
    np.testing.assert_allclose(output.weight, output_total.weight, rtol=1e-10)


def test_an_examples_code_does_not_depend_on_its_batch(x64):
    model = mlp(4, 5, 5, 3, key=jax.random.key(0))
    batch = examples(jax.random.key(1), model)
    rule = AlternatingMinimization()
    alone = moved_codes(rule, model, Batch(batch.x[:1], batch.y[:1]))
    for a, b in zip(alone, moved_codes(rule, model, batch), strict=True):
        np.testing.assert_allclose(a, b[:1], rtol=1e-12)


def test_sparsity_shrinks_codes_and_weights(key):
    model = mlp(6, 5, 5, 3, key=key)
    batch = examples(key, model)
    plain = AlternatingMinimization(mu=0.5, code_rate=0.02, reduction="sum")
    sparse = AlternatingMinimization(mu=0.5, code_rate=0.02, reduction="sum", code_sparsity=0.5)
    for a, b in zip(moved_codes(sparse, model, batch), moved_codes(plain, model, batch), strict=True):
        assert jnp.sum(jnp.abs(a)) < jnp.sum(jnp.abs(b))

    sparse = AlternatingMinimization(mu=0.5, code_rate=0.02, reduction="sum", weight_sparsity=0.1)
    for site, a, b in zip(
        sites(model), *(sites(credit(rule, model, batch).grads[0]) for rule in (sparse, plain)), strict=True
    ):
        np.testing.assert_allclose(a.weight - b.weight, 0.1 * jnp.sign(site.weight), atol=1e-6)
        np.testing.assert_allclose(a.bias, b.bias, atol=1e-6)


def test_mu_grows_by_its_increase_up_to_its_largest(key):
    model = mlp(6, 5, 3, key=key)
    batch = examples(key, model)
    rule = AlternatingMinimization(mu=0.5, mu_increase=0.25, mu_max=0.875)
    first = credit(rule, model, batch)
    assert first.metrics["mu"] == 0.5
    assert first.memory == 0.75
    assert rule.next_mu(first.memory) == rule.next_mu(rule.next_mu(first.memory)) == 0.875
    learner = eqx.tree_at(lambda l: l.memory, rule.init(model, key=key), first.memory)
    second = eqx.filter_jit(rule.credit)(learner, batch, key=key)
    assert second.metrics["code_shift"] < first.metrics["code_shift"]


def binary(key):
    one, two, three = jax.random.split(key, 3)
    return Chain(
        [
            Dense(6, 5, activation="tanh", key=one),
            Activate("sign"),
            Dense(5, 5, activation="sign", key=two),
            Dense(5, 3, key=three),
        ]
    )


def test_hard_units_have_slope_one_for_codes_only(x64):
    model = binary(jax.random.key(0))
    batch = examples(jax.random.key(1), model)
    rule = AlternatingMinimization(reduction="sum", mu=0.5, code_rate=1e-3, code_steps=1)
    found = credit(rule, model, batch)
    np.testing.assert_array_equal(found.output, model(batch.x))
    codes, output = encode(model, batch.x)
    error = rule.loss.error(output, batch.y)
    _, top = moved_codes(rule, model, batch)
    # One step from rest, where the code is what the layer below makes of it, goes along W^T error alone.
    step = -1e-3 * 1.9 / 0.5 * error @ affines(model)[-1].weight.T
    np.testing.assert_allclose(top - codes[-1], step, rtol=1e-9, atol=1e-14)


def hard_block(key):
    """A block in which a layer, a stage and the block itself end in units that pass no slope on."""
    one, two, three, four = jax.random.split(key, 4)
    body = [Dense(5, 6, activation="sign", key=two), Dense(6, 5, activation="tanh", key=three), Activate("step")]
    return Chain([Dense(6, 5, key=one), Residual(body, activation="sign"), Dense(5, 3, key=four)])


@pytest.mark.parametrize(
    "build",
    [lambda key: lenet5(key=key), lambda key: elman(3, 5, 3, steps=4, key=key), binary, hard_block],
    ids=["lenet5", "elman", "binary", "hard-block"],
)
def test_a_few_steps_of_adam_learn_and_move_every_parameter(build, key):
    model = build(key)
    batch = examples(key, model, count=4)
    rule = AlternatingMinimization()
    optimizer = optax.adam(0.01)
    learner = rule.init(model, key=key)
    state = optimizer.init(learner.params)

    @eqx.filter_jit
    def step(learner, state):
        found = rule.credit(learner, batch, key=key)
        updates, state = optimizer.update(found.grads, state, learner.params)
        return learner.apply(updates, found.memory), state, found.loss

    losses = []
    for _ in range(20):
        learner, state, loss = step(learner, state)
        losses.append(loss)
    assert losses[-1] < losses[0]
    before, after = (jax.tree.leaves(eqx.filter(m, eqx.is_array)) for m in (model, learner.model))
    assert all(jnp.any(a != b) for a, b in zip(before, after, strict=True))


def test_a_net_without_codes_has_no_shift():
    assert shift([], []) == 0


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("mu", 0.0),
        ("mu", float("inf")),
        ("code_steps", 0),
        ("code_rate", -0.1),
        ("code_sparsity", -0.1),
        ("weight_sparsity", -0.1),
        ("mu_increase", -0.1),
        ("mu_max", float("inf")),
        ("mu_max", 0.5),
        ("reduction", "max"),
    ],
)
def test_bad_hyperparameters(argument, value):
    with pytest.raises((ValueError, TypeError), match=argument):
        AlternatingMinimization(**{argument: value})


def test_elman_layers_that_codes_do_not_reach(key):
    above = Chain([Elman(4, 5, sequence=True, key=key), Elman(5, 5, key=key), Dense(5, 3, key=key)], input_shape=(3, 4))
    for model in (above, elman(4, 5, 3, sequence=True, key=key), Chain([Elman(4, 5, key=key)], input_shape=(3, 4))):
        with pytest.raises(TypeError, match="sequence=False"):
            AlternatingMinimization().init(model, key=key)
