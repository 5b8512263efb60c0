"""The deep nets of Lee et al. 2015: their optimizer, and a small run of both experiments."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

import anyprop as ap
from anyprop.reproductions import Options, _dtp, _dtp_cifar, _dtp_deep_mnist


def test_the_first_step_is_that_of_centred_rmsprop():
    """-rate g / sqrt(0.05 g^2 - (0.05 g)^2 + 1e-3)."""
    optimizer = _dtp.rmsprop(0.1)
    g = jnp.array([0.5, -2.0])
    updates, _ = optimizer.update(g, optimizer.init(g))
    np.testing.assert_allclose(updates, -0.1 * g / np.sqrt(0.05 * g**2 - (0.05 * g) ** 2 + 1e-3), rtol=1e-5)


def test_a_small_run(key, tmp_path, monkeypatch):
    key_x, key_y = jax.random.split(key)
    x = np.asarray(jax.random.normal(key_x, (200, 8)))
    y = np.asarray(jax.random.randint(key_y, (200,), 0, 3), np.int32)
    data = ap.data.load((x, y, x[:50], y[:50]))
    monkeypatch.setattr(ap.data, "load", lambda *_, **__: data)
    monkeypatch.setattr(_dtp_deep_mnist, "partial", lambda build, *_, **options: partial(build, 8, 6, 6, 3, **options))
    measured, details = _dtp_deep_mnist.run(Options(tmp_path, epochs=1, seeds=1))
    assert set(measured) == {claim.what for claim in _dtp_deep_mnist.REPRODUCTION.claims}
    passes = {name: [point["epoch"] for point in curve] for name, curve in details["curves"].items()}
    assert passes == {"difference-target-propagation": [1, 2], "backprop": [1]}
    assert all({"train_error", "test_error"} <= set(point) for curve in details["curves"].values() for point in curve)


def test_cifar_is_reported_as_accuracy_at_rates_that_are_tuned(tmp_path, monkeypatch):
    errors = {"difference-target-propagation test error": [49.0, 50.0], "backprop test error": [46.0]}
    given = []
    monkeypatch.setattr(ap.data, "load", lambda *_, **split: split)
    monkeypatch.setattr(_dtp_cifar, "tuned", lambda methods, net, tuning, *_: dict.fromkeys(methods, len(tuning)))
    monkeypatch.setattr(_dtp_cifar, "against_backprop", lambda *arguments: given.extend(arguments) or (errors, {}))
    measured, _ = _dtp_cifar.run(Options(tmp_path))
    assert measured == {
        "difference-target-propagation test accuracy": [51.0, 50.0],
        "backprop test accuracy": [54.0],
    }
    assert set(measured) == {claim.what for claim in _dtp_cifar.REPRODUCTION.claims}
    *_, trained_on, methods, rates = given
    assert trained_on == {}  # no image is held out any more
    assert methods is _dtp_cifar.METHODS
    assert rates == {"difference-target-propagation": 2, "backprop": 2}
