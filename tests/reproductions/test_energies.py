"""Experiments on systems that settle or sample: what they compute besides training, and that it is what they claim."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import anyprop as ap
from anyprop.energies import GradientFlow
from anyprop.reproductions import (
    Options,
    _boltzmann_mixing,
    _dbm_mnist,
    _ep_devices,
    _ep_stochastic,
    _pc_mnist,
    _rbm_mnist,
)


@pytest.fixture
def images(key):
    """Forty grey images of four pixels, the brighter of the first two their class."""
    x = np.asarray(jax.random.randint(key, (40, 4), 0, 256), np.uint8)
    y = (x[:, 1] > x[:, 0]).astype(np.int32)
    return ap.data.load((x, y, x[:20], y[:20]))


def test_predictive_coding_and_backprop_are_measured_alike(images, tmp_path, monkeypatch):
    monkeypatch.setattr(ap.data, "load", lambda *_, **__: images)
    monkeypatch.setattr(_pc_mnist, "partial", lambda build, *_, **options: partial(build, 4, 3, 2, **options))
    measured, details = _pc_mnist.run(Options(tmp_path, epochs=1, seeds=2))
    assert {claim.what for claim in _pc_mnist.REPRODUCTION.claims} <= set(measured)
    assert all(len(values) == 2 for values in measured.values())
    assert {name: len(curve) for name, curve in details["curves"].items()} == {"predictive-coding": 1, "backprop": 1}


def test_every_pixel_is_drawn_once_with_its_intensity(key):
    x = np.tile(np.asarray([[0, 64, 128, 255]], np.uint8), (4000, 1))
    y = np.zeros(4000, np.int32)
    drawn = _rbm_mnist.binary(ap.data.load((x, y, x, y)))
    for split in ("train", "test"):
        part = drawn.split(split)
        assert set(np.unique(part.x)) == {0, 255}
        np.testing.assert_array_equal(drawn.transform(part.x).reshape(4000, 4), part.y)
        np.testing.assert_allclose(part.y.mean(0), [0, 64 / 255, 128 / 255, 1], atol=0.03)


def test_likelihoods_of_boltzmann_machines_are_those_of_all_their_states(images, tmp_path, monkeypatch):
    monkeypatch.setattr(_rbm_mnist, "HIDDEN", 3)
    monkeypatch.setattr(_rbm_mnist, "BATCH", 20)
    binary, learnt = _rbm_mnist.binary(images), []
    monkeypatch.setattr(_rbm_mnist, "compare", lambda *a, **k: learnt.append(ap.compare(*a, **k)) or learnt[0])
    monkeypatch.setattr(_rbm_mnist, "RULES", {"CD-1": _rbm_mnist.RULES["CD-1"]})
    measured, _ = _rbm_mnist._run(binary, Options(tmp_path, epochs=1, seeds=1), 100)

    (site,), bias = (model := learnt[0].runs["CD-1"].learners[0].model).chain.stages, model.bias
    every = np.stack(np.meshgrid(*[[0.0, 1.0]] * 4, indexing="ij"), -1).reshape(-1, 4)

    def evidence(v):
        return v @ bias + jnp.sum(jax.nn.softplus(v @ site.weight + site.bias), axis=1)

    exact = jnp.mean(evidence(binary.split("test").y)) - jax.nn.logsumexp(evidence(every))
    assert measured["CD-1 negative log-likelihood"] == pytest.approx([-float(exact)], abs=0.05)


def test_a_deep_machine_is_held_against_a_restricted_one_with_as_many_passes(images, tmp_path, monkeypatch):
    for module in (_rbm_mnist, _dbm_mnist):
        monkeypatch.setattr(module, "HIDDEN", 3)
        monkeypatch.setattr(module, "BATCH", 20)
    monkeypatch.setattr(_dbm_mnist, "DEEPER", 2)
    runs = {}
    monkeypatch.setattr(_dbm_mnist, "fit", lambda *a, name, **k: runs.setdefault(name, ap.fit(*a, name=name, **k)))
    measured, _ = _dbm_mnist._run(_rbm_mnist.binary(images), Options(tmp_path, epochs=1, seeds=1), 50)
    assert {claim.what for claim in _dbm_mnist.REPRODUCTION.claims} <= set(measured)
    passes = {name: run.results["runs"][0]["epochs"][-1]["epoch"] for name, run in runs.items()}
    assert passes == {"restricted": 3, "deep": 1}  # and one pass for each of two layers
    (deep,), (restricted,) = (measured[f"{name} negative log-likelihood"] for name in ("deep", "restricted"))
    assert measured["deep less restricted"] == [deep - restricted]


def test_spins_without_couplings_forget_in_a_sweep_and_strong_couplings_do_not(key):
    @jax.jit
    def time(scale):
        machine = jax.tree.map(lambda leaf: scale * leaf, _boltzmann_mixing.restricted(key))
        return _boltzmann_mixing.mixing_time(machine, 300, key)

    assert time(0.0) == pytest.approx(1.0, abs=0.1)
    assert time(3.0) > 10


def test_mixing_is_measured_and_drawn_at_every_scale(tmp_path):
    measured, details = _boltzmann_mixing.run(Options(tmp_path, epochs=1, seeds=2))
    assert {claim.what for claim in _boltzmann_mixing.REPRODUCTION.claims} == set(measured)
    assert {name: np.shape(rows) for name, rows in details["autocorrelation_time"].items()} == {
        "restricted": (2, 6),
        "general": (2, 6),
    }
    assert (tmp_path / "times.png").stat().st_size > 10_000


def test_uneven_networks_differ_from_even_ones_in_nothing_but_their_units(x64):
    even, uneven = _ep_devices.hopfield(1), _ep_devices.uneven(1)
    leaves = (jax.tree.leaves(eqx.filter(net, eqx.is_array)) for net in (even, uneven))
    assert all(np.array_equal(a, b) for a, b in zip(*leaves, strict=True))
    s = jnp.linspace(-1, 2, 100)
    np.testing.assert_allclose(even.activations[0](s), ap.nets.ACTIVATIONS["steep-sigmoid"](s), atol=1e-12)
    assert 0.01 < jnp.abs(uneven.activations[0](s) - even.activations[0](s)).mean() < 0.3


def test_time_constants_change_the_way_to_rest_but_not_the_rest(x64, key):
    net = ap.energies.Hopfield(ap.nets.mlp(4, 3, 2, activation="tanh", output="tanh", key=key))
    x = jax.random.normal(key, (5, 4))

    @partial(jax.jit, static_argnums=0)
    def rest(steps):
        slow = _ep_devices.UnevenFlow(steps, 0.5, speeds=lambda: [np.full(3, 0.4), np.full(2, 1.5)])
        return [net.settle(x, relaxation=way).state for way in (GradientFlow(steps, 0.5), slow)]

    for same, (one, other) in ((False, rest(3)), (True, rest(400))):
        assert all(np.allclose(a, b, atol=1e-9) for a, b in zip(one, other, strict=True)) is same


def test_a_device_differs_from_its_kind_by_the_level_that_its_name_says():
    devices = {name: device for kind in _ep_devices.KINDS.values() for name, device in kind.devices.items()}
    for name, (usual, *others) in _ep_devices.LEVELS.items():
        for level, called in ((usual, name), *((level, f"{name} at {level:g}") for level in others)):
            build, parts = devices[called]
            assert (build.keywords["spread"] if name == "uneven units" else parts["mismatch"]) == level
    s = jnp.full(100, 0.5)
    rates = (_ep_devices.hopfield(0, spread).activations[0](s) for spread in (0.0, 0.1, 0.2))
    even, less, more = map(jax.scipy.special.logit, rates)
    np.testing.assert_allclose(more - even, 2 * (less - even), atol=1e-5)


def test_curves_go_from_the_lowest_level_to_the_highest():
    ways = {"ideal hopfield, trained there": [1.0], "ideal resistive, trained there": [2.0]}
    for name, (usual, *others) in _ep_devices.LEVELS.items():
        for level, called in ((usual, name), *((level, f"{name} at {level:g}") for level in others)):
            ways |= {f"{called}, deployed": [10 + level], f"{called}, trained there": [level]}
    found = _ep_devices.curves(ways)
    assert found["mismatched weights"] == {
        "ideal": [[1.0]] * 3,
        "deployed": [[10.2], [10.5], [11.0]],
        "on device": [[0.2], [0.5], [1.0]],
    }
    assert found["mismatched resistors"]["ideal"] == [[2.0]] * 3
    assert found["uneven units"]["on device"] == [[0.1], [0.2], [0.4]]


def test_every_device_is_held_against_the_ideal_and_against_what_was_deployed(images, tmp_path, monkeypatch):
    monkeypatch.setattr(ap.data, "load", lambda *_, **__: images)
    monkeypatch.setattr(_ep_devices, "SIZES", (4, 3, 2))
    monkeypatch.setattr(_ep_devices, "LEVELS", {"mismatched weights": (0.2, 1.0)})
    kind = _ep_devices.KINDS["hopfield"]
    devices = {name: kind.devices[name] for name in ("uneven units", "mismatched weights", "mismatched weights at 1")}
    monkeypatch.setattr(_ep_devices, "KINDS", {"hopfield": kind._replace(devices=devices)})
    measured, details = _ep_devices.run(Options(tmp_path, epochs=1, seeds=1))
    claimed = {claim.what for claim in _ep_devices.REPRODUCTION.claims}
    own_level = {"mismatched weights at 1: error on device less ideal"}
    assert set(measured) == {what for what in claimed if what.split(":")[0] in devices} | own_level
    errors = details["test errors"]
    for name in devices:
        (own,), (ideal,) = errors[f"{name}, trained there"], errors["ideal hopfield, trained there"]
        assert measured[f"{name}: error on device less ideal"] == [own - ideal]
    curve = details["levels"]["mismatched weights"]
    assert curve["level"] == [0.2, 1.0]
    assert curve["on device"] == [errors[f"{name}, trained there"][0] for name in list(devices)[1:]]
    assert (tmp_path / "levels.png").stat().st_size > 10_000


def test_what_the_enumeration_says_is_so(x64, key):
    found = jax.jit(_ep_stochastic.listed)(key)
    samples = found.pop("samples needed")
    assert all(samples[:-1] > samples[1:])  # the weaker the nudge, the more
    bounds = {"slope": (1 - 1e-9, 1 + 1e-9), "distance": (0, 1e-6), "rise": (1 - 1e-5, 1 + 1e-5), "error": (0.5, 2)}
    assert len(found) == len(bounds)
    for what, value in found.items():
        least, most = bounds[what.split()[0]]
        assert least <= value <= most, what
