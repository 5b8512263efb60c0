import re

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from anyprop.contract import Batch, exact_gradient
from anyprop.energies import Feedforward, Hopfield
from anyprop.nets import mlp
from anyprop.rules.equilibrium import PredictiveCoding

OUTPUTS = ["clamped", "nudged"]


def net(key):
    return mlp(4, 7, 6, 3, activation="tanh", key=key)


def examples(key, count=6):
    return Batch(jax.random.normal(key, (count, 4)), jnp.arange(count) % 3)


def vectors(chain_like):
    """One vector of parameters a layer."""
    return [np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(site)]) for site in chain_like.stages]


@eqx.filter_jit
def updates(rules, chain, batch):
    """What each rule makes of the chain, in one program."""
    key = jax.random.key(0)
    return [rule.credit(rule.init(chain, key=key), batch, key=key).grads[0].chain for rule in rules]


@pytest.mark.parametrize(("output", "loss"), [("clamped", "cross-entropy"), ("nudged", "squared-error")])
def test_the_update_tends_to_backprop_in_proportion_to_beta(x64, key, output, loss):
    chain, batch = net(key), examples(key)
    betas = (1.0, 0.1, 0.01, 0.001)
    rules = [PredictiveCoding(beta, output, steps=300, step_size=0.3, loss=loss) for beta in betas]
    exact = vectors(eqx.filter_jit(exact_gradient)(rules[0].loss, chain, batch)[2])
    for layer, gradient in enumerate(exact):
        found = [vectors(update)[layer] for update in updates(rules, chain, batch)]
        errors = [np.linalg.norm(u - gradient) / np.linalg.norm(gradient) for u in found]
        assert np.all(np.diff(errors) < 0)
        assert errors[-1] <= 0.01
        assert 9 < errors[2] / errors[3] < 11
        assert all(u @ gradient > 0 for u in found)


@pytest.mark.parametrize("output", OUTPUTS)
def test_the_update_is_that_of_the_published_loop(x64, key, output):
    chain, batch = net(key), examples(key)
    beta, gamma, steps, sigma = 0.5, 0.1, 7, (0.5, 1.0, 2.0)
    (w1, b1), (w2, b2), (w3, b3) = ((np.asarray(site.weight), np.asarray(site.bias)) for site in chain.stages)
    x, y = np.asarray(batch.x), np.eye(3)[np.asarray(batch.y)]
    s1 = c1 = x @ w1 + b1
    s2 = np.tanh(s1) @ w2 + b2
    s3 = np.tanh(s2) @ w3 + b3

    def errors():
        e1, e2 = (s1 - c1) / sigma[0], (s2 - np.tanh(s1) @ w2 - b2) / sigma[1]
        c3 = np.tanh(s2) @ w3 + b3
        return e1, e2, beta * (y - c3) if output == "clamped" else (s3 - c3) / sigma[2]

    for _ in range(steps):
        e1, e2, e3 = errors()
        s1 = s1 + gamma * (-e1 + (1 - np.tanh(s1) ** 2) * (e2 @ w2.T))
        s2 = s2 + gamma * (-e2 + (1 - np.tanh(s2) ** 2) * (e3 @ w3.T))
        s3 = s3 + gamma * (-e3 - beta * (s3 - y))
    rates = (x, np.tanh(s1), np.tanh(s2))
    rule = PredictiveCoding(beta, output, steps, gamma)
    learner = rule.init(Feedforward(chain, variances=sigma), key=key)
    credit = eqx.filter_jit(rule.credit)(learner, batch, key=key)
    for site, rate, e in zip(credit.grads[0].chain.stages, rates, errors(), strict=True):
        np.testing.assert_allclose(site.weight, -rate.T @ e / (6 * beta), atol=1e-12)
        np.testing.assert_allclose(site.bias, -e.mean(0) / beta, atol=1e-12)
    np.testing.assert_allclose(credit.output, chain(batch.x), rtol=1e-12)
    assert credit.metrics["inference_steps"] == 7
    assert credit.metrics["inference_converged"] == 0


