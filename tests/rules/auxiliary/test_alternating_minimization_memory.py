from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from anyprop.contract import Batch
from anyprop.nets import Activate, Chain, Conv, Dense, Flatten, Norm, Pool, Residual, Series, elman, mlp, sites
from anyprop.rules.auxiliary import AlternatingMinimizationMemory
from anyprop.rules.auxiliary._codes import Moments, encode
from anyprop.rules.exact import Backprop
from anyprop.testing._case import blobs


def examples(key, model, count=30):
    x = jax.random.normal(key, (count, *model.input_shape))
    return Batch(x, jnp.arange(count) % model.output_shape[-1])


@eqx.filter_jit
def credit(rule, learner, batch):
    return rule.credit(learner, batch, key=jax.random.key(0))


@eqx.filter_jit
def moved_codes(rule, model, batch):
    return rule.update_codes(model, batch, encode(model, batch.x)[0], rule.mu)


def after(learner, credit):
    optimizer = optax.sgd(1.0)
    updates, _ = optimizer.update(credit.grads, optimizer.init(learner.params), learner.params)
    return learner.apply(updates, credit.memory)


def with_bias(site):
    return np.vstack([site.weight, site.bias])


def test_the_solution_is_the_least_squares_fit_of_all_codes_so_far(x64):
    """B A^-1 of two batches, made by two networks, is the fit of the codes of both."""
    model = mlp(4, 6, 5, 3, key=jax.random.key(0))
    rule = AlternatingMinimizationMemory(solver="solve", ridge=1e-10)
    learner = rule.init(model, key=jax.random.key(0))
    inputs, codes = ([], []), ([], [])
    for seed in range(2):
        batch = examples(jax.random.key(seed), model)
        moved = moved_codes(rule, learner.model, batch)
        for l, a in enumerate([batch.x, jnp.tanh(moved[0])]):
            inputs[l].append(np.hstack([a, np.ones((30, 1))]))
            codes[l].append(np.asarray(moved[l]))
        learner = after(learner, credit(rule, learner, batch))
    for l, site in enumerate(sites(learner.model)[:2]):
        expected, *_ = np.linalg.lstsq(np.vstack(inputs[l]), np.vstack(codes[l]))
        np.testing.assert_allclose(with_bias(site), expected, rtol=1e-6, atol=1e-8)


def convolutional(key):
    """Two convolutions, of which the second has no bias and a stride, on images that are not square."""
    one, two, three, four = jax.random.split(key, 4)
    return Chain(
        [
            Conv(2, 3, 3, padding=1, activation="relu", key=one),
            Pool("max", 2),
            Conv(3, 4, 2, stride=2, padding="VALID", bias=False, key=two),
            Activate("sign"),
            Flatten(),
            Dense(8, 5, activation="tanh", key=three),
            Dense(5, 3, key=four),
        ],
        input_shape=(4, 8, 2),
    )


NETS = [convolutional, lambda key: elman(3, 4, 3, steps=5, key=key)]


@pytest.mark.parametrize("build", NETS, ids=["convolutional", "elman"])
def test_each_solution_is_the_minimum_of_the_objective(x64, build):
    """The rule's own objective knows nothing of matrices: its slope vanishes in every hidden weight."""
    model = build(jax.random.key(0))
    batch = examples(jax.random.key(1), model, count=60)
    rule = AlternatingMinimizationMemory(solver="solve", ridge=1e-10)
    codes = moved_codes(rule, model, batch)
    learner = rule.init(model, key=jax.random.key(0))
    learner = after(learner, credit(rule, learner, batch))
    slope = eqx.filter_jit(eqx.filter_grad(rule.objective))
    for before, now in zip(*(sites(slope(m, batch, codes, 1.0))[:-1] for m in (model, learner.model)), strict=True):
        for old, new in zip(jax.tree.leaves(before), jax.tree.leaves(now), strict=True):
            assert jnp.linalg.norm(new) < 1e-6 * jnp.linalg.norm(old)


def problem(key):
    one, two, three = jax.random.split(key, 3)
    a, c = jax.random.normal(one, (40, 6)), jax.random.normal(two, (40, 3))
    return Moments(a.T @ a / 40, a.T @ c / 40), jax.random.normal(three, (6, 3))


