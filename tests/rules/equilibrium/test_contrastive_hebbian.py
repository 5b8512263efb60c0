import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import anyprop as ap
from anyprop.contract import Batch, exact_gradient
from anyprop.energies import Convergent
from anyprop.losses import as_loss
from anyprop.nets import Chain, Dense, Norm, elman, mlp
from anyprop.rules.equilibrium import ContrastiveHebbian


def net(key, output="identity", sizes=(6, 8, 7, 3)):
    chain = mlp(*sizes, activation="sigmoid", output=output, init="lecun-normal", key=key)
    return jax.tree.map(lambda w: w + 0.1 if w.ndim == 1 else 2 * w, chain)


def examples(key, count=5):
    return Batch(jax.random.normal(key, (count, 6)), jnp.arange(count) % 3)


@eqx.filter_jit
def credit(rule, learner, batch):
    return rule.credit(learner, batch, key=jax.random.key(0))


def learner_of(rule, model, feedback=None):
    """A learner; a feedback of its own as an array, so that one program serves for several."""
    learner = rule.init(model, key=jax.random.key(0))
    if feedback is None:
        return learner
    return eqx.tree_at(lambda learner: learner.model.feedback, learner, jnp.asarray(feedback))


def vectors(tree):
    """Weight and bias of each layer in one vector."""
    return [jnp.concatenate([jnp.ravel(site.weight), jnp.ravel(site.bias)]) for site in tree.stages]


def compared(update, gradient):
    """By layer, the cosine of two updates and the ratio of their sizes."""
    pairs = list(zip(vectors(update), vectors(gradient), strict=True))
    cosines = [jnp.vdot(u, g) / jnp.linalg.norm(u) / jnp.linalg.norm(g) for u, g in pairs]
    return np.array(cosines), np.array([jnp.linalg.norm(u) / jnp.linalg.norm(g) for u, g in pairs])


def test_it_tends_to_backprop_as_feedback_gets_weak(x64, key):
    model, batch, rule = net(key), examples(key), ContrastiveHebbian(free_steps=40, clamped_steps=40)
    gradient = exact_gradient(rule.loss, model, batch)[2]
    found = [credit(rule, learner_of(rule, model, feedback), batch) for feedback in (0.5, 0.1, 0.01)]
    (strong, _), (weak, weak_ratio), (weakest, weakest_ratio) = (compared(f.grads[0].chain, gradient) for f in found)
    assert np.all((strong > 0.8) & (strong < 0.995))  # 0.81 to 0.97 in another network of three layers
    assert np.all(strong < weak)
    assert np.all(weak < weakest)
    assert np.all(weak > 0.99)
    assert np.all(weakest > 0.9999)
    np.testing.assert_allclose((1 - weak) / (1 - weakest), 100, rtol=0.2)  # the angle is O(gamma)
    assert np.all(np.abs(weak_ratio - 1) < 0.1)
    assert np.all(np.abs(weakest_ratio - 1) < 0.01)
    for f in found:
        assert max(f.metrics["free_residual"], f.metrics["clamped_residual"]) < 1e-9
    np.testing.assert_allclose(found[-1].metrics["contrast"], found[-1].loss, rtol=0.01)  # and so does J


@pytest.mark.parametrize("loss", ["cross-entropy", "binary-cross-entropy", "squared-error"])
def test_of_one_layer_the_difference_in_energy_is_the_cost(x64, key, loss):
    batch, rule = examples(key), ContrastiveHebbian(loss=loss)
    model = rule.init(net(key, sizes=(6, 3)), key=key).model
    free = model.start(batch.x)
    clamped = [jax.nn.one_hot(batch.y, 3)]
    difference = model.energy(clamped, batch.x) - model.energy(model.rates(free), batch.x)
    np.testing.assert_allclose(difference, rule.loss(model.output(free), batch.y), rtol=1e-12)


def test_it_is_the_gradient_of_the_difference_in_energy_at_any_feedback(x64, key):
    model, batch = net(key, "tanh"), examples(key)
    rule = ContrastiveHebbian(free_steps=150, clamped_steps=150, step_size=0.5, loss="squared-error")
    direction = jax.tree.map(lambda w: jax.random.normal(jax.random.key(2), w.shape), eqx.filter(model, eqx.is_array))

    def at(length):
        return jax.tree.map(lambda w, d: w + length * d, model, direction)

    for feedback in (0.5, 1.0):
        here, up, down = (credit(rule, learner_of(rule, at(length), feedback), batch) for length in (0.0, 1e-5, -1e-5))
        slope = (up.metrics["contrast"] - down.metrics["contrast"]) / 2e-5
        update = jax.tree.leaves(here.grads[0].chain)
        along = sum(jnp.vdot(u, d) for u, d in zip(update, jax.tree.leaves(direction), strict=True))
        np.testing.assert_allclose(along, slope, rtol=1e-7)


