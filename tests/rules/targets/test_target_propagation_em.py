import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import optax
import pytest

import anyprop as ap
from anyprop.nets import mlp
from anyprop.rules.targets._target_propagation_em import TargetPropagationEM, TopPrior


def on_a_curve(key, examples=64, size=8):
    """Inputs of one hidden dimension each, so that a part tells of the rest."""
    angle = jax.random.uniform(key, (examples, 1), maxval=3.0)
    return jnp.sin(angle + jnp.arange(size) / size)


@pytest.fixture(scope="module")
def trained():
    """A small auto-encoder after 600 steps on `on_a_curve`, and its inputs."""
    key = jax.random.key(0)
    x, rule, optimizer = on_a_curve(key), TargetPropagationEM(), optax.adam(0.01)
    learner = rule.init(mlp(8, 12, 4, 12, 8, key=key), key=key)
    params, rest = eqx.partition(learner, eqx.is_array)

    def step(carry, key):
        params, state = carry
        held = eqx.combine(params, rest)
        credit = rule.credit(held, ap.Batch(x, x), key=key)
        updates, state = optimizer.update(credit.grads, state, held.params)
        return (eqx.filter(held.apply(updates, None), eqx.is_array), state), credit.loss

    start = (params, optimizer.init(learner.params))
    (params, _), losses = jax.jit(lambda keys: jax.lax.scan(step, start, keys))(jax.random.split(key, 600))
    assert losses[-1] < 0.1 * losses[0]
    return eqx.combine(params, rest).model, x


def symmetric(key, *sizes):
    """A linear auto-encoder whose second half is the transpose of its first."""
    model = mlp(*sizes, *reversed(sizes[:-1]), activation="identity", bias=False, key=key)
    half = len(sizes) - 1
    weights = [model.stages[i].weight for i in range(half)]
    both = [*weights, *(weight.T for weight in reversed(weights))]
    return eqx.tree_at(lambda m: [stage.weight for stage in m.stages], model, both)


@pytest.mark.parametrize("prior_rate", [0.1, 0.02])
def test_a_symmetric_linear_chain_infers_the_map_estimate(x64, prior_rate):
    """The h minimise |x - h_1 V_1|^2 + alpha/delta |h_1 - h_2 V_2|^2, least squares in all h."""
    key = jax.random.key(0)
    model = symmetric(key, 7, 4, 3)
    x = jax.random.normal(key, (5, 7))
    rule = TargetPropagationEM(iterations=20_000, rate=0.1, prior_rate=prior_rate)
    (h1, h2), trace = rule.infer(model, x)
    v1, v2 = (stage.weight.T for stage in model.stages[:2])
    root = jnp.sqrt(prior_rate / 0.1)
    system = jnp.block([[v1, root * jnp.eye(4)], [jnp.zeros((3, 7)), -root * v2]])
    goal = jnp.concatenate([x, jnp.zeros((5, 4))], axis=1)
    best = jnp.linalg.lstsq(system.T, goal.T)[0].T
    assert jnp.allclose(jnp.concatenate([h1, h2], axis=1), best, rtol=1e-7, atol=1e-9)
    likelihood = -0.5 * (jnp.sum((x - h1 @ v1) ** 2) + jnp.sum((h1 - h2 @ v2) ** 2)) / len(x)
    assert jnp.isclose(trace[-1], likelihood, rtol=1e-12)


def test_inference_raises_the_joint_likelihood(trained):
    model, x = trained
    _, trace = TargetPropagationEM(iterations=20).infer(model, x)
    assert trace.shape == (21,)
    assert jnp.all(jnp.diff(trace) > 0)


def test_the_updates_are_the_delta_rule(x64):
    key = jax.random.key(2)
    model = mlp(5, 4, 3, 4, 5, key=key)
    x = jax.random.normal(key, (6, 5))
    rule = TargetPropagationEM(noise=0.0, rate=0.3)
    (h1, h2), _ = rule.infer(model, x)
    credit = rule.credit(rule.init(model, key=key), ap.Batch(x, x), key=key)
    hidden, linear = (lambda a: 1 - a**2), (lambda a: 1.0)
    pairs = [(x, h1, hidden), (h1, h2, hidden), (h2, h1, hidden), (h1, x, linear)]
    for stage, update, (seen, aim, slope) in zip(model.stages, credit.grads[0].stages, pairs, strict=True):
        output = stage(seen)
        error = (output - aim) * slope(output) / len(x)
        assert jnp.allclose(update.weight, seen.T @ error, rtol=1e-9)
        assert jnp.allclose(update.bias, error.sum(0), rtol=1e-9)
    assert jnp.isclose(credit.loss, 0.5 * jnp.sum((model(x) - x) ** 2) / len(x))
    assert credit.metrics["joint_first"] == credit.metrics["joint"][0]
    assert credit.metrics["joint_last"] == credit.metrics["joint"][-1]


def test_the_noise_falls_on_inputs_and_not_on_targets(x64):
    """With units that answer 0 whatever they hear, every error is minus the clean target."""
    key = jax.random.key(3)
    model = jax.tree.map(jnp.zeros_like, mlp(5, 4, 5, activation="identity", key=key))
    x = jax.random.normal(key, (6, 5))
    rule = TargetPropagationEM(noise=1.0)
    update = rule.credit(rule.init(model, key=key), ap.Batch(x, x), key=key).grads[0]
    assert jnp.allclose(update.stages[1].bias, -x.mean(0), rtol=1e-12)
    assert jnp.any(update.stages[1].weight != 0)  # the hidden activity is 0, and what it learns from is not