def test_a_pass_goes_over_the_columns_one_by_one(x64):
    moments, weight = problem(jax.random.key(0))
    ridge = 0.1
    A, B = np.asarray(moments.A) + ridge * np.eye(6), np.asarray(moments.B + ridge * weight)
    W = np.array(weight)
    for _ in range(2):
        for j in range(6):
            W[j] += (B[j] - A[j] @ W) / A[j, j]
    rule = AlternatingMinimizationMemory(passes=2, ridge=ridge)
    np.testing.assert_allclose(rule.solution(moments, weight), W, rtol=1e-10)


def test_a_sparse_pass_shrinks_each_column_after_its_own_step(x64):
    moments, weight = problem(jax.random.key(0))
    ridge, shrink = 0.1, 0.05
    A, B = np.asarray(moments.A) + ridge * np.eye(6), np.asarray(moments.B + ridge * weight)
    W = np.array(weight)
    for _ in range(2):
        for j in range(6):
            moved = W[j] + (B[j] - A[j] @ W) / A[j, j]
            W[j] = np.sign(moved) * np.maximum(np.abs(moved) - (shrink if j < 5 else 0), 0)
    rule = AlternatingMinimizationMemory(passes=2, ridge=ridge, weight_sparsity=shrink)
    np.testing.assert_allclose(rule.solution(moments, weight, bias=True), W, rtol=1e-10)


def test_sparse_passes_converge_to_the_penalised_solution(x64):
    """The gradient of tr(W^T A W) - 2 tr(W^T B) is minus the penalty's: 2 s A_jj, or less where the weight is zero."""
    moments, W = problem(jax.random.key(0))
    once = jax.jit(AlternatingMinimizationMemory(ridge=1e-12, weight_sparsity=0.1).solution)
    for _ in range(200):
        W = once(moments, W)
    pull = moments.residual(W) / jnp.diag(moments.A)[:, None]
    assert 0 < jnp.sum(W == 0) < W.size
    np.testing.assert_allclose(pull[W != 0], 0.1 * jnp.sign(W[W != 0]), rtol=1e-6)
    assert jnp.all(jnp.abs(pull[W == 0]) <= 0.1)


def test_mu_grows_and_codes_follow_the_present_one(x64):
    model = mlp(4, 5, 3, key=jax.random.key(0))
    batch = examples(jax.random.key(1), model)
    rule = AlternatingMinimizationMemory(mu=0.5, mu_increase=0.25, mu_max=0.875)
    learner = rule.init(model, key=jax.random.key(0))
    seen = []
    for _ in range(3):
        found = credit(rule, learner, batch)
        learner = eqx.tree_at(lambda l: l.memory[0], learner, found.memory[0])
        seen.append(found.metrics)
    assert [m["mu"] for m in seen] == [0.5, 0.75, 0.875]
    assert seen[0]["code_shift"] > seen[1]["code_shift"] > seen[2]["code_shift"]


def test_passes_converge_to_the_solution(x64):
    moments, weight = problem(jax.random.key(0))
    exact = np.linalg.solve(moments.A, moments.B)
    rules = [AlternatingMinimizationMemory(passes=passes, ridge=1e-12) for passes in (1, 5, 100)]
    errors = [np.linalg.norm(rule.solution(moments, weight) - exact) / np.linalg.norm(exact) for rule in rules]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 1e-9
    exactly = AlternatingMinimizationMemory(solver="solve", ridge=1e-12).solution(moments, weight)
    np.testing.assert_allclose(exactly, exact, rtol=1e-9)


@pytest.mark.parametrize("solver", ["columns", "solve"])
def test_weights_from_silent_units_stay(key, solver):
    model = mlp(5, 4, 3, activation="relu", key=key)
    batch = examples(key, model)
    batch = Batch(batch.x.at[:, 2].set(0.0), batch.y)
    rule = AlternatingMinimizationMemory(solver=solver)
    grads = credit(rule, rule.init(model, key=key), batch).grads[0]
    np.testing.assert_allclose(sites(grads)[0].weight[2], 0.0, atol=1e-6)
    assert jnp.all(jnp.any(jnp.abs(jnp.delete(sites(grads)[0].weight, 2, axis=0)) > 1e-5, axis=1))


