import equinox as eqx
import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import optax
import pytest

from anyprop.contract import Batch, Learner
from anyprop.nets import affines, affines_above_first, mlp
from anyprop.rules.exact import Backprop
from anyprop.rules.feedback import SignSymmetry


def glorot(weight):
    fan_in, fan_out = np.prod(weight.shape[:-1]), np.prod(weight.shape[:-2]) * weight.shape[-1]
    return (2 / (fan_in + fan_out)) ** 0.5


def with_weights(model, new):
    return eqx.tree_at(lambda m: [site.weight for site in affines(m)], model, new)


def test_where_all_magnitudes_are_the_scale_it_is_backprop(x64, any_net, batch, same, run):
    key = jax.random.key(0)
    model = any_net(key)
    model = with_weights(model, [glorot(s.weight) * jnp.sign(s.weight) for s in affines(model)])
    exact = run(Backprop(), Learner(model), batch(model))
    credit = run(SignSymmetry(), Learner(model), batch(model))
    same(credit.grads, exact.grads)


def test_where_all_magnitudes_are_one_the_literal_rule_is_backprop(x64, batch, same, run):
    key = jax.random.key(0)
    model = mlp(6, 7, 5, 4, key=key)
    model = with_weights(model, [jnp.sign(s.weight) for s in affines(model)])
    exact = run(Backprop(), Learner(model), batch(model))
    same(run(SignSymmetry(scale="one"), Learner(model), batch(model)).grads, exact.grads)


def test_with_the_weights_own_magnitudes_fixed_feedback_is_backprop(x64, any_net, batch, same, run):
    key = jax.random.key(0)
    model = any_net(key)
    learner = Learner(model, memory=[jnp.abs(s.weight) / glorot(s.weight) for s in affines_above_first(model)])
    exact = run(Backprop(), learner, batch(model))
    same(run(SignSymmetry(variant="frSF"), learner, batch(model)).grads, exact.grads)


@pytest.mark.parametrize("variant", ["uSF", "brSF", "frSF"])
def test_feedback_has_the_signs_of_the_weights_also_after_they_change(variant, any_net, key):
    rule = SignSymmetry(variant=variant)
    learner = rule.init(any_net(key), key=key)
    flipped = with_weights(learner.model, [-s.weight for s in affines(learner.model)])
    for model in (learner.model, flipped):
        feedback = rule.feedback_weights(Learner(model, memory=learner.memory))
        for B, site in zip(feedback, affines_above_first(model), strict=True):
            assert jnp.array_equal(jnp.sign(B), jnp.sign(site.weight))


@pytest.mark.parametrize("variant", ["uSF", "brSF", "frSF"])
def test_feedback_has_the_spread_of_glorots_weights(variant, key):
    model = mlp(60, 90, 40, init="glorot-normal", key=key)
    rule = SignSymmetry(variant=variant)
    for B, site in zip(rule.feedback_weights(rule.init(model, key=key)), affines_above_first(model), strict=True):
        expected = glorot(site.weight) * ((2 / np.pi) ** 0.5 if variant == "brSF" else 1.0)
        np.testing.assert_allclose(jnp.sqrt(jnp.mean(B**2)), expected, rtol=0.03)


def test_only_brsf_draws_magnitudes_anew_for_each_batch(batch, key, run):
    model = mlp(6, 7, 5, 4, key=key)
    keys = jax.random.split(key)
    for variant, redrawn in {"uSF": False, "brSF": True, "frSF": False}.items():
        rule = SignSymmetry(variant=variant)
        learner = rule.init(model, key=key)
        first, second = (run(rule, learner, batch(model), k).grads[0] for k in keys)
        assert jnp.array_equal(first.stages[0].weight, second.stages[0].weight) != redrawn


def test_the_mean_feedback_of_brsf_gives_its_mean_update(x64, batch):
    """One hidden layer: the update is linear in B, so the mean over draws is the update of the mean B."""
    key = jax.random.key(0)
    model = mlp(6, 7, 4, key=key)
    rule = SignSymmetry(variant="brSF")
    learner = rule.init(model, key=key)
    draws = jax.vmap(lambda k: rule.credit(learner, batch(model), key=k).grads[0].stages[0].weight)(
        jax.random.split(key, 4000)
    )
    uniform = SignSymmetry().credit(learner, batch(model), key=key).grads[0].stages[0].weight
    error = draws.std(0) / 4000**0.5
    assert jnp.max(jnp.abs(draws.mean(0) - (2 / np.pi) ** 0.5 * uniform) / error) < 4.5


def test_the_last_layer_may_carry_the_exact_error(x64, any_net, batch, same, run):
    key = jax.random.key(0)
    rule = SignSymmetry(exact_output=True)
    learner = rule.init(any_net(key), key=key)
    assert jnp.array_equal(rule.feedback_weights(learner)[-1], affines(learner.model)[-1].weight)
    two_layers = mlp(6, 7, 4, key=key)
    exact = run(Backprop(), Learner(two_layers), batch(two_layers))
    same(run(rule, Learner(two_layers), batch(two_layers)).grads, exact.grads)


def test_batch_manhattan_is_an_optimizer(key):
    """The update of every weight is the sign of the batch's gradient times the rate, and it learns."""
    model = mlp(8, 16, 16, 3, key=key)
    x = jax.random.normal(key, (60, 8))
    data = Batch(x, jnp.argmax(x[:, :3], axis=1))
    rule, optimizer = SignSymmetry(scale="one"), optax.sign_sgd(2e-3)
    learner = rule.init(model, key=key)
    state = optimizer.init(learner.params)
    losses = []

    @jax.jit
    def step(learner, state):
        credit = rule.credit(learner, data, key=key)
        updates, state = optimizer.update(credit.grads, state)
        return learner.apply(updates, credit.memory), state, credit.loss

    for _ in range(150):
        before = learner
        learner, state, loss = step(learner, state)
        losses.append(loss)
    moved = learner.model.stages[1].weight - before.model.stages[1].weight
    np.testing.assert_allclose(jnp.abs(moved), 2e-3, rtol=1e-3)
    assert losses[-1] < 0.3 * losses[0]


@pytest.mark.parametrize(("argument", "value"), [("variant", "usf"), ("scale", "xavier")])
def test_unknown_names_are_refused(argument, value, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # users run without the type checker
    with pytest.raises(ValueError, match=f"{argument}='{value}' is unknown; pass one of"):
        SignSymmetry(**{argument: value})
