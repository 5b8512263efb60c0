import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

from anyprop.diagnose._parzen import parzen_log_likelihood


@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_it_is_the_likelihood_of_a_mixture_of_gaussians(x64, chunk):
    key_samples, key_x = jax.random.split(jax.random.key(0))
    samples, x = jax.random.normal(key_samples, (6, 2, 2)), jax.random.normal(key_x, (7, 2, 2))
    got = parzen_log_likelihood(samples, x, sigma=0.3, chunk=chunk)
    centres = np.asarray(samples).reshape(6, 4)
    logs = [[multivariate_normal.logpdf(one.ravel(), centre, 0.09) for centre in centres] for one in np.asarray(x)]
    assert got.shape == (7,)
    assert np.allclose(got, logsumexp(logs, axis=1) - np.log(6), rtol=1e-12)


def test_far_from_every_sample_it_is_finite():
    got = parzen_log_likelihood(jnp.zeros((3, 784)), jnp.ones((2, 784)), sigma=0.2)
    assert np.allclose(got, -784 / (2 * 0.04) - 392 * np.log(2 * np.pi * 0.04), rtol=1e-6)


@pytest.mark.parametrize(("argument", "value"), [("sigma", 0.0), ("chunk", 0)])
def test_bad_arguments_are_named(argument, value):
    with pytest.raises(ValueError, match=argument):
        parzen_log_likelihood(jnp.zeros((1, 2)), jnp.zeros((1, 2)), **{"sigma": 0.2, argument: value})
