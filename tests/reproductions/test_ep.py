"""What the experiments on equilibrium propagation share."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import anyprop as ap
from anyprop.reproductions import (
    Options,
    Reproduction,
    _ep,
    _ep_cifar,
    _ep_conv,
    _ep_convergent,
    _ep_mnist,
    _ep_mnist_2x500,
    _ep_mnist_3x500,
)


def test_every_stage_with_weights_has_its_own_rate(key):
    rule = ap.EquilibriumPropagation()
    learner = rule.init(ap.nets.mlp(4, 3, 2, activation="hard-sigmoid", key=key), key=key)
    optimizer = _ep.by_stage((0.5, 0.25))
    ones = jax.tree.map(jnp.ones_like, learner.params)
    updates, _ = optimizer.update(ones, optimizer.init(learner.params), learner.params)
    first, last = updates[0].chain.stages
    for site, rate in ((first, 0.5), (last, 0.25)):
        np.testing.assert_array_equal(site.weight, jnp.full_like(site.weight, -rate))
        np.testing.assert_array_equal(site.bias, jnp.full_like(site.bias, -rate))
    with pytest.raises(ValueError, match="3 rates for 2 stages"):
        _ep.by_stage((0.1, 0.1, 0.1)).init(learner.params)


def test_feedback_weights_have_the_rate_of_the_stage_whose_way_they_go_back(key):
    rule = ap.VectorFieldEquilibriumPropagation()
    params = rule.init(ap.nets.mlp(4, 3, 2, activation="hard-sigmoid", key=key), key=key).params
    optimizer = _ep.by_stage((0.5, 0.25))
    updates, _ = optimizer.update(jax.tree.map(jnp.ones_like, params), optimizer.init(params), params)
    np.testing.assert_array_equal(updates[0].feedback[0], jnp.full((3, 2), -0.25))


def test_a_net_is_trained_for_the_fewer_of_its_own_epochs_and_those_asked_for(key, tmp_path):
    x = np.asarray(jax.random.uniform(key, (60, 4)))
    y = np.asarray(x.argmax(1) % 2, np.int32)
    data = ap.data.load((x, y, x[:20], y[:20]))
    rule = ap.EquilibriumPropagation(0.5, nudged_steps=3, free_steps=40)
    net = partial(ap.nets.mlp, 4, 5, 2, activation="hard-sigmoid", output="hard-sigmoid")
    both = {name: _ep.Experiment(net, rule, (0.1, 0.1), epochs) for name, epochs in {"short": 1, "long": 9}.items()}
    reproduction = Reproduction("r", "t", (), (), 9, 1, 1.0, lambda options: ({}, {}))
    measured, details = _ep.trained(reproduction, Options(tmp_path, epochs=2), both, data)
    assert details["epochs"] == {"short": "1 of 1", "long": "2 of 9"}
    assert set(measured) == {f"{net} {split} error" for net in both for split in ("test", "training")}
    assert {"train_error", "test_error", "free_residual"} <= set(details["curves"]["long"][1])


@pytest.mark.parametrize(
    ("build", "shapes"),
    [
        (_ep_conv.mnist_net, [(12, 12, 32), (4, 4, 64), (10,)]),
        (_ep_cifar.net, [(16, 16, 128), (8, 8, 256), (4, 4, 512), (1, 1, 512), (10,)]),
    ],
)
def test_convolutional_nets_keep_the_state_of_pooled_units(build, shapes):
    model = ap.energies.Convergent(eqx.filter_eval_shape(build, jax.random.key(0)))
    start = eqx.filter_eval_shape(model.start, jax.ShapeDtypeStruct((2, *model.input_shape), jnp.float32))
    assert [s.shape[1:] for s in start] == shapes


def test_the_nets_for_colour_images_have_a_rate_for_each_layer():
    images = jnp.zeros((2, 32, 32, 3))
    for name, experiment in _ep_cifar.experiments(1280).items():
        model = experiment.rule.accept(experiment.net(key=jax.random.key(0)))
        assert eqx.filter_eval_shape(model, images).shape == (2, 10)
        params = eqx.filter(model, eqx.is_inexact_array)
        state = jax.eval_shape(_ep.by_stage(experiment.rates, experiment.optimizer).init, params)
        assert len(state.inner_states) == len(experiment.rates), name


def test_the_cost_pulls_at_the_state_of_an_output_and_not_at_its_rate(key):
    experiment = _ep_convergent.energy_based(5, 2, (0.1, 0.05), 1)
    state = [jnp.full((1, 512), 0.3), jnp.full((1, 10), 2.0)]
    np.testing.assert_array_equal(experiment.rule.accept(experiment.net(key)).output(state), state[-1])


def test_published_settings_of_hopfield_nets_are_told_in_the_units_of_the_cost(tmp_path, monkeypatch):
    seen = {}
    monkeypatch.setattr(_ep_mnist, "trained", lambda *arguments: seen.update(arguments[2]) or ({}, {}))
    for module in (_ep_mnist, _ep_mnist_2x500, _ep_mnist_3x500):
        module.REPRODUCTION.run(Options(tmp_path))
    assert list(seen) == ["784-500-10", "784-500-500-10", "784-500-500-500-10"]
    for (net, experiment), beta, first in zip(seen.items(), (1.0, 2.0, 2.0), (0.2, 0.8, 0.256), strict=True):
        assert (experiment.rule.beta, experiment.rates[0]) == (beta, first)
        assert len(experiment.rates) == net.count("-")
        assert experiment.net(key=jax.random.key(0)).output_shape == (10,)
