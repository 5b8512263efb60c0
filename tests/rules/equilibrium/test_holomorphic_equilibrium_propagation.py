import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from anyprop.contract import Batch, exact_gradient
from anyprop.energies import Energy, GradientFlow
from anyprop.nets import Chain, Conv, Dense, Flatten, Pool, mlp
from anyprop.rules.equilibrium import EquilibriumPropagation, HolomorphicEquilibriumPropagation

SETTLED = {"free_steps": 2000, "nudged_steps": 2000, "tolerance": 1e-14, "step_size": 0.2}


class Eight(Energy):
    """Eight tanh units, all to all: two of them the input, two the output."""

    weight: jax.Array
    relaxation: GradientFlow = eqx.field(default_factory=GradientFlow)

    def energy(self, state, x):
        r = jnp.tanh(jnp.concatenate([x, state], axis=1))
        return 0.5 * jnp.sum(state**2, axis=1) - jnp.sum((r @ jnp.triu(self.weight, 1)) * r, axis=1)

    def start(self, x):
        return jnp.zeros((len(x), 6))

    def output(self, state):
        return state[:, 4:]


def flat(tree):
    return jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def error(estimate, exact):
    return jnp.linalg.norm(flat(estimate) - flat(exact)) / jnp.linalg.norm(flat(exact))


CIRCLES = {"small": (0.5, 0.05), "twice": (0.5, 0.1), "outside": (0.5, 0.5), "tiny": (1.0, 0.01), "far": (1.0, 0.5)}
"""Standard deviation of the couplings, and strength of the nudge."""


def test_the_error_falls_exponentially_with_the_points_but_not_beyond_the_singularities_of_the_states(x64):
    rules = {n: HolomorphicEquilibriumPropagation(points=n, **SETTLED) for n in (2, 4, 6, 8)}
    rules[1] = EquilibriumPropagation(variant="one-sided", **SETTLED)
    strength = {n: (lambda r: r.radius) if n > 1 else (lambda r: r.beta) for n in rules}

    def of(spread, nudge):
        key = jax.random.key(0)
        model = Eight(spread * jax.random.normal(key, (8, 8)))
        batch = Batch(jax.random.normal(jax.random.key(1), (3, 2)), jax.random.normal(jax.random.key(2), (3, 2)))
        learner = rules[2].init(model, key=key)
        exact = exact_gradient(rules[2].loss, learner.model, batch)[2]
        credits = {n: eqx.tree_at(strength[n], r, nudge).credit(learner, batch, key=key) for n, r in rules.items()}
        return {n: (error(c.grads, exact), c.metrics["nudged_converged"]) for n, c in credits.items()}

    found = jax.jit(jax.vmap(of))(*jnp.asarray(list(CIRCLES.values())).T)
    assert all(np.all(converged == 1) for _, converged in found.values())
    errors = {n: dict(zip(CIRCLES, np.asarray(e), strict=True)) for n, (e, _) in found.items()}
    small, twice, outside = ({n: errors[n][c] for n in (2, 4, 6, 8)} for c in ("small", "twice", "outside"))
    assert small[4] < 1e-2
    assert small[8] < 1e-6
    assert all(small[n + 2] < 0.1 * small[n] for n in (2, 4, 6))
    assert twice[8] < 1e-3
    assert all(2 ** (n - 1) < twice[n] / small[n] < 2 ** (n + 1) for n in (2, 4, 6))
    assert 0.05 < min(outside.values()) < max(outside.values()) < 2 * min(outside.values())
    # Out there, two points, which are a centred nudge, do no better than a one-sided one.
    assert errors[2]["tiny"] < 0.1 * errors[1]["tiny"]
    assert errors[2]["far"] > 0.9 * errors[1]["far"]


def by_hand(chain, batch, radius, points, steps, step_size):
    """Every point of the circle, in NumPy, for two layers of tanh units and squared error."""
    (w1, b1), (w2, b2) = ((np.asarray(site.weight), np.asarray(site.bias)) for site in chain.stages)
    x, y = np.asarray(batch.x), np.eye(2)[np.asarray(batch.y)]

    def settle(s1, s2, beta):
        for _ in range(steps):
            r1, r2 = np.tanh(s1), np.tanh(s2)
            d1 = (1 - r1**2) * (x @ w1 + b1 + r2 @ w2.T) - s1
            d2 = (1 - r2**2) * (r1 @ w2 + b2 - beta * (r2 - y)) - s2
            s1, s2 = s1 + step_size * d1, s2 + step_size * d2
        return s1, s2

    free = settle(np.zeros((len(x), 4)), np.zeros((len(x), 2)), 0.0)
    total = [0.0, 0.0]
    for k in range(points):
        turn = np.exp(2j * np.pi * k / points)
        r1, r2 = (np.tanh(s) for s in settle(*(s.astype(complex) for s in free), radius * turn))
        total[0] += -(x.T @ r1) / len(x) / (points * radius * turn)
        total[1] += -(r1.T @ r2) / len(x) / (points * radius * turn)
    assert all(np.abs(t.imag).max() < 1e-12 for t in total)
    return [t.real for t in total]


