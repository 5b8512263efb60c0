"""Boltzmann machines: systems of stochastic units that visit their states with probability exp(-E) / Z.

    p(s) = exp(-E(s)) / Z,    Z = sum_s exp(-E(s)),    s = (x, hidden units, y)

E is linear in every unit, so the field of a unit is -dE/ds, and its conditional distribution given all others is
known: Gibbs sampling draws from it, mean field takes its mean. The gradient of a log-likelihood is a difference of
mean energy gradients, with some units clamped to what was observed and with them released:

    -d log p(x, y) / dtheta = <dE/dtheta>_{x, y} - <dE/dtheta>
    -d log p(y|x) / dtheta  = <dE/dtheta>_{x, y} - <dE/dtheta>_x
"""

import abc
import math
from collections.abc import Collection
from typing import TypeVar

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, Shaped

from ..losses import targets
from ._relaxation import Dynamics, Relaxation, Settled
from ._units import Units

Machine = TypeVar("Machine", bound="BoltzmannMachine")
Group = Float[Array, "batch units"]
Groups = list[Float[Array, "batch _"]]

MOST_STATES = 2**20
"""As many states `log_partition` sums over, for each example."""


class BoltzmannMachine(eqx.Module):
    """A system of stochastic units in groups: the visible units x, groups of hidden ones, and perhaps a label y.

    A state is a list of arrays (batch, units), one a group: x first, then the hidden groups, and y last if there is
    one. y is a single choice, one of its units being 1.

    Called on x, it predicts: with a label, the logits of its classes; without, the log-odds of each visible unit
    being in its upper state (1, of 0 and 1 or of -1 and 1), given what the hidden units make of x.

    Subclass it for a machine with connections of another kind: `units`, `sizes`, `energy`,
    `sweep` and `isolated`.

    Args:
        labels: whether the last group is a label.
        relaxation: how mean field settles.
    """

    labels: eqx.AbstractVar[bool]
    relaxation: eqx.AbstractVar[Relaxation]

    @property
    @abc.abstractmethod
    def units(self) -> tuple[Units, ...]:
        """The kind of the units of each group."""

    @property
    @abc.abstractmethod
    def sizes(self) -> tuple[int, ...]:
        """How many units each group has."""

    @abc.abstractmethod
    def energy(self, state: Groups) -> Float[Array, " batch"]:
        """Return the energy of each example, linear in every unit."""

    @abc.abstractmethod
    def sweep(self, state: Groups, free: Collection[int], key: Key[Array, ""]) -> Groups:
        """Draw every unit of the free groups once, each given all the others: a sweep of Gibbs sampling.

        Args:
            state: the state.
            free: the numbers of the groups that are not clamped.
            key: random key.
        """

    @abc.abstractmethod
    def isolated(self: Machine, bias: Float[Array, " visible"] | None = None) -> Machine:
        """Return the machine without its connections: visible units with a bias, and nothing acting on any other.

        Args:
            bias: of the visible units; default: their own.
        """

    def free_energy(self, state: Groups) -> Float[Array, " batch"]:
        """Return -log sum exp(-E) over the groups that are summed over in closed form: here, none."""
        return self.energy(state)

    @property
    def input_shape(self) -> tuple[int]:
        """Shape of one x, without the batch axis."""
        return (self.sizes[0],)

    @property
    def output_shape(self) -> tuple[int]:
        """Shape of one prediction, without the batch axis."""
        return (self.sizes[self._answer],)

    @property
    def groups(self) -> tuple[int, ...]:
        """The numbers of all groups."""
        return tuple(range(len(self.sizes)))

    @property
    def hidden(self) -> tuple[int, ...]:
        """The numbers of the hidden groups."""
        return self.groups[1 : -1 if self.labels else None]

    @property
    def _answer(self) -> int:
        return -1 if self.labels else 0

    def fields(self, state: Groups) -> Groups:
        """Return -dE/ds: the log-odds of every unit, of binary ones, given all the others."""
        return jax.grad(lambda state: -jnp.sum(self.energy(state)))(state)

    def start(
        self,
        examples: int,
        *,
        x: Group | None = None,
        y: Shaped[Array, "batch ..."] | None = None,
        key: Key[Array, ""] | None = None,
    ) -> Groups:
        """Return a state to start from: what is given, and the other units as if nothing acted on them.

        Args:
            examples: how many examples.
            x: visible units to clamp.
            y: labels to clamp, integers or rows with a single one.
            key: random key, to draw the other units; default: their means.

        Raises:
            ValueError: x is out of the range of the visible units, or y is given to a machine without a label.
        """
        keys = [None] * len(self.sizes) if key is None else jax.random.split(key, len(self.sizes))
        dtype = jnp.result_type(*jax.tree.leaves(eqx.filter(self, eqx.is_inexact_array)))
        state = []
        for units, size, k in zip(self.units, self.sizes, keys, strict=True):
            field = jnp.zeros((examples, size), dtype)
            state.append(units.mean(field) if k is None else units.sample(field, k))
        if x is not None:
            check_range(x, self.units[0])
            state[0] = x
        if y is not None:
            if not self.labels:
                raise ValueError("y is given, but this machine has no label; pass one that was made with labels")
            state[-1] = targets(state[-1], y)
        return state

    def mean_field(self, x: Group, y: Shaped[Array, "batch ..."] | None = None) -> Settled:
        """Settle to the independent units that are nearest to p(h|x, y), or without y to p(h, y|x).

        Args:
            x: the visible units.
            y: labels, integers or rows with a single one; default: free.

        Returns:
            The means of all units, x and y included, and how the relaxation ended.
        """
        given, free = self.start(len(x), x=x, y=y), self._free(y)

        def answer(means: Groups) -> Groups:
            fields = self.fields(means)
            return [self.units[k].mean(fields[k]) if k in free else given[k] for k in self.groups]

        def velocity(means: Groups) -> Groups:
            return jax.tree.map(jnp.subtract, answer(means), means)

        return self.relaxation(Dynamics(velocity, lambda means: means, answer), given)

    def evidence(self, x: Group, y: Shaped[Array, "batch ..."] | None = None) -> Float[Array, " batch"]:
        """Return a lower bound of log sum_h exp(-E(x, h, y)) by mean field: log p(x, y) + log Z, or less.

        It is exact where the free units are independent, given x and y: with a single hidden layer, and y clamped.

        Args:
            x: the visible units.
            y: labels, integers or rows with a single one; default: summed over, as the hidden units are.
        """
        means = self.mean_field(x, y).state
        return sum((self.units[k].entropy(means[k]) for k in self._free(y)), -self.energy(means))

    def __call__(self, x: Float[Array, "batch visible"]) -> Float[Array, "batch answers"]:
        """Return the logits of the classes, or without a label those of the visible units, by mean field."""
        return self.answer(self.mean_field(x).state)

    def answer(self, state: Groups) -> Group:
        """Return the logits of the label, or without one of the visible units, given all the others."""
        return self.units[self._answer].logits(self.fields(state)[self._answer])

    def _free(self, y: object) -> tuple[int, ...]:
        """What mean field finds."""
        return self.hidden if y is not None or not self.labels else self.groups[1:]


