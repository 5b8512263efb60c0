"""Layers on devices of their own: the same as one after the other, on any number of devices."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import optax
import pytest

from anyprop import nets
from anyprop.contract import Batch
from anyprop.rules.auxiliary import AlternatingMinimization
from anyprop.rules.exact import Backprop
from anyprop.training import _layer_parallel
from anyprop.training._layer_parallel import LayerParallel

STEPS = 4
RULE = AlternatingMinimization(mu=0.1, code_steps=2, code_rate=0.1, mu_increase=0.01, weight_sparsity=1e-3)
NETS = {
    "mlp": (functools.partial(nets.mlp, 6, 5, 4, 3), (6,)),
    "one layer": (functools.partial(nets.mlp, 6, 3), (6,)),
    "elman": (functools.partial(nets.elman, 2, 5, 3), (4, 2)),
}
OPTIMIZERS = {"sgd": optax.sgd(0.1, momentum=0.9), "adam": optax.adam(optax.exponential_decay(0.01, 2, 0.5))}


def batches(shape):
    keys = jax.random.split(jax.random.key(1), STEPS)
    return [Batch(jax.random.normal(k, (8, *shape)), jax.random.randint(k, (8,), 0, 3)) for k in keys]


def in_sequence(learner, optimizer, data):
    """The loop that everybody writes: all layers in one gradient."""
    opt_state, losses = optimizer.init(learner.params), []
    credit = eqx.filter_jit(RULE.credit)
    for batch in data:
        found = credit(learner, batch, key=jax.random.key(2))
        updates, opt_state = optimizer.update(found.grads, opt_state, learner.params)
        learner = learner.apply(updates, found.memory)
        losses.append(found.loss)
    return learner, losses


def in_parallel(learner, optimizer, data, devices):
    parallel = LayerParallel(RULE, learner, optimizer, devices=devices)
    state, losses = parallel.start, []
    for batch in data:
        state, loss = parallel.step(state, batch)
        losses.append(loss)
    return parallel, state, losses


@pytest.mark.parametrize(("net", "optimizer"), [("mlp", "adam"), ("one layer", "sgd"), ("elman", "sgd")])
def test_it_is_the_same_as_one_layer_after_the_other(net, optimizer, key):
    build, shape = NETS[net]
    data, start = batches(shape), RULE.init(build(key=key), key=key)
    expected, expected_losses = in_sequence(start, OPTIMIZERS[optimizer], data)
    parallel, state, losses = in_parallel(start, OPTIMIZERS[optimizer], data, jax.devices())
    reached = parallel.learner(state)
    assert jax.tree.structure(reached) == jax.tree.structure(expected)
    for a, b, old in zip(*map(jax.tree.leaves, (reached, expected, start)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)
        assert np.all(a != old) or a.ndim == 1
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-6)


def test_any_number_of_devices_gives_the_same(key):
    build, shape = NETS["mlp"]
    data, start = batches(shape), RULE.init(build(key=key), key=key)
    reached = []
    for count in (1, 2, 4):
        parallel, state, _ = in_parallel(start, OPTIMIZERS["adam"], data, jax.devices()[:count])
        assert [d.id for d in parallel.devices] == [l % count for l in range(3)]
        reached.append(jax.tree.leaves(parallel.learner(state)))
    for one, two, four in zip(*reached, strict=True):
        np.testing.assert_array_equal(one, two)
        np.testing.assert_array_equal(one, four)


def test_each_layer_and_its_optimizer_state_stay_on_their_device(key):
    build, shape = NETS["mlp"]
    start = RULE.init(build(key=key), key=key)
    parallel, state, _ = in_parallel(start, OPTIMIZERS["adam"], batches(shape), jax.devices())
    assert parallel.devices == jax.devices()[:3]
    for device, *layer in zip(parallel.devices, state.weights, state.opt_states, strict=True):
        assert [a.devices() for a in jax.tree.leaves(layer)] == [{device}] * len(jax.tree.leaves(layer))
    assert [a.devices() for a in jax.tree.leaves(parallel.learner(state))] == [{jax.devices()[0]}] * 7


def test_a_layer_computes_only_its_own_problem(key):
    """A layer's program takes no more operations in a deep net than the same layer does in a shallow one."""
    flops = []
    for sizes in ((6, 50, 3), (6, 50, 50, 3)):
        parallel = LayerParallel(RULE, RULE.init(nets.mlp(*sizes, key=key), key=key), optax.sgd(0.1))
        known = [jnp.zeros((8, n)) for n in sizes[:-1]] + [jnp.zeros(8, int)]
        read = [a if i < 2 else _layer_parallel._shape(a) for i, a in enumerate(known)]
        state = parallel.start
        compiled = _layer_parallel._update.lower(
            RULE, optax.sgd(0.1), state.weights[0], state.opt_states[0], parallel._rest[0], read
        ).compile()
        flops.append(compiled.compiled.cost_analysis()["flops"])
    assert flops[1] == pytest.approx(flops[0], rel=0.01)


def test_other_rules_are_refused(key, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # users run without the type checker
    net = nets.mlp(6, 5, 3, key=key)
    with pytest.raises(TypeError, match=r"rule must be an AlternatingMinimization.*not Backprop.*ap\.fit"):
        LayerParallel(Backprop(), Backprop().init(net, key=key), optax.sgd(0.1))
    by_part = optax.partition({"m": optax.sgd(0.1), "f": optax.sgd(0.1)}, ("m", "f"))
    for learner, optimizer, message in (
        (net, optax.sgd(0.1), r"learner must be what rule\.init.* not a Chain"),
        (Backprop().init(net, key=key), optax.sgd(0.1), "learner must be .* not another rule's"),
        (RULE.init(net, key=key), "adam", "optimizer must be one of Optax.*not 'adam'"),
        (RULE.init(net, key=key), by_part, "optimizer must take the arrays of one layer"),
    ):
        with pytest.raises(TypeError, match=message):
            LayerParallel(RULE, learner, optimizer)


def test_a_batch_that_does_not_fit_is_refused_before_it_is_compiled(key, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # users run without the type checker
    monkeypatch.setattr(_layer_parallel, "_move_codes", None)
    parallel = LayerParallel(RULE, RULE.init(nets.mlp(6, 5, 3, key=key), key=key), optax.sgd(0.1))
    x = jnp.zeros((4, 6))
    for batch, error, message in (
        (Batch(x, jnp.array([0, 1, 2, 3])), ValueError, r"labels must lie in 0 \.\. 2"),
        (Batch(x, jnp.zeros((4, 2))), ValueError, "width 2, but the network has 3"),
        (Batch(x, jnp.array([0, 1])), ValueError, "x holds 4 examples and y 2"),
        (Batch(x[:, 1:], jnp.zeros(4, int)), TypeError, r"cannot be called on a batch of shape \(4, 5\)"),
    ):
        with pytest.raises(error, match=message):
            parallel.step(parallel.start, batch)


def test_no_devices_are_refused(key):
    with pytest.raises(ValueError, match="devices is empty"):
        LayerParallel(RULE, RULE.init(nets.mlp(6, 5, 3, key=key), key=key), optax.sgd(0.1), devices=[])