def test_the_top_prior_is_fitted_to_the_data(trained):
    model, x = trained
    top = TargetPropagationEM().infer(model, x)[0][-1]
    prior = TargetPropagationEM().top_prior(model, x)
    assert jnp.allclose(prior.mean, top.mean(0))
    assert jnp.allclose(prior.sd**2, 4 * top.var(0), rtol=1e-5)


def test_generation_without_spread_or_rounds_decodes_the_mean(trained):
    model, x = trained
    mean = TargetPropagationEM().top_prior(model, x).mean
    prior = TopPrior(mean, jnp.zeros_like(mean))
    drawn = TargetPropagationEM().generate(model, prior, examples=3, rounds=0, key=jax.random.key(1))
    expected = model.stages[3](model.stages[2](mean[None]))
    assert drawn.shape == (3, 8)
    assert jnp.allclose(drawn, expected, atol=1e-6)


def test_generation_infers_and_reconstructs_in_turn(trained, key):
    model, x = trained
    rule = TargetPropagationEM()
    prior = rule.top_prior(model, x)
    drawn = rule.generate(model, prior, examples=4, rounds=0, key=key)
    for _ in range(2):
        h = dataclasses.replace(rule, prior_rate=0.2).infer(model, drawn)[0]
        drawn = model.stages[3](h[0])
    got = rule.generate(model, prior, examples=4, rounds=2, prior_rate=0.2, key=key)
    assert jnp.allclose(got, drawn, atol=1e-5)


def test_rounds_of_inference_bring_samples_nearer_to_the_data(trained, key):
    model, x = trained
    rule = TargetPropagationEM()
    prior = rule.top_prior(model, x)

    def away(rounds):
        drawn = rule.generate(model, prior, examples=200, rounds=rounds, key=key)
        return jnp.min(jnp.sum((drawn[:, None] - x) ** 2, axis=-1), axis=1).mean()

    assert away(3) < 0.2 * away(0)


def test_missing_parts_are_filled_in_from_the_others(trained):
    model, x = trained
    visible = jnp.broadcast_to(jnp.arange(8) < 5, x.shape)
    filled = TargetPropagationEM().inpaint(model, x, visible, iterations=200)
    assert jnp.array_equal(jnp.where(visible, filled, 0.0), jnp.where(visible, x, 0.0))
    unlike = jnp.where(visible, x, 100.0)
    assert jnp.array_equal(filled, TargetPropagationEM().inpaint(model, unlike, visible, iterations=200))
    error = jnp.mean((filled - x)[:, 5:] ** 2)
    assert error < 0.2 * jnp.mean((x - x.mean(0))[:, 5:] ** 2)


def test_logits_are_reconstructed_as_probabilities(key):
    model = mlp(6, 4, 6, key=key)
    x = jax.random.uniform(key, (5, 6))
    rule = TargetPropagationEM(loss="binary-cross-entropy")
    prior = rule.top_prior(model, x)
    drawn = rule.generate(model, prior, examples=7, key=key)
    assert np.all((drawn > 0) & (drawn < 1))
    _, trace = rule.infer(model, x)
    assert jnp.isclose(trace[0], -rule.loss(model(x), x).mean())


@pytest.mark.parametrize(
    ("argument", "value"), [("iterations", 0), ("rate", 0.0), ("prior_rate", -0.1), ("noise", -0.1), ("loss", "hinge")]
)
def test_bad_arguments_are_named(argument, value, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # users run without the type checker
    with pytest.raises(ValueError, match=argument):
        TargetPropagationEM(**{argument: value})


@pytest.mark.parametrize("arguments", [{"examples": 0}, {"examples": 2, "rounds": -1}, {"prior_rate": -1.0}])
def test_bad_arguments_of_generation_are_named(arguments, key):
    rule, model = TargetPropagationEM(), mlp(4, 3, 4, key=key)
    prior = rule.top_prior(model, jnp.ones((2, 4)))
    with pytest.raises(ValueError, match=list(arguments)[-1]):
        rule.generate(model, prior, **{"examples": 2, **arguments}, key=key)
    with pytest.raises(ValueError, match="widening"):
        rule.top_prior(model, jnp.ones((2, 4)), widening=0.0)


@pytest.mark.parametrize("sizes", [(4, 3, 2), (4, 4), (4, 3, 3, 4), (4, 3, 5, 2, 4)])
def test_what_does_not_lead_back_is_refused(sizes, key):
    with pytest.raises(TypeError, match="goes back through its own sizes"):
        TargetPropagationEM().init(mlp(*sizes, key=key), key=key)


def test_targets_that_are_not_the_inputs_are_refused(key):
    rule = TargetPropagationEM()
    learner = rule.init(mlp(4, 3, 4, key=key), key=key)
    with pytest.raises(ValueError, match="y must be the inputs"):
        rule.credit(learner, ap.Batch(jnp.ones((2, 4)), jnp.zeros(2, int)), key=key)
