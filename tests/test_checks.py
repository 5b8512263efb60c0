"""The checks of arguments."""

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

import anyprop as ap
from anyprop._checks import count, fraction, non_negative, positive

REAL = [np.float16, np.float32, np.float64, np.longdouble, np.int8, np.int64, np.uint32]
INTEGER = [np.int8, np.int32, np.int64, np.uint8, np.uint64]


@pytest.fixture(autouse=True)
def unchecked_types(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # users run without the type checker


@pytest.mark.parametrize("kind", REAL)
def test_numbers_of_numpy_are_numbers(kind):
    positive("mu", kind(1))
    non_negative("mu", kind(0))
    fraction("mu", kind(0))
    for check, value in ((positive, 0), (fraction, 1)):
        with pytest.raises(ValueError, match=r"mu must be .*, not np\.\w+\("):
            check("mu", kind(value))


@pytest.mark.parametrize("kind", INTEGER)
def test_integers_of_numpy_are_integers(kind):
    count("steps", kind(1))
    count("steps", kind(0), least=0)
    with pytest.raises(ValueError, match="steps must be an integer of at least 3"):
        count("steps", kind(2), least=3)


@pytest.mark.parametrize("value", [np.float32("nan"), np.float32("inf"), np.float16(-1), np.int64(-1)])
def test_numbers_of_numpy_out_of_range(value):
    for check in (positive, non_negative):
        with pytest.raises(ValueError, match="mu must be a finite number"):
            check("mu", value)
    with pytest.raises(ValueError, match="mu must be at least 0"):
        fraction("mu", value)


@pytest.mark.parametrize("value", [True, np.True_, 2.0, np.float32(2), "2"])
def test_what_is_no_integer(value):
    with pytest.raises(ValueError, match="steps must be an integer"):
        count("steps", value)


@pytest.mark.parametrize("array", [np.array(1.0), jnp.array(1.0), np.array([1])])
def test_of_an_array_an_error_says_what_to_pass(array):
    for check in (positive, non_negative, fraction, count):
        with pytest.raises(ValueError, match=r"mu must be .*rray\(.*; pass a Python number, not an array"):
            check("mu", array)


def test_a_rule_with_numbers_of_numpy_gives_the_same_update(key):
    model = ap.nets.mlp(4, 5, 3, key=key)
    batch = ap.Batch(jax.random.normal(key, (6, 4)), jnp.arange(6) % 3)
    ours = ap.AlternatingMinimization(mu=0.5, code_rate=0.25)
    theirs = ap.AlternatingMinimization(**{"mu": np.float32(0.5), "code_rate": np.float64(0.25)})
    credit = jax.jit(lambda rule: rule.credit(rule.init(model, key=key), batch, key=key).grads[0], static_argnums=0)
    for a, b in zip(jax.tree.leaves(credit(ours)), jax.tree.leaves(credit(theirs)), strict=True):
        np.testing.assert_array_equal(a, b)