def test_it_is_the_published_loop(x64, key):
    rule = ContrastiveHebbian(0.3, 4, 3, step_size=0.4, loss="squared-error")
    model, batch = net(key, "sigmoid"), examples(key)
    learner = learner_of(rule, model)
    found = credit(rule, learner, batch)
    (w1, b1), (w2, b2), (w3, b3) = ((np.asarray(site.weight), np.asarray(site.bias)) for site in model.stages)
    x, y = np.asarray(batch.x), np.eye(3)[np.asarray(batch.y)]

    def f(a):
        return 1 / (1 + np.exp(-a))

    def run(h1, h2, a3, steps, clamp=None):
        for _ in range(steps):
            h3 = f(a3) if clamp is None else clamp
            d1 = f(x @ w1 + 0.3 * h2 @ w2.T + b1) - h1
            d2 = f(h1 @ w2 + 0.3 * h3 @ w3.T + b2) - h2
            d3 = h2 @ w3 + b3 - a3
            h1, h2, a3 = h1 + 0.4 * d1, h2 + 0.4 * d2, a3 + 0.4 * d3
        return h1, h2, a3, max(np.abs(d).max() for d in (d1, d2, d3))

    h1 = f(x @ w1 + b1)
    h2 = f(h1 @ w2 + b2)
    f1, f2, f3, free_speed = run(h1, h2, h2 @ w3 + b3, 4)
    c1, c2, _, clamped_speed = run(f1, f2, f3, 3, clamp=y)
    pairs = [(x, x, f1, c1), (f1, c1, f2, c2), (f2, c2, f(f3), y)]
    for k, (below, below_given, above, given) in enumerate(pairs):
        scale = 0.3 ** (k - 2) / 5
        site = found.grads[0].chain.stages[k]
        np.testing.assert_allclose(site.weight, -scale * (below_given.T @ given - below.T @ above), rtol=1e-9)
        np.testing.assert_allclose(site.bias, -scale * (given - above).sum(0), rtol=1e-9)
    np.testing.assert_allclose(found.output, f(f3), rtol=1e-12)
    np.testing.assert_allclose(found.output, learner.model(batch.x), rtol=1e-12)
    for phase, steps, speed in (("free", 4, free_speed), ("clamped", 3, clamped_speed)):
        assert found.metrics[f"{phase}_steps"] == steps
        np.testing.assert_allclose(found.metrics[f"{phase}_residual"], speed, rtol=1e-9)
        assert found.metrics[f"{phase}_converged"] == 0


def test_a_clamped_step_for_each_layer_below_the_outputs_is_enough(x64, key):
    model, batch = net(key), examples(key)
    gradient = exact_gradient(as_loss("cross-entropy"), model, batch)[2]

    def after(steps):
        rule = ContrastiveHebbian(0.01, 40, steps)
        return compared(credit(rule, learner_of(rule, model), batch).grads[0].chain, gradient)

    one, two = after(1), after(2)
    assert one[1][0] < 1e-6  # the first of three layers has heard nothing yet
    assert np.all(one[0][1:] > 0.9999)
    assert np.all(two[0] > 0.9999)
    np.testing.assert_allclose(two[1], 1, atol=0.01)


def test_at_full_strength_it_is_a_convergent_network(x64, key):
    model, batch = net(key, "sigmoid"), examples(key)
    mine, convergent = ContrastiveHebbian(1.0, loss="squared-error").init(model, key=key).model, Convergent(model)
    state = mine.start(batch.x)
    rates = mine.rates(state)
    velocity = mine.dynamics(batch.x).velocity(state)
    for one, other in zip(velocity[:-1], convergent.dynamics(batch.x).velocity(rates)[:-1], strict=True):
        np.testing.assert_allclose(one, other, atol=1e-14)
    np.testing.assert_allclose(mine.energy(rates, batch.x), convergent.energy(rates, batch.x), rtol=1e-12)