def test_a_long_memory_of_inputs_that_depend_on_each_other_is_solved_in_single_precision(key):
    """Five of sixty directions: what the rounding of a large sum hides, a ridge of 1e-3 does not restore."""
    one, two, three = jax.random.split(key, 3)
    a = jax.random.normal(one, (200, 5)) @ jax.random.normal(two, (5, 60))
    wanted = jax.random.normal(three, (60, 3))
    A = 1000 * a.T @ a / len(a)
    found = Moments(A, A @ wanted).near(jnp.zeros((60, 3)), 1e-3).solve()
    np.testing.assert_allclose(a @ found, a @ wanted, atol=0.01 * float(jnp.abs(a @ wanted).max()))


def test_memory_is_a_sum_that_forgets(x64):
    model = mlp(4, 5, 3, key=jax.random.key(0))
    batches = [examples(jax.random.key(seed), model) for seed in range(2)]
    rule = AlternatingMinimizationMemory(forgetting=0.25)
    learner = rule.init(model, key=jax.random.key(0))
    assert not any(map(np.any, jax.tree.leaves(learner.memory[1])))
    expected = np.zeros((5, 5))
    for batch in batches:
        learner = eqx.tree_at(lambda l: l.memory, learner, credit(rule, learner, batch).memory)
        a = np.hstack([batch.x, np.ones((30, 1))])
        expected = 0.75 * expected + a.T @ a / 30
    np.testing.assert_allclose(learner.memory[1][0].A, expected, rtol=1e-12)


def test_without_a_hidden_layer_it_is_gradient_descent(x64):
    model = mlp(4, 3, key=jax.random.key(0))
    batch = examples(jax.random.key(1), model)
    rule = AlternatingMinimizationMemory(output_rate=0.3)
    found, exact = (credit(r, r.init(model, key=jax.random.key(0)), batch) for r in (rule, Backprop()))
    np.testing.assert_allclose(found.grads[0].stages[0].weight, 0.3 * exact.grads[0].stages[0].weight, rtol=1e-12)


@pytest.mark.parametrize("solver", ["columns", "solve"])
@pytest.mark.parametrize(
    "build",
    [partial(mlp, 5, 8, 8, 3, activation="relu"), partial(mlp, 5, 8, 8, 3, activation="relu", bias=False), *NETS],
    ids=["bias", "no-bias", "convolutional", "elman"],
)
def test_sgd_of_rate_one_learns(key, solver, build):
    model = build(key=key)
    # Five time steps tell an Elman net classes in clouds, but not labels at random.
    batch = blobs(key, model) if build in NETS else examples(key, model)
    rule = AlternatingMinimizationMemory(solver=solver, forgetting=0.5)
    learner = rule.init(model, key=key)

    @eqx.filter_jit
    def step(learner):
        found = credit(rule, learner, batch)
        return after(learner, found), found.loss

    losses = []
    for _ in range(20):
        learner, loss = step(learner)
        losses.append(loss)
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("solver", "rows"),
        ("passes", 0),
        ("forgetting", 1.0),
        ("ridge", 0.0),
        ("output_rate", 0.0),
        ("mu", -1.0),
        ("mu_max", 0.01),
        ("weight_sparsity", -0.1),
    ],
)
def test_bad_hyperparameters(argument, value):
    with pytest.raises((ValueError, TypeError), match=argument):
        AlternatingMinimizationMemory(**{argument: value})


def test_an_exact_solution_is_not_shrunk():
    with pytest.raises(ValueError, match=r"weight_sparsity=0.1 .* pass solver='columns'"):
        AlternatingMinimizationMemory(solver="solve", weight_sparsity=0.1)


@pytest.mark.parametrize(
    "between",
    [
        Norm(5, activation="relu"),
        Series((Activate("tanh"), Norm(5), Dense(5, 5, key=jax.random.key(1)))),
        Residual([Dense(5, 5, key=jax.random.key(1))]),
    ],
)
def test_hidden_layers_that_it_cannot_solve_for(key, between):
    stages = between.stages if isinstance(between, Series) else (between,)
    model = Chain([Dense(4, 5, key=key), *stages, Dense(5, 3, key=key)])
    with pytest.raises(TypeError, match="choose AlternatingMinimization"):
        AlternatingMinimizationMemory().init(model, key=key)
