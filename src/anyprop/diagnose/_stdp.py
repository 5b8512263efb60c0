"""Spike-timing-dependent plasticity: the signature that a rule of rates leaves in the times of spikes.

A weight that learns by the rate of its input times the change of its output,

    dW_ij ~ rho(s_j) d rho(s_i)/dt                    j before the synapse, i behind it

changes, spike by spike of the input, by the slope v of the output's potential. Let such a spike come at time 0, when
the potential lies a distance d below the threshold. On a straight course it is at the threshold at

    Delta T = d / v

ahead if it rises, which is the output's next spike, and in the past if it falls, which was its last one. An output
that spikes soon after the input rises steeply, and one that spiked just before it falls steeply. For v ~ N(0, 1) and
d ~ U(0, 1), with phi and Phi the density and the distribution of v, the mean of dW = v over pairs of spikes that
lie Delta T apart is

    E[v | Delta T] = sgn(Delta T) (Phi(c) - 1/2 - c phi(c)) / (phi(0) - phi(c)),   c = 1 / |Delta T|

which falls from 1.25 for spikes that coincide to 2 c / 3 for those far apart.

Source: Xie and Seung 1999 for slopes behind the curve; Bengio, Mesnard, Fischer, Zhang and Wu 2017.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from .._checks import count, positive


class STDPSignature(eqx.Module):
    """The mean change of a weight against the time between two spikes, one entry a bin.

    Args:
        interval: Delta T = t_post - t_pre, the middle of the bin. The unit of time is that in which a potential of
            unit slope crosses the range of distances from the threshold.
        change: the mean of dW, in standard deviations of the slope; NaN in a bin without pairs.
        error: its standard error; NaN in a bin with fewer than two pairs.
        pairs: pairs of spikes in the bin.
    """

    interval: Float[Array, " bins"]
    change: Float[Array, " bins"]
    error: Float[Array, " bins"]
    pairs: Int[Array, " bins"]


def stdp_signature(*, key: Key[Array, ""], pairs: int = 1_000_000, bins: int = 10, width: float = 0.5) -> STDPSignature:
    """Simulate spikes on either side of a synapse, and average its change by the time between them.

    Use it to see that a weight that follows its input's rate times its output's slope shows the curve that Bi and
    Poo measured: it grows where the output spikes after the input and shrinks where it spiked before, the more the
    closer the two.

    Args:
        key: random key for slopes and distances.
        pairs: pairs of spikes to draw, at least 2; nine in ten of them fall into the default bins.
        bins: bins on each side of an interval of 0, at least 1.
        width: width of a bin, in the unit of time of `STDPSignature.interval`, above 0.

    Raises:
        ValueError: a number is out of its range.

    References:
        Bengio, Mesnard, Fischer, Zhang & Wu. STDP-compatible approximation of backpropagation in an energy-based
        model. Neural Computation, 2017.
        Bi & Poo. Synaptic modification by correlated activity: Hebb's postulate revisited. Annual Review of
        Neuroscience, 2001.
    """
    count("pairs", pairs, least=2)
    count("bins", bins)
    positive("width", width)
    return _simulate(key, pairs, bins, width)


@eqx.filter_jit
def _simulate(key: Key[Array, ""], pairs: int, side: int, width: float) -> STDPSignature:
    key_slope, key_distance = jax.random.split(key)
    slope = jax.random.normal(key_slope, (pairs,))
    distance = jax.random.uniform(key_distance, (pairs,))
    interval = distance / slope

    bins = 2 * side
    own = jnp.floor(interval / width) + side
    own = jnp.where((own >= 0) & (own < bins), own, bins).astype(int)  # the rest go into a bin that is left out

    def total(values: Float[Array, " pairs"]) -> Float[Array, " bins_and_rest"]:
        return jnp.zeros(bins + 1).at[own].add(values)

    number = total(jnp.ones(pairs))
    mean = total(slope) / number
    squares = total((slope - mean[own]) ** 2)
    error = jnp.where(number > 1, jnp.sqrt(squares / (number - 1) / number), jnp.nan)
    middle = width * (jnp.arange(bins) - side + 0.5)
    return STDPSignature(middle, mean[:-1], error[:-1], number[:-1].astype(int))
