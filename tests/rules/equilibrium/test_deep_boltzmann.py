import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import anyprop as ap
from anyprop.energies import Boltzmann, log_partition
from anyprop.rules.equilibrium import ContrastiveDivergence, DeepBoltzmann, pretrain_deep_boltzmann

LOSS = "binary-cross-entropy"


def machine(*sizes, labels=False):
    output = "identity" if labels else "sigmoid"
    return Boltzmann(ap.nets.mlp(*sizes, activation="sigmoid", output=output, key=jax.random.key(0)), labels=labels)


def bars():
    """The 3 x 3 images of horizontal bars, and those of vertical ones, without the blank and the full."""
    rows = np.array([[n >> i & 1 for i in range(3)] for n in range(1, 7)], float)
    horizontal = np.repeat(rows[:, :, None], 3, axis=2)
    images = np.concatenate([horizontal, horizontal.transpose(0, 2, 1)]).reshape(12, 9)
    return jnp.asarray(images, jnp.float32), jnp.repeat(jnp.arange(2), 6)


@eqx.filter_jit
def log_likelihood(machine, x, y=None):
    return jnp.mean(log_partition(machine, x, y)) - log_partition(machine)[0]


def train(rule, model, batch, steps, rate):
    arrays, static = eqx.partition(rule.init(model, key=jax.random.key(3)), eqx.is_array)
    optimizer = optax.adam(rate)

    def step(carry, key):
        learner = eqx.combine(carry[0], static)
        credit = rule.credit(learner, batch, key=key)
        updates, state = optimizer.update(credit.grads, carry[1])
        return (eqx.filter(learner.apply(updates, credit.memory), eqx.is_array), state), credit.metrics

    @jax.jit
    def run(arrays):
        start = arrays, optimizer.init(eqx.combine(arrays, static).params)
        return jax.lax.scan(step, start, jax.random.split(jax.random.key(4), steps))

    ((arrays, _), metrics) = run(arrays)
    return eqx.combine(arrays, static).model, metrics


def test_with_one_hidden_layer_it_is_persistent_contrastive_divergence(x64):
    x = bars()[0].astype(float)
    batch, key = ap.Batch(x, x), jax.random.key(1)
    rules = (
        DeepBoltzmann(gibbs_steps=3, particles=20, loss=LOSS),
        ContrastiveDivergence(3, persistent=True, particles=20, loss=LOSS),
    )
    deep, shallow = (eqx.filter_jit(rule.credit)(rule.init(machine(9, 4), key=key), batch, key=key) for rule in rules)
    for one, other in zip(jax.tree.leaves(deep.grads), jax.tree.leaves(shallow.grads), strict=True):
        assert np.allclose(one, other, rtol=1e-12, atol=1e-15)
    assert deep.metrics["mean_field_residual"] < 1e-12


def test_it_raises_the_likelihood_and_pretraining_gives_it_a_start():
    """Of 3 x 3 bars, by a machine with two hidden layers, exactly."""
    x, _ = bars()
    fresh = machine(9, 5, 4)
    pretrained = pretrain_deep_boltzmann(
        fresh, x, optimizer=optax.adam(0.02), steps=500, batch_size=12, key=jax.random.key(1)
    )
    trained, metrics = train(DeepBoltzmann(loss=LOSS), pretrained, ap.Batch(x, x), 500, 0.02)
    before, between, after = (log_likelihood(model, x) for model in (fresh, pretrained, trained))
    assert before < between < after
    assert after > -9 * np.log(2) + 2  # 2 nats better than knowing nothing; log 12 = 2.5 is the best
    assert metrics["mean_field_residual"][-1] < 0.1


def test_every_array_of_a_machine_with_a_label_is_trained():
    x, y = bars()
    model = machine(9, 4, 3, 2, labels=True)
    pretrained = pretrain_deep_boltzmann(model, x, y, optimizer=optax.sgd(0.1), steps=20, key=jax.random.key(1))
    trained, _ = train(DeepBoltzmann(), pretrained, ap.Batch(x, y), 5, 0.02)
    for stage in zip(*map(jax.tree.leaves, (model, pretrained, trained)), strict=True):
        assert len({np.asarray(leaf).tobytes() for leaf in stage}) == 3


def test_bad_input_is_refused(key):
    with pytest.raises(ValueError, match="y is missing"):
        pretrain_deep_boltzmann(machine(9, 4, 3, 2, labels=True), bars()[0], optimizer=optax.sgd(0.1), steps=1, key=key)
    with pytest.raises(ValueError, match="steps"):
        pretrain_deep_boltzmann(machine(9, 4, 3), bars()[0], optimizer=optax.sgd(0.1), steps=0, key=key)
    for argument in ("mean_field_steps", "gibbs_steps", "particles"):
        with pytest.raises(ValueError, match=argument):
            DeepBoltzmann(**{argument: 0})
