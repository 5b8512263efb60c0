"""Stochastic units: what a Boltzmann machine is made of.

A group of units with the fields a has the states s with probability exp(<s, a>) / sum_s exp(<s, a>). The logarithm
of that sum has the mean of s as its derivative.

    units     states             log_sum              mean
    Binary    {0, 1}^n           sum softplus(a)      sigmoid(a)
    Spin      {-1, 1}^n          sum log 2 cosh(a)    tanh(a)
    OneOf     one of n is 1      logsumexp(a)         softmax(a)
"""

import abc
import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import entr
from jaxtyping import Array, Float, Key

Fields = Float[Array, "*batch units"]


class Units(eqx.Module):
    """A group of units that do not act on each other, other than by excluding each other's states."""

    @abc.abstractmethod
    def log_sum(self, a: Fields) -> Float[Array, "*batch"]:
        """Return log sum_s exp(<s, a>), over all states of the group."""

    @abc.abstractmethod
    def mean(self, a: Fields) -> Fields:
        """Return the mean of the states."""

    @abc.abstractmethod
    def field(self, mean: Fields) -> Fields:
        """Return a field that has this mean."""

    @abc.abstractmethod
    def sample(self, a: Fields, key: Key[Array, ""]) -> Fields:
        """Draw the states."""

    @abc.abstractmethod
    def entropy(self, mean: Fields) -> Float[Array, "*batch"]:
        """Return the entropy of the group, in nats, from its mean."""

    @abc.abstractmethod
    def logits(self, a: Fields) -> Fields:
        """Return the log-odds of each unit's upper state; of a choice, the logarithms of its odds."""

    @abc.abstractmethod
    def count(self, units: int) -> int:
        """Return how many states so many units have."""

    @abc.abstractmethod
    def states(self, units: int) -> np.ndarray:
        """Return every state of so many units, one a row."""


class Binary(Units):
    """Units that are 0 or 1."""

    def log_sum(self, a: Fields) -> Float[Array, "*batch"]:
        """Return sum softplus(a)."""
        return jnp.sum(jax.nn.softplus(a), axis=-1)

    def mean(self, a: Fields) -> Fields:
        """Return sigmoid(a)."""
        return jax.nn.sigmoid(a)

    def field(self, mean: Fields) -> Fields:
        """Return log(mean / (1 - mean))."""
        return jnp.log(mean) - jnp.log1p(-mean)

    def sample(self, a: Fields, key: Key[Array, ""]) -> Fields:
        """Draw 1 with probability sigmoid(a), else 0."""
        return jax.random.bernoulli(key, jax.nn.sigmoid(a)).astype(a.dtype)

    def entropy(self, mean: Fields) -> Float[Array, "*batch"]:
        """Return -sum p log p + (1 - p) log(1 - p)."""
        return jnp.sum(entr(mean) + entr(1 - mean), axis=-1)

    def logits(self, a: Fields) -> Fields:
        """Return a."""
        return a

    def count(self, units: int) -> int:
        """Return 2^units."""
        return 2**units

    def states(self, units: int) -> np.ndarray:
        """Return all patterns of 0 and 1."""
        return np.array(list(itertools.product((0.0, 1.0), repeat=units)))


class Spin(Units):
    """Units that are -1 or 1."""

    def log_sum(self, a: Fields) -> Float[Array, "*batch"]:
        """Return sum log 2 cosh(a)."""
        return jnp.sum(jnp.logaddexp(a, -a), axis=-1)

    def mean(self, a: Fields) -> Fields:
        """Return tanh(a)."""
        return jnp.tanh(a)

    def field(self, mean: Fields) -> Fields:
        """Return artanh(mean)."""
        return jnp.arctanh(mean)

    def sample(self, a: Fields, key: Key[Array, ""]) -> Fields:
        """Draw 1 with probability sigmoid(2 a), else -1."""
        return 2 * Binary().sample(2 * a, key) - 1

    def entropy(self, mean: Fields) -> Float[Array, "*batch"]:
        """Return the entropy of units that are 1 with probability (1 + mean) / 2."""
        return Binary().entropy((1 + mean) / 2)

    def logits(self, a: Fields) -> Fields:
        """Return 2 a."""
        return 2 * a

    def count(self, units: int) -> int:
        """Return 2^units."""
        return 2**units

    def states(self, units: int) -> np.ndarray:
        """Return all patterns of -1 and 1."""
        return 2 * Binary().states(units) - 1


class OneOf(Units):
    """Units of which always one is 1 and the others are 0: a label."""

    def log_sum(self, a: Fields) -> Float[Array, "*batch"]:
        """Return logsumexp(a)."""
        return jax.nn.logsumexp(a, axis=-1)

    def mean(self, a: Fields) -> Fields:
        """Return softmax(a)."""
        return jax.nn.softmax(a)

    def field(self, mean: Fields) -> Fields:
        """Return log(mean)."""
        return jnp.log(mean)

    def sample(self, a: Fields, key: Key[Array, ""]) -> Fields:
        """Draw one unit with the probabilities softmax(a)."""
        return jax.nn.one_hot(jax.random.categorical(key, a), a.shape[-1], dtype=a.dtype)

    def entropy(self, mean: Fields) -> Float[Array, "*batch"]:
        """Return -sum p log p."""
        return jnp.sum(entr(mean), axis=-1)

    def logits(self, a: Fields) -> Fields:
        """Return a."""
        return a

    def count(self, units: int) -> int:
        """Return `units`."""
        return units

    def states(self, units: int) -> np.ndarray:
        """Return the rows of the identity."""
        return np.eye(units)