def test_a_nudge_acts_like_a_clamped_output_of_larger_variance(x64, key):
    """Of squared error, the output layer can be minimised away: 1 / beta_clamped = 1 + 1 / beta_nudged."""
    chain, batch = net(key), examples(key)
    settled = {"steps": 500, "step_size": 0.3}
    nudged, clamped = PredictiveCoding(2.0, "nudged", **settled), PredictiveCoding(2 / 3, "clamped", **settled)
    of_nudged, of_clamped = updates([nudged, clamped], chain, batch)
    for one, other in zip(vectors(of_nudged), vectors(of_clamped), strict=True):
        np.testing.assert_allclose(2.0 * one, 2 / 3 * other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("output", OUTPUTS)
def test_the_total_energy_falls_along_inference_to_a_tolerance(x64, key, output):
    batch = examples(key)
    rule = PredictiveCoding(1.0, output, steps=600, tolerance=1e-6)
    model = rule.init(net(key), key=key).model
    hidden = output == "clamped"

    @jax.jit
    def run(start):
        def pull(state):
            return rule.loss(model.predictions(state, batch.x)[-1] if hidden else state[-1], batch.y)

        def step(state, _):
            moved = model.dynamics(batch.x, pull).velocity(state)
            return jax.tree.map(lambda s, v: s + 0.1 * v, state, moved), model.energy(state, batch.x) + pull(state)

        return jax.lax.scan(step, start, length=40)[1], model.settle(batch.x, start, nudge=pull)

    start = model.start(batch.x)
    energies, end = run(start[:-1] if hidden else start)
    assert np.all(np.diff(energies, axis=0) < 0)
    assert end.converged.all()
    assert np.all(end.residual <= 1e-6)
    assert np.all((end.steps > 10) & (end.steps < 600))


@pytest.mark.parametrize("output", OUTPUTS)
def test_an_inference_step_multiplies_twice_by_each_weight_above_the_first(key, output):
    rule = PredictiveCoding(1.0, output)
    learner = rule.init(mlp(37, 11, 7, 3, activation="tanh", key=key), key=key)
    arrays, static = eqx.partition(learner, eqx.is_array)
    batch = Batch(jnp.ones((5, 37)), jnp.zeros(5, int))
    credit = jax.jit(lambda arrays: rule.credit(eqx.combine(arrays, static), batch, key=key))
    text = credit.lower(arrays).compile().as_text()
    # Each computation of the program: its name, and what stands in its braces.
    parts = dict(re.findall(r"^(?:ENTRY )?%([\w.-]+) .*?\{\n(.*?)^\}", text, flags=re.MULTILINE | re.DOTALL))
    bodies = re.findall(r"while\(.*?body=%([\w.-]+)", text)

    def inside(name):
        return parts[name] + "".join(inside(callee) for callee in re.findall(r"calls=%([\w.-]+)", parts[name]))

    assert len(bodies) == 1
    assert inside(bodies[0]).count(" dot(") == 4
    # The free pass; the first step's way down; c_2 and c_3 at the end of inference; the weights' updates.
    assert text.count(" dot(") == 4 + 3 + 2 + 2 + 3


@pytest.mark.parametrize("output", OUTPUTS)
def test_a_step_too_long_for_the_weights_is_cut(x64, key, output):
    large = jax.tree.map(lambda w: 2.0 * w, net(key))
    short, long = (PredictiveCoding(1.0, output, 6000, gamma) for gamma in (0.05, 3.0))
    found, expected = updates([long, short], large, examples(key))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6), found, expected)


@pytest.mark.parametrize(
    ("bad", "match"),
    [
        ({"beta": 0.0}, "beta"),
        ({"output": "free"}, "output"),
        ({"steps": 0}, "steps"),
        ({"step_size": -0.1}, "step_size"),
        ({"tolerance": -1.0}, "tolerance"),
    ],
)
def test_numbers_out_of_range_are_refused(bad, match):
    with pytest.raises((ValueError, TypeError), match=match):
        PredictiveCoding(**bad)


def test_models_of_the_wrong_kind_are_refused(key):
    with pytest.raises(TypeError, match=r"Hopfield; pass ap\.nets\.mlp.*EquilibriumPropagation"):
        PredictiveCoding().init(Hopfield(mlp(4, 3, key=key)), key=key)
    with pytest.raises(TypeError, match="'tanh'"):
        PredictiveCoding().init(mlp(4, 5, 3, activation="sign", key=key), key=key)