def test_a_clamped_phase_in_a_deeper_minimum_shows(key):
    """Two units that hold each other up: off is a rest, on is a deeper one, and the free phase does not find it."""
    layers = [Dense(1, 1, activation="sigmoid", key=key) for _ in range(2)]
    values = [(jnp.zeros((1, 1)), jnp.full(1, -4.5)), (jnp.full((1, 1), 10.0), jnp.full(1, -4.5))]
    model = Chain([eqx.tree_at(lambda s: (s.weight, s.bias), s, v) for s, v in zip(layers, values, strict=True)])
    rule = ContrastiveHebbian(1.0, 100, 100, step_size=0.5, tolerance=1e-5, loss="squared-error")
    metrics = credit(rule, learner_of(rule, model), Batch(jnp.ones((1, 1)), jnp.ones((1, 1)))).metrics
    assert metrics["free_converged"] == metrics["clamped_converged"] == 1
    assert metrics["free_steps"] < metrics["clamped_steps"] < 100
    assert metrics["contrast"] < -0.5


def test_a_trained_network_is_taken_with_the_rules_own_phases(key):
    chain = net(key)
    other = ContrastiveHebbian(0.7, 3).init(chain, key=key).model
    rule = ContrastiveHebbian()
    assert eqx.tree_equal(rule.init(other, key=key).model, rule.init(chain, key=key).model)


@pytest.mark.parametrize(
    "bad",
    [
        {"feedback": 0.0},
        {"feedback": -1.0},
        {"free_steps": 0},
        {"clamped_steps": 0},
        {"step_size": 0.0},
        {"tolerance": -1.0},
    ],
)
def test_numbers_out_of_range_are_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        ContrastiveHebbian(**bad)


@pytest.mark.parametrize(
    ("loss", "output", "low", "high"),
    [
        ("squared-error", "sigmoid", 0.0, 1.0),
        ("squared-error", "tanh", -1.0, 1.0),
        ("squared-error", "relu", 0.0, 1e9),
        ("squared-error", "identity", -1e9, 1e9),
        ("binary-cross-entropy", "identity", 0.0, 1.0),
        ("cross-entropy", "identity", 0.0, 1.0),
    ],
)
def test_targets_that_the_outputs_cannot_be_clamped_to_are_refused(key, loss, output, low, high):
    rule, x = ContrastiveHebbian(free_steps=1, clamped_steps=1, loss=loss), np.ones((2, 3), np.float32)
    chain = mlp(3, 2, output=output, key=key)
    beyond = [low - 1] * (low > -1e9) + [high + 1] * (high < 1e9)
    for end in (low, high, *beyond):
        y = np.asarray([[0.5, 0.5], [0.5, end]], np.float32)
        told = ap.training.describe(ap.data.load({"train": (x, y)}))
        assert (told.y_low, told.y_high) == (min(end, 0.5), max(end, 0.5))
        if end not in beyond:
            assert rule.init(chain, data=told, key=key).model.settle(jnp.asarray(x), clamp=jnp.asarray(y))
            continue
        with pytest.raises(ValueError, match=r"y has targets from .* rates between .* scale y"):
            rule.init(chain, data=told, key=key)
        with pytest.raises(ValueError, match=r"y has targets from .* rates between .* scale y"):
            rule.credit(rule.init(chain, key=key), Batch(jnp.asarray(x), jnp.asarray(y)), key=key)


def test_fit_refuses_targets_out_of_range_before_training(key):
    x, y = np.ones((4, 3), np.float32), np.full((4, 2), 3, np.float32)
    rule, net = ContrastiveHebbian(loss="squared-error"), mlp(3, 2, output="sigmoid", key=key)
    with pytest.raises(ValueError, match="y has targets from 3 to 3"):
        ap.fit(rule, net, ap.data.load({"train": (x, y)}), batch_size=2, progress=False)


@pytest.mark.parametrize(
    ("build", "loss", "match"),
    [
        (lambda key: Dense(4, 3, key=key), "squared-error", "needs a chain"),
        (lambda key: elman(4, 5, 3, key=key), "squared-error", "no energy for a Elman"),
        (lambda key: Chain([Dense(4, 3, key=key), Norm(3)]), "squared-error", "no energy for a Norm"),
        (lambda key: mlp(4, 5, 3, activation="gelu", key=key), "squared-error", "activation of layer 1"),
        (lambda key: mlp(4, 5, 3, output="sigmoid", key=key), "cross-entropy", "takes logits.*output='identity'"),
        (lambda key: mlp(4, 5, 3, key=key), "hinge", "Hinge has no rate.*pass loss="),
    ],
)
def test_models_and_losses_of_the_wrong_kind_are_refused(build, loss, match, key):
    with pytest.raises(TypeError, match=match):
        ContrastiveHebbian(loss=loss).init(build(key), key=key)
