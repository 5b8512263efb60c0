"""Lee et al. 2015 through signs and Bernoulli units: a small run of both experiments."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import anyprop as ap
from anyprop.nets import mlp
from anyprop.reproductions import Options, _dtp_discrete, _dtp_stochastic


@pytest.fixture(autouse=True)
def small_data(monkeypatch):
    """Images of 28 x 28 pixels and 3 classes, whatever is asked for."""
    key_x, key_y = jax.random.split(jax.random.key(0))
    x = np.asarray(jax.random.randint(key_x, (200, 28, 28, 1), 0, 256), np.uint8)
    y = np.asarray(jax.random.randint(key_y, (200,), 0, 3), np.int32)
    small = ap.data.load((x, y, x[:50], y[:50]))
    monkeypatch.setattr(ap.data, "load", lambda *_, **__: small)


def test_a_small_run_through_signs(tmp_path, monkeypatch):
    monkeypatch.setattr(_dtp_discrete, "continuous", partial(mlp, 784, 6, 6, 3))
    # That nothing below the sign learns is what makes backprop a baseline here.
    with pytest.warns(ap.training.RuleWarning, match="backprop: no error passes a sign"):
        measured, details = _dtp_discrete.run(Options(tmp_path, epochs=1, seeds=2))
    assert {claim.what for claim in _dtp_discrete.REPRODUCTION.claims} <= set(measured)
    assert all(len(values) == 2 for values in measured.values())
    assert len(details["continuous"]) == 2
    ratios = measured["discrete-target-propagation error over that of backprop"]
    errors = zip(
        measured["discrete-target-propagation test error"], measured["backprop test error"], ratios, strict=True
    )
    assert all(own == ratio * other for own, other, ratio in errors)


def test_the_sign_is_put_behind_the_first_layer(key):
    model = mlp(4, 5, 6, 3, key=key)
    x = jax.random.normal(key, (7, 4))
    first, second, third = model.stages
    assert jnp.allclose(_dtp_discrete.with_sign(model)(x), third(second(jnp.sign(first(x)))), rtol=1e-6)


def test_a_small_run_through_random_bits(tmp_path, monkeypatch):
    monkeypatch.setattr(_dtp_stochastic, "NET", partial(mlp, 784, 6, 6, 3, activation="sigmoid"))
    monkeypatch.setattr(_dtp_stochastic, "CHUNK", 20)
    measured, details = _dtp_stochastic.run(Options(tmp_path, epochs=1, seeds=2))
    assert set(measured) == {claim.what for claim in _dtp_stochastic.REPRODUCTION.claims}
    assert all(len(values) == 2 for values in measured.values())
    assert set(details["mean_field"]) == {"stochastic-target-propagation test error", "straight-through test error"}


def test_the_baseline_hears_the_same_noise(key):
    """On a silent input, a net of one layer answers with its weighted noise."""
    rule = _dtp_stochastic.NoisyStraightThrough("derivative", stochastic=True)
    learner = rule.init(mlp(4, 2, key=key), key=key)
    output = rule.credit(learner, ap.Batch(jnp.zeros((20_000, 4)), jnp.zeros(20_000, int)), key=key).output
    expected = 0.3 * np.linalg.norm(np.asarray(learner.model.stages[0].weight), axis=0)
    np.testing.assert_allclose(output.std(0), expected, rtol=0.03)
