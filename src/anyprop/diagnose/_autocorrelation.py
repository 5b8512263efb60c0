"""How long a chain of samples remembers: the integrated autocorrelation time.

    tau = 1 + 2 sum_{t = 1 ... M} rho_t,    rho_t the autocorrelation at lag t,    M the first lag >= 5 tau(M)

n samples of a chain tell as much about a mean as n / tau independent ones. The sum stops at M because what follows is
noise (Sokal 1997).
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

WINDOW = 5
"""The sum goes to this many autocorrelation times."""


def autocorrelation_time(samples: Float[Array, "time *chains"]) -> Float[Array, ""]:
    """The integrated autocorrelation time of a quantity along a chain, in samples; 1 for independent ones.

    Use it to choose burn-in and thinning, and to see a sampler fail: as the weights of a Boltzmann machine grow, the
    time of its Gibbs chains grows steeply. Chains differ from each other when they are stuck in different places,
    which counts as memory too: pass several, from different starts. A time of more than a tenth of the chain's
    length is a lower bound rather than an estimate.

    Args:
        samples: the quantity, such as the energy of a state or the activity of a unit, at successive times; all
            further axes are chains of the same quantity.

    Returns:
        The time, infinite for a quantity that never changes.

    References:
        Sokal. Monte Carlo methods in statistical mechanics: foundations and new algorithms. In Functional
        Integration, 1997.
    """
    time = len(samples)
    deviation = (samples - jnp.mean(samples)).reshape(time, -1)
    # The correlation theorem; the padding keeps the end of a chain apart from its beginning.
    power = jnp.abs(jnp.fft.rfft(deviation, 2 * time, axis=0)) ** 2
    covariance = jnp.mean(jnp.fft.irfft(power, axis=0)[:time], axis=1)
    times = 2 * jnp.cumsum(covariance / covariance[0]) - 1
    inside = jnp.arange(time) >= WINDOW * times
    return jnp.where(covariance[0] > 0, times[jnp.where(jnp.any(inside), jnp.argmax(inside), time - 1)], jnp.inf)
