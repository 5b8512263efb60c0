"""Discrete target propagation: bits between layers, a target where backprop has no gradient."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import anyprop as ap
from anyprop.contract import Learner
from anyprop.nets import Activate, Chain, Dense, lenet5, mlp
from anyprop.rules.targets._discrete_target_propagation import DiscreteTargetPropagation


def bits_between(key, sizes=(4, 7, 6, 3), hard="sign"):
    """Hidden layers of tanh units that hear each other through a sign or a step."""
    first, *rest = (
        Dense(n, m, activation="tanh", key=k)
        for n, m, k in zip(sizes[:-2], sizes[1:-1], jax.random.split(key, len(sizes) - 2), strict=False)
    )
    heard = [stage for dense in rest for stage in (Activate(hard), dense)]
    return Chain([first, *heard, Dense(*sizes[-2:], key=jax.random.fold_in(key, 1))])


def batch_for(key, examples=8):
    return ap.Batch(jax.random.normal(key, (examples, 4)), jnp.arange(examples) % 3)


@pytest.mark.parametrize("hard", ["sign", "step"])
def test_equals_the_equations_written_out(x64, hard):
    """The paper's net, without noise: every target and every update in NumPy."""
    key = jax.random.key(0)
    model, batch = bits_between(key, hard=hard), batch_for(jax.random.key(1))
    rule = DiscreteTargetPropagation(target_step=3.0, noise=0.0, reduction="sum")
    learner = rule.init(model, key=key)
    got = rule.credit(learner, batch, key=key)

    def heard(h):
        return np.where(h > 0, 1.0, -1.0 if hard == "sign" else 0.0)

    (W_1, b_1), (W_2, b_2), (W_3, b_3) = ((np.asarray(s.weight), np.asarray(s.bias)) for s in ap.nets.affines(model))
    ((g),) = learner.feedback
    V, c = (np.asarray(getattr(ap.nets.sites(g)[0], name)) for name in ("weight", "bias"))
    x, B = np.asarray(batch.x), len(batch.x)
    h_1 = np.tanh(x @ W_1 + b_1)
    h_2 = np.tanh(heard(h_1) @ W_2 + b_2)
    odds = np.exp(h_2 @ W_3 + b_3)
    delta = odds / odds.sum(1, keepdims=True) - np.eye(3)[np.asarray(batch.y)]
    t_2 = h_2 - 3.0 * delta @ W_3.T
    back = np.tanh(heard(h_2) @ V + c)
    t_1 = h_1 - back + np.tanh(heard(t_2) @ V + c)
    e_2, e_1, e_g = ((h - t) * (1 - h**2) * 2 / B for h, t in ((h_2, t_2), (h_1, t_1), (back, h_1)))
    pairs = [(x, e_1), (heard(h_1), e_2), (h_2, delta / B), (heard(h_2), e_g)]
    for site, (h, e) in zip(ap.nets.affines(got.grads), pairs, strict=True):
        np.testing.assert_allclose(site.weight, h.T @ e, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(site.bias, e.sum(0), rtol=1e-9, atol=1e-12)
    assert np.any(t_1 != h_1)


def test_teaches_the_layer_below_a_sign_which_backprop_does_not(key):
    model, batch = bits_between(key), batch_for(key)
    rule = DiscreteTargetPropagation(target_step=3.0, reduction="sum")
    exact = ap.Backprop().credit(ap.Backprop().init(model, key=key), batch, key=key).grads[0]
    got = rule.credit(rule.init(model, key=key), batch, key=key).grads[0]
    assert not jnp.any(exact.stages[0].weight)
    assert jnp.any(got.stages[0].weight)
    assert jnp.allclose(got.stages[-1].weight, exact.stages[-1].weight, rtol=1e-5)


def test_a_target_that_turns_no_unit_is_not_heard_below(key):
    """t_2 = h_2 + 1e-4 gradient has h_2's signs, so t_1 = h_1 and the first layer has nothing to learn."""
    model, batch = bits_between(key), batch_for(key)
    rule = DiscreteTargetPropagation(target_step=1e-4, reduction="sum")
    h, _, _, targets = rule.propose(Learner(model, rule.init(model, key=key).feedback), batch)
    assert jnp.all(jnp.abs(h[2]) > 1e-4)
    assert jnp.any(targets[1] != h[2])
    assert jnp.allclose(targets[0], h[1], atol=1e-7)


def test_an_inverse_hears_as_its_layer_does(key):
    """Only the third of these layers hears a sign: the inverse of the second stays continuous."""
    k = jax.random.split(key, 4)
    tanh = [Dense(5, 5, activation="tanh", key=each) for each in k[:3]]
    model = Chain([tanh[0], tanh[1], Activate("sign"), tanh[2], Dense(5, 3, key=k[3])])
    second, third = DiscreteTargetPropagation().init(model, key=key).feedback
    h = jax.random.normal(key, (4, 5))
    assert jnp.allclose(third(h), third(jnp.sign(h)))
    assert not jnp.allclose(second(h), second(jnp.sign(h)))


def test_the_noise_falls_with_the_steps(x64):
    """After `noise_halving` steps the inverses learn from half the noise, with the same key."""
    key = jax.random.key(0)
    model, batch = bits_between(key), batch_for(key)
    learner = DiscreteTargetPropagation(noise=0.8, noise_halving=10.0).init(model, key=key)
    for steps, factor in ((0, 1.0), (10, 0.5), (20, 1 / 3)):
        late = eqx.tree_at(lambda learner: learner.memory, learner, jnp.asarray(steps, jnp.int32))
        got = DiscreteTargetPropagation(noise=0.8, noise_halving=10.0).credit(late, batch, key=key)
        want = DiscreteTargetPropagation(noise=0.8 * factor).credit(learner, batch, key=key)
        assert jnp.allclose(got.metrics["inverse_loss"], want.metrics["inverse_loss"], rtol=1e-12)
        assert got.memory == steps + 1


def test_learns_what_a_random_first_layer_cannot(key):
    """x_0 x_1 > 0 among distractors, with few units in the first layer: its features have to be learned."""
    model = bits_between(key, (8, 6, 30, 2))
    x = jax.random.normal(jax.random.key(1), (400, 8))
    batch = ap.Batch(x, (x[:, 0] * x[:, 1] > 0).astype(jnp.int32))

    def final_loss(rule):
        adam = optax.adam(0.01)
        learner = rule.init(model, key=key)

        @jax.jit
        def learn(arrays):
            def advance(carry, key):
                arrays, state = carry
                learner = eqx.combine(arrays, static)
                credit = rule.credit(learner, batch, key=key)
                updates, state = adam.update(credit.grads, state, learner.params)
                return (eqx.filter(learner.apply(updates, credit.memory), eqx.is_array), state), credit.loss

            return jax.lax.scan(advance, (arrays, adam.init(learner.params)), jax.random.split(key, 400))[1]

        arrays, static = eqx.partition(learner, eqx.is_array)
        return learn(arrays)[-10:].mean()

    losses = [final_loss(rule) for rule in (DiscreteTargetPropagation(target_step=1.0, reduction="sum"), ap.Backprop())]
    assert losses[0] < 0.8 * losses[1], losses


def test_chains_without_bits_between_layers_are_refused(key):
    rule = DiscreteTargetPropagation()
    with pytest.raises(
        TypeError, match=r"pass ap\.nets\.mlp\(784, 500, 'sign', 500, 10, key=key\).*DifferenceTargetProp"
    ):
        rule.init(mlp(4, 6, 5, 3, key=key), key=key)
    with pytest.raises(TypeError, match=r"layer 1 is hard itself.*StraightThrough"):
        rule.init(mlp(4, 6, 5, 3, activation="sign", key=key), key=key)
    heard = [Dense(4, 5, activation="tanh", key=key), Activate("sign"), Dense(5, 3, key=key)]
    with pytest.raises(TypeError, match="leave out the last Activate"):
        rule.init(Chain(heard), key=key)
    with pytest.raises(TypeError, match="sign"):
        rule.init(lenet5(key=key), key=key)


@pytest.mark.parametrize("argument", ["noise_halving", "target_step"])
def test_bad_numbers_are_named(argument):
    with pytest.raises(ValueError, match=argument):
        DiscreteTargetPropagation(**{argument: 0.0})