@pytest.mark.parametrize("points", [2, 3, 4])
def test_half_of_the_circle_stands_for_all_of_it(x64, key, points):
    chain = mlp(3, 4, 2, activation="tanh", output="tanh", key=key)
    batch = Batch(jax.random.normal(key, (3, 3)), jnp.arange(3) % 2)
    rule = HolomorphicEquilibriumPropagation(0.3, points, nudged_steps=7, free_steps=5, step_size=0.4)
    long = HolomorphicEquilibriumPropagation(0.3, points, nudged_steps=7, free_steps=7, step_size=0.4)
    learner = long.init(chain, key=key)
    credit = eqx.filter_jit(lambda learner: long.credit(learner, batch, key=key))(learner)
    expected = by_hand(chain, batch, 0.3, points, 7, 0.4)
    for site, grad in zip(credit.grads[0].chain.stages, expected, strict=True):
        np.testing.assert_allclose(site.weight, grad, rtol=1e-9)
    if points == 2:
        centred = EquilibriumPropagation(0.3, "centred", nudged_steps=7, free_steps=5, step_size=0.4)
        learner = rule.init(chain, key=key)
        pair = eqx.filter_jit(lambda learner: [r.credit(learner, batch, key=key).grads for r in (rule, centred)])
        np.testing.assert_allclose(*map(flat, pair(learner)), rtol=1e-12, atol=1e-14)


def test_networks_in_discrete_time_and_other_losses(x64, key):
    chain = mlp(3, 4, 3, 2, activation="sigmoid", output="identity", key=key)
    batch = Batch(jax.random.normal(key, (3, 3)), jnp.arange(3) % 2)
    settings = {"network": "convergent", "relaxation": "fixed-point", "loss": "cross-entropy"}
    rule = HolomorphicEquilibriumPropagation(0.1, 6, **{**SETTLED, "nudged_steps": 200}, **settings)

    @eqx.filter_jit
    def both(learner):
        exact = exact_gradient(rule.loss, learner.model, batch)[2]
        return rule.credit(learner, batch, key=key).grads[0], exact

    assert error(*both(rule.init(chain, key=key))) < 1e-5


def test_noise_is_drawn_anew_for_every_phase_and_its_mean_does_no_harm(x64, key):
    chain = mlp(3, 4, 2, activation="sigmoid", output="sigmoid", key=key)
    batch = Batch(jax.random.normal(key, (3, 3)), jnp.arange(3) % 2)
    quiet, noisy = (
        HolomorphicEquilibriumPropagation(0.5, 4, noise=noise, network="convergent", relaxation="fixed-point")
        for noise in (0.0, 0.01)
    )
    learner = quiet.init(chain, key=key)

    @eqx.filter_jit
    def draw(learner, keys):
        clean = flat(quiet.credit(learner, batch, key=key).grads)
        return clean, jax.vmap(lambda key: flat(noisy.credit(learner, batch, key=key).grads))(keys)

    clean, drawn = draw(learner, jax.random.split(key, 400))
    spread = drawn.std(0) / np.sqrt(len(drawn))
    assert jnp.all(spread > 0)
    assert jnp.all(jnp.abs(drawn.mean(0) - clean) < 5 * spread + 1e-3)


def images(*between):
    stages = [Conv(1, 2, 3, activation="tanh", key=jax.random.key(0)), *between, Flatten()]
    return Chain([*stages, Dense(8, 3, key=jax.random.key(1))], input_shape=(4, 4, 1))


@pytest.mark.parametrize(
    ("model", "loss"),
    [
        (mlp(3, 4, 2, activation="hard-sigmoid", key=jax.random.key(0)), "squared-error"),
        (mlp(3, 4, 2, activation="relu", key=jax.random.key(0)), "squared-error"),
        (mlp(3, 4, 2, activation="softplus", key=jax.random.key(0)), "squared-error"),
        (images(Pool("max", 2)), "squared-error"),
        (mlp(3, 4, 2, key=jax.random.key(0)), "hinge"),
    ],
)
def test_what_is_not_analytic_is_refused_before_it_trains(model, loss, key):
    with pytest.raises(TypeError, match=r"has no analytic continuation.*pass units"):
        HolomorphicEquilibriumPropagation(loss=loss).init(model, key=key)
    HolomorphicEquilibriumPropagation(points=2, loss=loss).init(model, key=key)


def test_a_smooth_convolutional_network_gets_the_gradient_too(x64, key):
    rule = HolomorphicEquilibriumPropagation(0.05, 4, loss="cross-entropy", **SETTLED)
    learner = rule.init(images(Pool("mean", 2)), key=key)
    batch = Batch(jax.random.normal(key, (2, 4, 4, 1)), jnp.asarray([0, 2]))

    @eqx.filter_jit
    def both(learner):
        return rule.credit(learner, batch, key=key).grads, exact_gradient(rule.loss, learner.model, batch)[2]

    assert error(*both(learner)) < 1e-5


@pytest.mark.parametrize(("dtype", "wide"), [(jnp.bfloat16, False), (jnp.float32, True)])
def test_gradients_have_the_numbers_of_the_parameters(request, key, dtype, wide):
    if wide:
        request.getfixturevalue("x64")
    chain = mlp(3, 4, 2, activation="tanh", output="tanh", key=key)
    chain = jax.tree.map(lambda a: a.astype(dtype), chain)
    rule = HolomorphicEquilibriumPropagation(free_steps=2, nudged_steps=2)
    learner, batch = rule.init(chain, key=key), Batch(jnp.ones((2, 3), dtype), jnp.arange(2))
    grads = jax.eval_shape(lambda key: rule.credit(learner, batch, key=key).grads, key)
    assert jax.tree.map(lambda g: g.dtype, grads) == jax.tree.map(lambda p: p.dtype, learner.params)


@pytest.mark.parametrize("bad", [{"radius": 0.0}, {"points": 1}, {"noise": -0.1}, {"nudged_steps": 0}])
def test_numbers_out_of_range_are_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        HolomorphicEquilibriumPropagation(**bad)
