"""Free energies: what a system in heat has in the place of a lowest energy.

    p(s) = e^{-E(s) / T} / Z,    A = -T log Z,    dA = E_p[dE]    for every change of the energy

Of a system with few states Z is their sum; of a quadratic energy it is known in closed form,

    E = 1/2 <s, K s> - <b, s> + c    =>    A = c - 1/2 <b, K^-1 b> + T/2 log det(K / 2 pi T)

Free energies link the expected cost of a state with the likelihood of the answer:

    phi(xi) = log E_p[e^{-xi C / T}] = -(A(E + xi C) - A(E)) / T

    xi -> 0      phi'(0) = -E_p[C] / T
    any xi       dphi/dtheta = -(E_{E + xi C}[dE/dtheta] - E_E[dE/dtheta]) / T
    xi -> inf    phi -> log p(C = 0), so dphi/dtheta -> + d log p(v)/dtheta if the cost is 0 in v alone

Source: Scellier and Bengio 2017 for what equilibrium propagation descends; Litman 2025.
"""

import abc
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_factor, cho_solve
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Inexact, PyTree

from .._checks import count, positive

Observable = Callable[[PyTree[Inexact[Array, "states ..."]]], Float[Array, " states"]]
"""A number of each state: an energy, a cost."""


class Ensemble(eqx.Module):
    """The states that a system may have, and how warm it is: exact means, for what sampling estimates.

    Args:
        temperature: T, in units of the energy; above 0.
    """

    temperature: float = eqx.field(static=True, default=1.0, kw_only=True)

    @abc.abstractmethod
    def free_energy(self, energy: Observable) -> Float[Array, ""]:
        """Return A; differentiate it for means of derivatives of the energy.

        Args:
            energy: states -> the energy of each.
        """

    def __check_init__(self):
        """Refuse a temperature that is not above 0."""
        positive("temperature", self.temperature)

    def mean(self, energy: Observable, observable: Observable) -> Float[Array, ""]:
        """Return E_p[O], the slope of the free energy of E + a O at a = 0.

        Args:
            energy: states -> the energy of each.
            observable: states -> O of each.
        """
        return jax.grad(lambda a: self.free_energy(lambda s: energy(s) + a * observable(s)))(0.0)

    def link(self, energy: Observable, cost: Observable, xi: ArrayLike) -> Float[Array, ""]:
        """Return phi(xi), which leads from the expected cost to the likelihood.

        -T phi / xi is the expected cost at xi -> 0, and falls to the lowest cost as xi -> inf. Where that is 0, phi
        becomes the log-likelihood of the states that have it.

        Args:
            energy: states -> the energy of each.
            cost: states -> C of each.
            xi: how much of the cost is added to the energy.
        """
        nudged = self.free_energy(lambda s: energy(s) + xi * cost(s))
        return (self.free_energy(energy) - nudged) / self.temperature


class Enumeration(Ensemble):
    """A system with so few states that they can be listed: up to some 16 binary units.

    Args:
        states: all states, on the first axis of each array; of binary units, `Binary().states(10)`.
        temperature: T, in units of the energy; above 0.

    Raises:
        ValueError: `temperature` is not above 0.
    """

    states: PyTree[Inexact[Array, "states ..."]]

    def free_energy(self, energy: Observable) -> Float[Array, ""]:
        """Return -T log sum_s e^{-E(s) / T}."""
        return -self.temperature * jax.nn.logsumexp(-energy(self.states) / self.temperature)

    def probabilities(self, energy: Observable) -> Float[Array, " states"]:
        """Return p of each state."""
        return jax.nn.softmax(-energy(self.states) / self.temperature)


class Gaussian(Ensemble):
    """Units without bounds whose energy is quadratic: their states are normally distributed.

    Observables may be quadratic too. What is not of this form is taken for its expansion around the origin. Where the
    energy has no minimum, everything is NaN.

    Args:
        units: number of units; a batch of states has the shape (states, units).
        temperature: T, in units of the energy; above 0.

    Raises:
        ValueError: a number is out of its range.
    """

    units: int = eqx.field(static=True)

    def __check_init__(self):
        """Refuse a number of units that is not positive."""
        count("units", self.units)

    def free_energy(self, energy: Observable) -> Float[Array, ""]:
        """Return c - 1/2 <b, K^-1 b> + T/2 log det(K / 2 pi T)."""
        stiffness, pull, offset = self._expand(energy)
        factor = cho_factor(stiffness / (2 * jnp.pi * self.temperature))
        log_det = 2 * jnp.sum(jnp.log(jnp.diagonal(factor[0])))
        rest = cho_solve(factor, pull) / (2 * jnp.pi * self.temperature)
        return offset - 0.5 * pull @ rest + 0.5 * self.temperature * log_det

    def _expand(self, energy: Observable) -> tuple[Array, Array, Array]:
        """K, b and c."""

        def of_one(s: Float[Array, " units"]) -> Float[Array, ""]:
            return energy(s[None])[0]

        origin = jnp.zeros(self.units)
        return jax.hessian(of_one)(origin), -jax.grad(of_one)(origin), of_one(origin)
