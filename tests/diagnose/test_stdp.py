import jax
import numpy as np
import pytest
from jax.scipy.stats import norm

from anyprop.diagnose import stdp_signature


@pytest.fixture(scope="module")
def signature():
    return jax.tree.map(np.asarray, stdp_signature(key=jax.random.key(0), pairs=400_000))


def expected(low, high):
    """E[v] over the intervals of a bin: for v > 0, v times the share of distances that put d / v into it."""
    v = np.linspace(0, 8, 200_001)[1:]
    share = np.clip(high * v, 0, 1) - np.clip(low * v, 0, 1)
    return np.sum(v * share * norm.pdf(v)) / np.sum(share * norm.pdf(v))


def test_the_change_is_the_mean_slope_in_every_bin(signature):
    for interval, change, error in zip(signature.interval, signature.change, signature.error, strict=True):
        exact = np.sign(interval) * expected(abs(interval) - 0.25, abs(interval) + 0.25)
        assert abs(change - exact) < 4 * error < 0.05 * abs(exact)


def test_it_shows_the_published_shape(signature):
    later, earlier = signature.change[10:], -signature.change[9::-1]
    np.testing.assert_allclose(signature.interval[10:], 0.25 + 0.5 * np.arange(10), rtol=1e-6)
    for side in (later, earlier):
        np.testing.assert_allclose(side[[0, 1, 2, 3, 4, 9]], [1.22, 0.85, 0.54, 0.38, 0.30, 0.14], atol=0.01)
        assert np.all(np.diff(side) < 0)
    np.testing.assert_allclose(later, earlier, atol=4 * np.hypot(signature.error[10:], signature.error[9::-1]).max())


def test_pairs_beyond_the_bins_are_left_out(signature):
    few = stdp_signature(key=jax.random.key(0), pairs=400_000, bins=2, width=0.5)
    np.testing.assert_array_equal(few.pairs, signature.pairs[8:12])
    np.testing.assert_allclose(few.change, signature.change[8:12], rtol=1e-5)


def test_bins_with_too_few_pairs_say_so():
    found = stdp_signature(key=jax.random.key(0), pairs=2, bins=50, width=0.1)
    assert found.pairs.sum() <= 2
    np.testing.assert_array_equal(np.isnan(found.change), found.pairs == 0)
    np.testing.assert_array_equal(np.isnan(found.error), found.pairs < 2)


@pytest.mark.parametrize("bad", [{"pairs": 1}, {"bins": 0}, {"width": 0.0}, {"width": -0.5}])
def test_numbers_out_of_range_are_refused(bad, key):
    with pytest.raises(ValueError, match=next(iter(bad))):
        stdp_signature(key=key, **bad)
