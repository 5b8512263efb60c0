import jax
import jax.numpy as jnp
import numpy as np
import pytest

from anyprop.contract import Learner
from anyprop.nets import Chain, Conv, Dense, Flatten, Pool, affines_above_first, elman, mlp
from anyprop.rules.exact import Backprop
from anyprop.rules.feedback import WeightMirror


def mirror(rule, model, feedback, examples, batches, key):
    """Many mirror batches."""

    def one(feedback, key):
        return rule.mirror(model, feedback, examples, key=key), None

    return jax.lax.scan(one, feedback, jax.random.split(key, batches))[0]


def zeros(model):
    return [jnp.zeros_like(site.weight) for site in affines_above_first(model)]


def small_convnet(key):
    k1, k2, k3 = jax.random.split(key, 3)
    return Chain(
        [
            Conv(2, 4, 3, activation="tanh", key=k1),
            Pool("mean", 2),
            Conv(4, 5, 3, padding="VALID", activation="tanh", key=k2),
            Flatten(),
            Dense(20, 3, key=k3),
        ],
        input_shape=(8, 8, 2),
    )


def test_with_the_forward_weights_it_is_backprop(x64, feedforward_net, batch, same, run):
    key = jax.random.key(0)
    model = feedforward_net(key)
    learner = Learner(model, memory=[site.weight for site in affines_above_first(model)])
    exact = run(Backprop(), learner, batch(model))
    credit = run(WeightMirror(), learner, batch(model))
    same(credit.grads, exact.grads)
    same((credit.loss, credit.output), (exact.loss, exact.output))


@pytest.mark.parametrize("centre", [True, False])
def test_the_mean_product_is_the_weight_times_the_variance_of_the_noise(x64, centre, key):
    """Linear units with a bias: E[outer(y, x)] = sigma^2 W exactly; the first step is eta_B times that."""
    model = mlp(3, 6, 5, activation="identity", key=jax.random.key(0))
    model = jax.tree.map(lambda leaf: leaf + 0.3 if leaf.ndim == 1 else leaf, model)
    rule = WeightMirror(feedback_rate=0.5, noise=0.4, centre=centre)
    steps = jax.vmap(lambda k: rule.mirror(model, zeros(model), 20, key=k)[0])(jax.random.split(key, 3000))
    expected = 0.5 * 0.4**2 / 12 * model.stages[1].weight
    error = steps.std(0) / 3000**0.5
    assert jnp.max(jnp.abs(steps.mean(0) - expected) / error) < 4.5
    # The interval is tight enough to tell the weight from its half.
    assert jnp.median(jnp.abs(expected) / error) > 8


def test_small_noise_brings_the_slope_of_the_activation(x64, key):
    model = mlp(3, 4, 5, 2, activation="sigmoid", key=jax.random.key(0))
    model = jax.tree.map(lambda leaf: leaf + 0.7 if leaf.ndim == 1 else leaf, model)
    rule = WeightMirror(feedback_rate=1.0, noise=0.1)
    steps = jax.vmap(lambda k: rule.mirror(model, zeros(model), 20, key=k)[0])(jax.random.split(key, 3000))
    bias = model.stages[1].bias
    slope = jax.nn.sigmoid(bias) * (1 - jax.nn.sigmoid(bias))
    expected = 0.1**2 / 12 * slope * model.stages[1].weight
    assert jnp.max(jnp.abs(steps.mean(0) - expected) / (steps.std(0) / 3000**0.5)) < 4.5


def test_a_convolution_averages_over_pixels(key):
    """The step does not grow with the image: the same convolution on a larger one learns the same B."""
    conv = Conv(2, 3, 3, padding="VALID", key=key)
    head = Conv(2, 2, 1, key=key)
    rule = WeightMirror(feedback_rate=1.0, noise=1.0, decay=0.0)
    for side in (8, 24):
        model = Chain([head, conv], input_shape=(side, side, 2))
        (B,) = mirror(rule, model, zeros(model), 50, 40, key)
        np.testing.assert_allclose(B, 40 / 12 * conv.weight, atol=0.05 * float(jnp.max(jnp.abs(B))))


@pytest.mark.parametrize("make", [lambda key: mlp(8, 20, 15, 4, key=key), small_convnet], ids=["dense", "conv"])
def test_feedback_comes_to_mirror_the_weights(make, angle, key):
    model = make(key)
    rule = WeightMirror()
    learner = rule.init(model, key=jax.random.key(1))
    later = Learner(model, memory=mirror(rule, model, learner.memory, 32, 500, key))
    for l, site in enumerate(affines_above_first(model)):
        before, after = (angle(rule.feedback_weights(state)[l], site.weight) for state in (learner, later))
        assert before > 60
        assert after < 15


def test_the_decay_settles_b_at_the_weight(angle, key):
    """Linear units: B = W / decay, from any start."""
    model = mlp(3, 6, 5, activation="identity", key=key)
    rule = WeightMirror(feedback_rate=0.2, noise=1.0, decay=2.0)
    start = [10 * jnp.ones_like(site.weight) for site in affines_above_first(model)]
    (B,) = mirror(rule, model, start, 200, 600, key)
    assert angle(B, model.stages[1].weight) < 5
    np.testing.assert_allclose(jnp.linalg.norm(B), jnp.linalg.norm(model.stages[1].weight) / 2, rtol=0.05)


def test_measuring_from_rest_takes_the_variance_of_the_resting_value_away(angle, key):
    model = mlp(8, 20, 15, 4, activation="sigmoid", key=key)
    angles = []
    for centre in (True, False):
        rule = WeightMirror(centre=centre, noise=0.1, feedback_rate=10.0)
        feedback = mirror(rule, model, zeros(model), 32, 500, key)
        angles.append(angle(feedback[0], model.stages[1].weight))
    assert angles[0] < 15
    assert angles[1] > 45


def test_mirroring_follows_the_batch_and_the_weights(batch, key, same, run):
    """`credit` mirrors the weights it was given, once, with the batch's size."""
    rule = WeightMirror()
    learner = rule.init(mlp(6, 7, 4, key=key), key=key)
    for examples in (3, 8):
        credit = run(rule, learner, batch(learner.model, examples), key)
        same(credit.memory, rule.mirror(learner.model, learner.memory, examples, key=key), rtol=1e-6)


def test_mirror_batches_before_training_align_from_the_start(angle, key):
    model = mlp(8, 20, 15, 4, key=key)
    learner = WeightMirror(initial_batches=300).init(model, key=key)
    assert angle(learner.memory[0], model.stages[1].weight) < 12
    assert angle(learner.memory[1], model.stages[2].weight) < 12


@pytest.mark.parametrize(
    ("argument", "value", "message"),
    [
        ("feedback_rate", 0.0, "feedback_rate must be a finite number above zero"),
        ("noise", -1.0, "noise must be a finite number above zero"),
        ("decay", -0.1, "decay must be a finite number, zero or above"),
        ("initial_batches", -1, "initial_batches must be an integer of at least 0"),
        ("init_feedback", "normal", "init_feedback='normal' is unknown; pass one of"),
    ],
)
def test_bad_settings_are_refused(argument, value, message):
    with pytest.raises(ValueError, match=message):
        WeightMirror(**{argument: value})


def test_a_recurrent_network_is_refused(key):
    with pytest.raises(TypeError, match="pass a chain without"):
        WeightMirror().init(elman(3, 4, 2, steps=5, key=key), key=key)
