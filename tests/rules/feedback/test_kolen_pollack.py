import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from anyprop.contract import Batch, Learner
from anyprop.nets import affines, affines_above_first, mlp
from anyprop.rules.exact import Backprop
from anyprop.rules.feedback import KolenPollack


def differences(learner):
    return [site.weight - B for site, B in zip(affines_above_first(learner.model), learner.feedback, strict=True)]


def train(rule, optimizer, learner, data, steps):
    key = jax.random.key(0)

    def step(carry, _):
        learner, state = carry
        credit = rule.credit(learner, data, key=key)
        updates, state = optimizer.update(credit.grads, state, learner.params)
        return (learner.apply(updates, credit.memory), state), None

    arrays, static = eqx.partition((learner, optimizer.init(learner.params)), eqx.is_array)

    @jax.jit
    def run(arrays):
        def body(arrays, _):
            (learner, state), _ = step(eqx.combine(arrays, static), None)
            return eqx.filter((learner, state), eqx.is_array), None

        return jax.lax.scan(body, arrays, length=steps)[0]

    return eqx.combine(run(arrays), static)[0]


def test_with_equal_weights_it_is_backprop_with_weight_decay(x64, any_net, batch, same, run):
    key = jax.random.key(0)
    model = any_net(key)
    weights = [site.weight for site in affines(model)]
    exact = run(Backprop(), Learner(model), batch(model)).grads[0]
    feedback = [site.weight for site in affines_above_first(model)]
    credit = run(KolenPollack(decay=0.1), Learner(model, feedback=feedback), batch(model))
    expected = [g.weight + 0.1 * W for g, W in zip(affines(exact), weights, strict=True)]
    same([site.weight for site in affines(credit.grads[0])], expected)
    same(credit.grads[1], expected[-len(feedback) :])
    plain = run(KolenPollack(decay=0.0), Learner(model, feedback=feedback), batch(model))
    same(plain.grads[0], exact)


def test_the_difference_shrinks_by_one_minus_rate_times_decay_a_step(x64, any_net, batch):
    rate, decay, steps = 0.2, 0.05, 150
    key = jax.random.key(0)
    learner = KolenPollack().init(any_net(key), key=jax.random.key(1))
    later = train(KolenPollack(decay=decay), optax.sgd(rate), learner, batch(learner.model), steps)
    factor = (1 - rate * decay) ** steps
    for before, after, site in zip(
        differences(learner), differences(later), affines_above_first(later.model), strict=True
    ):
        np.testing.assert_allclose(after, factor * before, rtol=1e-11, atol=1e-13)
        assert jnp.max(jnp.abs(site.weight - factor * site.weight)) > 1e-3  # the weights did more than decay


def test_without_decay_the_difference_stays(x64, any_net, batch):
    key = jax.random.key(0)
    learner = KolenPollack().init(any_net(key), key=jax.random.key(1))
    later = train(KolenPollack(decay=0.0), optax.sgd(0.2), learner, batch(learner.model), 50)
    for before, after in zip(differences(learner), differences(later), strict=True):
        np.testing.assert_allclose(after, before, rtol=1e-12, atol=1e-14)


def test_with_adamw_the_decay_belongs_to_the_optimizer(x64, batch):
    key = jax.random.key(0)
    learner = KolenPollack().init(mlp(6, 7, 5, 4, key=key), key=jax.random.key(1))
    optimizer = optax.adamw(1e-2, weight_decay=0.5)
    later = train(KolenPollack(decay=0.0), optimizer, learner, batch(learner.model), 100)
    for before, after in zip(differences(learner), differences(later), strict=True):
        np.testing.assert_allclose(after, (1 - 1e-2 * 0.5) ** 100 * before, rtol=1e-11, atol=1e-13)


def test_biases_and_normalisations_do_not_decay(any_net, batch, key, run):
    learner = KolenPollack().init(any_net(key), key=key)
    data = batch(learner.model)
    without, with_decay = (run(KolenPollack(decay=d), learner, data).grads[0] for d in (0.0, 0.5))
    mixing = [site.weight for site in affines(with_decay)]
    changed = jax.tree.map(lambda a, b: not jnp.array_equal(a, b), without, with_decay)
    assert sum(jax.tree.leaves(changed)) == len(mixing)
    assert all(site.weight for site in affines(changed))


def test_the_angle_falls_while_it_learns(angle, key):
    """A decay that halves the difference some ten times leaves less than 15 degrees."""
    x = jax.random.normal(key, (60, 8))
    data = Batch(x, jnp.argmax(x[:, :3], axis=1))
    rule = KolenPollack(decay=1e-2)
    learner = rule.init(mlp(8, 16, 12, 3, key=key), key=jax.random.key(1))
    later = train(rule, optax.sgd(0.5), learner, data, 1500)
    for before, after in zip((learner, later), (later, None), strict=True):
        pairs = zip(affines_above_first(before.model), rule.feedback_weights(before), strict=True)
        angles = [angle(site.weight, B) for site, B in pairs]
        if after is not None:
            assert min(angles) > 60
        else:
            assert max(angles) < 15


@pytest.mark.parametrize("decay", [-1e-4, float("nan")])
def test_a_negative_decay_is_refused(decay):
    with pytest.raises(ValueError, match="decay must be a finite number, zero or above"):
        KolenPollack(decay=decay)


def test_an_unknown_initialiser_is_refused():
    with pytest.raises(ValueError, match=r"init_feedback=.* is unknown; pass one of"):
        KolenPollack(init_feedback="glorot")