def check_range(x: Group, units: Units) -> None:
    """Raise unless x, where its values are known, lies between the lower and the upper state of the units."""
    if isinstance(x, jax.core.Tracer):
        return
    # In NumPy, which looks at known values while the rest is traced; and asked this way round, for NaN is in no range.
    values, states = np.asarray(x), units.states(2)
    low, high = states.min(), states.max()
    if not np.all((values >= low) & (values <= high)):
        raise ValueError(
            f"x must be finite and lie between {low:g} and {high:g}, the lower and the upper state of the visible "
            "units; clip or scale it, or pass units of the other kind"
        )


def log_partition(
    machine: BoltzmannMachine,
    x: Group | None = None,
    y: Shaped[Array, "batch ..."] | None = None,
) -> Float[Array, " batch"]:
    """The logarithm of sum exp(-E) over all states that agree with what is given, exactly, one state after another.

    Use it to test, and on machines of up to some 16 free units. Its differences are the log-likelihoods, and their
    derivatives what sampling estimates:

        log p(x, y) = log_partition(machine, x, y) - log_partition(machine)
        log p(y|x)  = log_partition(machine, x, y) - log_partition(machine, x)

    Args:
        machine: the machine.
        x: visible units; default: summed over.
        y: labels, integers or rows with a single one; default: summed over.

    Returns:
        A number for each example; where nothing is given, an array with a single one.

    Raises:
        ValueError: there are more than 2^20 states to sum over.
    """
    examples = next((len(given) for given in (x, y) if given is not None), 1)
    clamped = machine.start(examples, x=x, y=y)
    given = {k for k, group in ((0, x), (machine.groups[-1], y)) if group is not None}
    free = [k for k in machine.groups if k not in given]
    states = math.prod(machine.units[k].count(machine.sizes[k]) for k in free)
    if states > MOST_STATES:
        raise ValueError(
            f"machine has {states:.2g} states to sum over, more than {MOST_STATES}; pass a smaller one, or choose "
            "diagnose.annealed_importance"
        )
    tables = {k: machine.units[k].states(machine.sizes[k]) for k in free}
    rows = np.indices([len(table) for table in tables.values()] + [1]).reshape(len(tables) + 1, -1)[:-1]
    listed = {k: jnp.asarray(t[r], clamped[k].dtype) for (k, t), r in zip(tables.items(), rows, strict=True)}

    def one(example: list[Float[Array, " _"]]) -> Float[Array, ""]:
        state = [listed[k] if k in listed else jnp.broadcast_to(s, (states, len(s))) for k, s in enumerate(example)]
        return jax.nn.logsumexp(-machine.energy(state))

    return jax.lax.map(one, clamped)
