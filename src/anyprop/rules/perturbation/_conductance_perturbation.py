"""Conductance perturbation: node perturbation for spiking networks.

Each neuron i has an excitatory and an inhibitory "empiric" synapse, whose conductances fluctuate by
xi_i(t) and zeta_i(t) ~ N(0, sigma^2), and each of its plastic synapses collects, over a trial of length T,

    e_ij = sum_t xi_i(t) s_ij(t)       where the synapse is excitatory (W_ij > 0)
    e_ij = -sum_t zeta_i(t) s_ij(t)    where it is inhibitory

with s_ij the activation of the synapse. At the end of the trial comes the reward, minus the cost C, less
its running mean, and the synapse moves by it, dW up the cost,

    R = mean(C) - C,   dW_ij = -R e_ij / sigma^2.

The kernel of the eligibility is flat over the trial, because the reward judges the whole of it.

Source: Fiete and Seung 2006.

Exact limit: E[dW] is the gradient of the cost averaged over the fluctuations, spikes and all: the
conductances are Gaussian given the past, and e / sigma^2 is the derivative of their log-probability. The
baseline changes the variance and not the mean: it comes from earlier batches, and is zero on the first.
"""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Key, PyTree

from ..._checks import fraction, positive
from ...contract import Batch, Card, Credit, DataInfo, Learner, Needs, Rule
from ...nets import SpikingNetwork
from ._stochastic import RunningMean


class ConductancePerturbation(Rule):
    """Conductance perturbation: spiking neurons correlate fluctuations of their conductance with reward.

    Use it to train a `SpikingNetwork`, which has no useful derivative. It takes one noisy trial for each
    example, whose cost and rates it reports; the variance grows with the neurons and the length of the
    trial, so expect thousands of trials even on small problems.

    Args:
        sigma: standard deviation of the fluctuation of a conductance in each ms, in units of the leak
            conductance. Large enough to move spikes, since a unit that has fallen silent cannot learn; at
            0.3 the membrane fluctuates by about 3 mV.
        baseline_decay: how much of the running mean of the reward is kept from one batch to the next.
        loss: the cost of the firing rates, in units of 100 Hz, by name or as a `Loss`.

    Raises:
        ValueError: `sigma` is not above zero, or `baseline_decay` is not in [0, 1).

    References:
        Fiete & Seung. Gradient learning in spiking neural networks by dynamic perturbation of
        conductances. Physical Review Letters, 2006.
    """

    sigma: float = 0.3
    baseline_decay: float = 0.9

    card: ClassVar[Card] = Card(
        name="Conductance perturbation",
        family="perturbation",
        needs=Needs.SPIKING,
        source=("fiete2006",),
        dossier=("S06",),
        local=True,
        weight_transport=False,
        phases=1,
        derivatives=False,
        limit="the gradient of the cost averaged over the noise, in the mean over trials",
    )

    def __check_init__(self):
        """Refuse hyper-parameters that have no meaning."""
        positive("sigma", self.sigma)
        fraction("baseline_decay", self.baseline_decay)

    def accept(self, model: PyTree) -> PyTree:
        """Return `model` if it is a `SpikingNetwork`.

        Raises:
            TypeError: it is not; the message says what to pass instead.
        """
        if not isinstance(model, SpikingNetwork):
            raise TypeError(
                f"ConductancePerturbation needs a spiking network, but model is a {type(model).__name__}; "
                "pass ap.nets.SpikingNetwork(2, 10, 1, key=key), or choose NodePerturbation, which perturbs "
                "the units of any chain"
            )
        return super().accept(model)

    def init(self, model: PyTree, *, data: DataInfo | None = None, key: Key[Array, ""]) -> Learner:
        """Start the running mean of the cost, of which the baseline of the reward is the negative."""
        del data, key
        return Learner(self.accept(model), memory=RunningMean(jnp.zeros(()), jnp.zeros(())))

    def credit(self, learner: Learner, batch: Batch, *, key: Key[Array, ""]) -> Credit:
        """Return the eligibilities weighed by the reward of one noisy trial an example."""
        net: SpikingNetwork = learner.model
        examples, time = batch.x.shape[0], net.duration
        keys = jax.random.split(key, len(net.weights))
        fluctuations = [
            self.sigma * jax.random.normal(k, (time, 2, examples, w.shape[1]), w.dtype)
            for k, w in zip(keys, net.weights, strict=True)
        ]
        rates, driving = net.simulate(batch.x, fluctuations)

        cost = self.loss(rates, batch.y)
        reward = learner.memory.value - cost
        share = -reward / (self.sigma**2 * examples)

        def update(weight: Array, s: Array, noise: Array) -> Array:
            excitatory, inhibitory = jnp.einsum("tbi,tcbo,b->cio", s, noise, share)
            return jnp.where(weight > 0, excitatory, -inhibitory)

        updates = tuple(map(update, net.weights, driving, fluctuations))
        grads = eqx.tree_at(lambda n: n.weights, eqx.filter(net, eqx.is_inexact_array), updates)
        memory = learner.memory.after(self.baseline_decay, cost, jnp.ones_like(cost))
        return Credit(jnp.mean(cost), rates, (grads, None), memory)
