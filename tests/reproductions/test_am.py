"""The experiments on alternating minimisation: tuning looks at the validation split, every method is seen twice."""

import dataclasses
from functools import partial

import jax
import numpy as np
import optax
import pytest

import anyprop as ap
from anyprop.reproductions import Options, _am_binary, _tuning
from anyprop.reproductions import _am as am


@pytest.fixture
def clouds():
    """Examples of three classes, in clouds that overlap."""
    rng = np.random.default_rng(0)

    def draw(n):
        y = np.arange(n) % 3
        x = np.eye(4)[y] + 0.3 * rng.normal(size=(n, 4))
        return x.astype(np.float32), y.astype(np.int32)

    return {"train": draw(60), "validation": draw(30), "test": draw(30)}


NET = partial(ap.nets.mlp, 4, 5, 5, 3, activation="relu")


def few(*names):
    """Methods, with fewer settings to try."""
    return {name: dataclasses.replace(am.FULLY_CONNECTED[name], grid=(0.03,)) for name in names}


def test_a_study_measures_each_method(clouds, tmp_path):
    data, tuning = ap.data.load({k: clouds[k] for k in ("train", "test")}), ap.data.load(clouds)
    methods = few("am-adam", "adam", "sgd", "offline-am", "mac")
    measured, details = am.study(
        methods, NET, data, tuning, Options(tmp_path / "out"), epochs=2, seeds=2, batch_size=20
    )
    for name in methods:
        assert len(measured[f"{name} test error"]) == 2
        assert [point["epoch"] for point in details["curves"][name]] == [1, 2]
    watched = [name for name, method in methods.items() if not method.whole]
    assert set(details["first_pass"]) == set(watched)
    assert all(len(errors) == 3 for errors in details["first_pass"].values())
    assert {name: len(errors) for name, errors in details["last_layer_refitted"].items()} == {"mac": 2}
    own, other = measured["am-adam test error"], measured["sgd test error"]
    assert measured["am-adam test error less sgd's"] == [a - b for a, b in zip(own, other, strict=True)]
    assert (tmp_path / "out" / "first_pass.png").stat().st_size > 1000


def test_tuning_takes_the_setting_that_the_validation_split_prefers(clouds):
    method = _tuning.Method(lambda rate: ap.Backprop(), lambda rate, steps: optax.sgd(rate), (1e-6, 0.3))
    assert _tuning.tune(method, NET, ap.data.load(clouds), 10) == 0.3


def test_a_method_that_comes_apart_is_trained_at_the_next_smaller_setting():
    method, tried = _tuning.Method(lambda rate: ap.Backprop(), lambda rate, _: optax.sgd(rate), (0.1, 0.3, 1.0)), []

    def train(setting):
        tried.append(setting)
        if setting > finite:
            raise ap.training.Diverged("the loss became nan")
        return setting

    def worse(trained):
        return trained > falling

    finite, falling = 0.3, 0.1
    assert _tuning.at_most(method, 1.0, train, worse) == (0.1, 0.1)
    assert tried == [1.0, 0.3, 0.1]
    falling = 0.0
    assert _tuning.at_most(method, 0.3, train, worse) == (0.1, 0.1)
    finite = 0.0
    with pytest.raises(ap.training.Diverged):
        _tuning.at_most(method, 1.0, train, worse)


def test_a_training_comes_apart_whose_loss_ends_above_that_of_its_first_pass(clouds):
    class Climb(ap.Backprop):
        """Backprop that goes uphill."""

        def credit(self, learner, batch, *, key):
            credit = super().credit(learner, batch, key=key)
            return dataclasses.replace(credit, grads=jax.tree.map(lambda g: -g, credit.grads))

    train = partial(ap.compare, net=NET, data=ap.data.load(clouds), optimizer=optax.sgd(0.01), epochs=3, batch_size=20)
    assert not _tuning.rises(train([ap.Backprop()], seeds=2))
    assert _tuning.rises(train({"climb": Climb()}, seeds=2))


def test_rates_are_halved_by_passes():
    optimizer = am.halving(optax.sgd)(0.4, 10)
    state, steps = optimizer.init(np.zeros(1, np.float32)), []
    for _ in range(am.HALVED * 10 + 1):
        update, state = optimizer.update(np.ones(1, np.float32), state)
        steps.append(float(update[0]))
    assert steps[am.HALVED * 10 - 1] == pytest.approx(-0.4)
    assert steps[am.HALVED * 10] == pytest.approx(-0.2)


def test_epochs_until_an_error_are_counted_from_one():
    assert [_am_binary.epochs_until([0.3, 0.2, 0.25, 0.1], error) for error in (0.4, 0.2, 0.15)] == [1, 2, 4]
