import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

import anyprop as ap
from anyprop.diagnose import bench, cost


def problem(key):
    x = jax.random.normal(key, (6, 5))
    return ap.nets.mlp(5, 4, 3, key=key), ap.Batch(x, jnp.arange(6) % 3)


def test_cost_leaves_the_learner_alone(key):
    net, batch = problem(key)
    rule = ap.Backprop()
    learner = rule.init(net, key=key)
    before = jax.tree.map(jnp.array, eqx.filter(net, eqx.is_array))
    found = cost(rule, learner, batch, key=key, repeats=2)
    assert found.steps_per_second > 0
    assert eqx.tree_equal(before, eqx.filter(learner.model, eqx.is_array))


def test_flops_count_the_matrix_products(key):
    rule = ap.Backprop()
    batch = ap.Batch(jax.random.normal(key, (64, 100)), jnp.arange(64) % 10)
    learner = rule.init(ap.nets.mlp(100, 200, 10, key=key), key=key)
    found = cost(rule, learner, batch, key=key, repeats=1)
    products = 2 * 64 * (2 * 100 * 200 + 3 * 200 * 10)
    assert found.flops is not None
    assert products < found.flops < 1.1 * products
    assert found.bytes is not None
    assert found.bytes > 4 * (100 * 200 + 200 * 10)


def test_bench_is_relative_to_backprop(key):
    net, batch = problem(key)
    rules = {"mine": ap.FeedbackAlignment(), "reference": ap.Backprop()}
    table = bench({n: (r, r.init(net, key=key)) for n, r in rules.items()}, batch, key=key, rounds=2)
    assert list(table) == ["mine", "reference"]
    assert set(table["mine"]) == {"steps_per_second", "ratio_to_backprop", "flops", "bytes"}
    assert table["reference"]["ratio_to_backprop"] == 1
    assert table["mine"]["ratio_to_backprop"] > 0


def test_bench_without_backprop_has_no_ratio(key):
    net, batch = problem(key)
    rule = ap.FeedbackAlignment()
    table = bench({"mine": (rule, rule.init(net, key=key))}, batch, key=key, rounds=1)
    assert table["mine"]["ratio_to_backprop"] is None


def test_rounds_are_checked(key):
    _, batch = problem(key)
    with pytest.raises(ValueError, match="rounds"):
        bench({}, batch, key=key, rounds=0)
