"""A small network of conductance-based leaky integrate-and-fire units.

In each layer, with conductances in units of the leak's,

    tau_m dV_i/dt = (V_leak - V_i) + g_i (V_exc - V_i) + k_i (V_inh - V_i),   spike and reset at V_i >= V_th
    g_i = sum_j s_j max(W_ji, 0) + xi_i,     k_i = sum_j s_j max(-W_ji, 0) + zeta_i
    tau_s ds_j/dt = -s_j + (spikes of j) / r_0

A weight is an excitatory synapse where it is positive and an inhibitory one where it is negative. s_j is
the activation of unit j's synapses: its mean is the unit's firing rate in units of r_0 = 100 Hz. xi and
zeta are fluctuations of the two conductances, 0 unless a rule gives them.
"""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from .._checks import count

# Potentials in mV and times in ms, in the range that cortical neurons are modelled with.
LEAK, EXCITATORY, INHIBITORY = -70.0, 0.0, -80.0
THRESHOLD, RESET = -54.0, -70.0
TAU_MEMBRANE, TAU_SYNAPSE = 20.0, 10.0
STEP = 1.0
UNIT_RATE = 0.1  # r_0, spikes per ms


class SpikingNetwork(eqx.Module):
    """Layers of leaky integrate-and-fire units with excitatory and inhibitory conductances.

    `SpikingNetwork(2, 10, 1, key=key)(x)` presents constant input rates for the duration of a trial and
    returns the mean firing rates of the last layer. Rates, in and out, are in units of 100 Hz, from 0 to
    10. Without fluctuations the network is deterministic, and its output moves in steps of one spike a
    trial, so it has no useful derivative: train it with `ConductancePerturbation`.

    Args:
        sizes: units of each layer, input and output included; at least two.
        duration: length of a trial in ms, simulated in steps of 1 ms.
        key: random key for the weights.

    Raises:
        ValueError: fewer than two sizes, or a size or `duration` that is not a positive integer.
    """

    weights: tuple[Float[Array, "_ _"], ...]
    duration: int = eqx.field(static=True)

    def __init__(self, *sizes: int, duration: int = 200, key: Key[Array, ""]):
        if len(sizes) < 2:
            raise ValueError(f"sizes={sizes} must name the input and the output at least, such as 2, 10, 1")
        for size in sizes:
            count("sizes", size)
        count("duration", duration)
        # A silent unit cannot learn, since small fluctuations do not make it fire. With a mean of 1 / n inputs
        # of 100 Hz open a conductance as large as the leak, three times what the threshold takes, and with
        # this spread no output was silent for all inputs in 120 networks of up to three layers, while the
        # rates stayed near 100 Hz at every depth.
        self.weights = tuple(
            1 / n + 0.25 * jax.random.normal(k, (n, m)) / jnp.sqrt(n)
            for n, m, k in zip(sizes, sizes[1:], jax.random.split(key, len(sizes) - 1), strict=False)
        )
        self.duration = duration

    @property
    def input_shape(self) -> tuple[int]:
        """Shape of one example's input, without the batch axis."""
        return (self.weights[0].shape[0],)

    def __call__(self, x: Float[Array, "batch features"]) -> Float[Array, "batch outputs"]:
        """Return the mean firing rates of the last layer, in units of 100 Hz.

        Args:
            x: input rates, zero or above, in units of 100 Hz.
        """
        return self.simulate(x, [jnp.zeros((self.duration, 2, 1, 1), x.dtype)] * len(self.weights))[0]

    def simulate(
        self, x: Float[Array, "batch features"], fluctuations: Sequence[Float[Array, "time 2 _ _"]]
    ) -> tuple[Float[Array, "batch outputs"], tuple[Float[Array, "time batch _"], ...]]:
        """Run one trial whose conductances fluctuate.

        Args:
            x: input rates, zero or above, in units of 100 Hz.
            fluctuations: for each layer, what is added at each ms to its excitatory (xi) and inhibitory
                (zeta) conductances, in units of the leak's.

        Returns:
            The mean firing rates of the last layer, and what drove each layer: the synaptic activations s
            of the layer below at each ms.
        """
        decay = jnp.exp(-STEP / TAU_SYNAPSE)

        def step(state: list[tuple[Array, Array]], now: list[Array]) -> tuple[list, tuple]:
            s, spikes, new, below = x, None, [], []
            for weight, (v, own), (xi, zeta) in zip(self.weights, state, now, strict=True):
                below.append(s)
                g = jax.nn.relu(s @ jax.nn.relu(weight) + xi)  # a conductance is never negative
                k = jax.nn.relu(s @ jax.nn.relu(-weight) + zeta)
                total = 1 + g + k
                steady = (LEAK + g * EXCITATORY + k * INHIBITORY) / total
                # The exact solution over a step of constant conductances, stable for weights of any size.
                v = steady + (v - steady) * jnp.exp(-total * STEP / TAU_MEMBRANE)
                spikes = (v >= THRESHOLD).astype(x.dtype)
                v = jnp.where(spikes > 0, RESET, v)
                s = decay * own + (1 - decay) * spikes / (UNIT_RATE * STEP)
                new.append((v, s))
            # The input is constant, so only what the layers themselves send is kept over time.
            return new, (spikes, below[1:])

        def rest(weight: Array) -> tuple[Array, Array]:
            zero = jnp.zeros((x.shape[0], weight.shape[1]), x.dtype)
            return zero + LEAK, zero

        _, (spikes, hidden) = jax.lax.scan(step, [rest(w) for w in self.weights], list(fluctuations))
        driving = (jnp.broadcast_to(x, (self.duration, *x.shape)), *hidden)
        return spikes.mean(0) / (UNIT_RATE * STEP), driving
