import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from anyprop.contract import Batch, DataInfo
from anyprop.nets import Chain, Conv, Dense, Flatten, Norm, elman, mlp, sites
from anyprop.rules.auxiliary import OfflineAlternatingMinimization
from anyprop.rules.auxiliary._codes import encode
from anyprop.testing._case import blobs

EXAMPLES = 30


def examples(key, model):
    x = jax.random.normal(key, (EXAMPLES, *model.input_shape))
    return Batch(x, jnp.arange(EXAMPLES) % model.output_shape[-1], jnp.arange(EXAMPLES))


def start(rule, model):
    x, y = jax.ShapeDtypeStruct(model.input_shape, float), jax.ShapeDtypeStruct((), int)
    return rule.init(model, data=DataInfo(EXAMPLES, x, y), key=jax.random.key(0))


@eqx.filter_jit
def credit(rule, learner, batch):
    return rule.credit(learner, batch, key=jax.random.key(0))


def after(learner, credit):
    optimizer = optax.sgd(1.0)
    updates, _ = optimizer.update(credit.grads, optimizer.init(learner.params), learner.params)
    return learner.apply(updates, credit.memory)


def test_no_iteration_raises_the_objective(x64):
    model = mlp(5, 6, 6, 3, activation="relu", key=jax.random.key(0))
    batch = examples(jax.random.key(1), model)
    rule = OfflineAlternatingMinimization(mu=0.5, code_rate=0.01, output_rate=0.05)
    learner = start(rule, model)

    @eqx.filter_jit
    def iterate(learner):
        found = credit(rule, learner, batch)
        learner = after(learner, found)
        ended = rule.objective(learner.model, batch, learner.memory[1][0], rule.mu)
        return learner, found.loss, found.metrics["objective"], ended

    losses, objectives = [], [np.inf]
    for _ in range(30):
        learner, loss, with_old_weights, ended = iterate(learner)
        losses.append(float(loss))
        objectives += [float(with_old_weights), float(ended)]
    assert np.all(np.diff(objectives) <= 0)
    assert losses[-1] < 0.8 * losses[0]


def test_hidden_weights_fit_the_codes(x64):
    model = mlp(5, 6, 4, 3, key=jax.random.key(0))
    batch = examples(jax.random.key(1), model)
    rule = OfflineAlternatingMinimization(ridge=1e-10)
    learner = start(rule, model)
    learner = after(learner, credit(rule, learner, batch))
    _, (codes, _) = learner.memory
    for site, a, c in zip(sites(learner.model), [batch.x, np.tanh(codes[0])], codes, strict=False):
        expected, *_ = np.linalg.lstsq(np.hstack([a, np.ones((EXAMPLES, 1))]), np.asarray(c))
        np.testing.assert_allclose(np.vstack([site.weight, site.bias]), expected, rtol=1e-6, atol=1e-8)


def test_an_example_keeps_its_codes(x64):
    """Codes start at those of a forward pass, and where they were left after that; other rows are left alone."""
    model = mlp(5, 6, 4, 3, key=jax.random.key(0))
    whole = examples(jax.random.key(1), model)
    rule = OfflineAlternatingMinimization()
    learner = start(rule, model)
    index = jnp.array([7, 2, 11])
    batch = Batch(whole.x[index], whole.y[index], index)
    codes, _ = encode(model, batch.x)
    for _ in range(2):
        codes = eqx.filter_jit(rule.update_codes)(model, batch, codes, rule.mu)
        found = credit(rule, learner, batch)
        learner = eqx.tree_at(lambda l: l.memory, learner, found.memory)
        _, (kept, visited) = learner.memory
        for rows, code in zip(kept, codes, strict=True):
            np.testing.assert_allclose(rows[index], code, rtol=1e-12)
            assert not np.any(np.delete(rows, index, axis=0))
        assert sorted(np.flatnonzero(visited)) == [2, 7, 11]


def test_mu_grows_with_each_iteration(x64):
    model = mlp(5, 6, 3, key=jax.random.key(0))
    batch = examples(jax.random.key(1), model)
    rule = OfflineAlternatingMinimization(mu=0.5, mu_increase=0.25, mu_max=0.625)
    first = credit(rule, start(rule, model), batch)
    second = credit(rule, eqx.tree_at(lambda l: l.memory[0], start(rule, model), first.memory[0]), batch)
    assert [first.metrics["mu"], second.metrics["mu"]] == [0.5, 0.625]
    assert second.metrics["code_shift"] < first.metrics["code_shift"]


def test_data_and_index_must_be_known(key):
    model = mlp(5, 4, 3, key=key)
    rule = OfflineAlternatingMinimization()
    with pytest.raises(ValueError, match="data is missing"):
        rule.init(model, key=key)
    batch = examples(key, model)
    with pytest.raises(ValueError, match=r"batch\.index is missing"):
        rule.credit(start(rule, model), Batch(batch.x, batch.y), key=key)


@pytest.mark.parametrize(("argument", "value"), [("ridge", 0.0), ("output_rate", -1.0), ("code_rate", 0.0)])
def test_bad_hyperparameters(argument, value):
    with pytest.raises(ValueError, match=argument):
        OfflineAlternatingMinimization(**{argument: value})


def convolutional(key):
    one, two = jax.random.split(key)
    return Chain([Conv(1, 2, 3, activation="tanh", key=one), Flatten(), Dense(32, 3, key=two)], input_shape=(4, 4, 1))


@pytest.mark.parametrize(
    "build", [convolutional, lambda key: elman(3, 4, 3, steps=5, key=key)], ids=["convolutional", "elman"]
)
def test_codes_of_places_and_of_time_steps_are_kept_and_fitted(x64, build):
    model = build(jax.random.key(0))
    batch = blobs(jax.random.key(1), model)
    rule = OfflineAlternatingMinimization(ridge=1e-10)
    learner, losses = start(rule, model), []
    for _ in range(10):
        found = credit(rule, learner, batch)
        learner, (_, (codes, visited)) = after(learner, found), found.memory
        losses.append(found.loss)
    assert visited[: len(batch.x)].all()
    assert losses[-1] < 0.8 * losses[0]
    codes = [rows[batch.index] for rows in codes]
    for slope in jax.tree.leaves(sites(eqx.filter_grad(rule.objective)(learner.model, batch, codes, 1.0))[:-1]):
        assert jnp.abs(slope).max() < 1e-6


def test_it_refuses_normalised_layers(key):
    model = Chain([Dense(4, 5, key=key), Norm(5, activation="relu"), Dense(5, 3, key=key)])
    with pytest.raises(TypeError, match="choose AlternatingMinimization"):
        start(OfflineAlternatingMinimization(), model)
