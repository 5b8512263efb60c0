"""A device made of imperfect parts: the effective parameters are not the ones that were programmed.

    theta_effective = q(theta) exp(m xi) (1 + n zeta)

q rounds to the levels that can be programmed. xi ~ N(0, I) is drawn once for a device, and zeta ~ N(0, I) whenever it
settles. The trainer sees states and what the parameters' own circuits measure, never theta_effective.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key, PyTree

from .._checks import count, non_negative
from ._device import Device, Nudge
from ._energy import Energy
from ._relaxation import Relaxation, Settled, State


class SimulatedDevice(Device):
    """An energy built of imperfect parts, to train as hardware would be: by what can be measured from outside.

    Use it to find out what imperfections cost. A network that was trained as the ideal system and is then deployed,
    `device.programmed(network)`, has to live with them; one that is trained on the device learns around them. What
    training moves are the programmed values: `write_conductances` adds what happens to them when they are written.
    What a parameter's circuit measures is the ideal system's dE/dtheta, in the state of the real one.

    A plain call, as in evaluation and in `WeightPerturbation`, is the device without the noise of the moment.

    Args:
        system: the ideal system, with the parameters to program. It settles by its own relaxation.
        mismatch: m, relative error of each parameter, fixed for a device, log-normal; 0 or above.
        parameter_noise: n, standard deviation of the relative noise of each parameter, drawn anew for each phase;
            0 or above.
        state_noise: standard deviation of the noise in each unit's state as it is read, in units of the state; 0
            or above.
        levels: how many values a parameter can be programmed to, evenly from `least` to `most`; at least 2. By
            default any value whatever.
        least: the lowest level.
        most: the highest level.
        key: random key of the mismatch: with another key it is another device of the same production.

    Raises:
        TypeError: `system` is no energy.
        ValueError: a number is out of its range.

    References:
        Kendall, Pantone, Manickavasagam, Bengio & Scellier. Training end-to-end analog neural networks with
        equilibrium propagation. arXiv:2006.01981, 2020.
    """

    system: Energy
    mismatch: float = eqx.field(static=True)
    parameter_noise: float = eqx.field(static=True)
    state_noise: float = eqx.field(static=True)
    levels: int | None = eqx.field(static=True)
    least: float = eqx.field(static=True)
    most: float = eqx.field(static=True)
    _errors: PyTree[Int[Array, "..."]]

    def __init__(
        self,
        system: Energy,
        *,
        mismatch: float = 0.0,
        parameter_noise: float = 0.0,
        state_noise: float = 0.0,
        levels: int | None = None,
        least: float = 0.0,
        most: float = 1.0,
        key: Key[Array, ""],
    ):
        if not isinstance(system, Energy):
            raise TypeError(
                f"system must be an energies.Energy, not {type(system).__name__}; read a chain as one, such as "
                "energies.Hopfield(chain)"
            )
        non_negative("mismatch", mismatch)
        non_negative("parameter_noise", parameter_noise)
        non_negative("state_noise", state_noise)
        if levels is not None:
            count("levels", levels, least=2)
            if not least < most:
                raise ValueError(f"least={least!r} must be below most={most!r}")
        self.system, self.mismatch, self.parameter_noise, self.state_noise = (
            system,
            mismatch,
            parameter_noise,
            state_noise,
        )
        self.levels, self.least, self.most = levels, least, most
        parameters = eqx.filter(system, eqx.is_inexact_array)
        drawn = optax.tree.random_like(key, parameters)
        # Kept as integers of the same bits: a floating-point array would be one more parameter to train.
        self._errors = jax.tree.map(lambda xi: _bits(jnp.exp(mismatch * xi)), drawn)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input, without the batch axis, where the system says it."""
        return self.system.input_shape  # pyright: ignore[reportAttributeAccessIssue]

    def programmed(self, system: Energy) -> "SimulatedDevice":
        """Return this device, programmed with the parameters of another system.

        Args:
            system: parameters of the same shapes; nothing else is taken from it.

        Raises:
            ValueError: its parameters have other shapes.
        """
        own, rest = eqx.partition(self.system, eqx.is_inexact_array)
        values = jax.tree.leaves(eqx.filter(system, eqx.is_inexact_array))
        there, here = ([value.shape for value in leaves] for leaves in (values, jax.tree.leaves(own)))
        if there != here:
            raise ValueError(
                f"system has parameters of the shapes {there}, but the device has {here}; pass one of the same sizes, "
                "or make a device of it"
            )
        written = eqx.combine(jax.tree.unflatten(jax.tree.structure(own), values), rest)
        return eqx.tree_at(lambda device: device.system, self, written)

    def effective(self, key: Key[Array, ""] | None = None) -> Energy:
        """Return the system with the parameters that it really has.

        Args:
            key: random key for the noise of the moment; without one there is none.
        """
        programmed, rest = eqx.partition(self.system, eqx.is_inexact_array)
        values = jax.tree.map(lambda theta, bits: self._level(theta) * _floats(bits), programmed, self._errors)
        if self.parameter_noise and key is not None:
            zeta = optax.tree.random_like(key, values)
            values = jax.tree.map(lambda v, zeta: v * (1 + self.parameter_noise * zeta), values, zeta)
        return eqx.combine(values, rest)

    def settle(
        self,
        x: Float[Array, "batch ..."],
        start: State | None = None,
        *,
        nudge: Nudge | None = None,
        relaxation: Relaxation | None = None,
        key: Key[Array, ""] | None = None,
    ) -> Settled:
        """Let the device settle, and read its state.

        Args:
            x: the clamped input.
            start: where to start from; default: the system's own start.
            nudge: what is added to the energy; default: nothing.
            relaxation: unused: a device settles in its own way.
            key: random key for the noise of the moment; without one there is none.
        """
        del relaxation
        if key is None:
            return self.effective().settle(x, start, nudge=nudge)
        key_parameters, key_system, key_reading = jax.random.split(key, 3)
        settled = self.effective(key_parameters).settle(x, start, nudge=nudge, key=key_system)
        if not self.state_noise:
            return settled
        noise = optax.tree.random_like(key_reading, settled.state)
        return settled._replace(state=jax.tree.map(lambda s, e: s + self.state_noise * e, settled.state, noise))

    def output(self, state: State) -> Float[Array, "batch ..."]:
        """Return the prediction that a state stands for."""
        return self.system.output(state)

    def statistics(self, state: State, x: Float[Array, "batch ..."]) -> PyTree:
        """Return the mean dE/dtheta of the ideal system at this state, at the place of each programmed value."""
        measured = self.system.statistics(state, x)
        return eqx.tree_at(lambda device: device.system, eqx.filter(self, eqx.is_inexact_array), measured)

    def _level(self, value: Float[Array, "..."]) -> Float[Array, "..."]:
        """The nearest value that can be programmed."""
        if self.levels is None:
            return value
        spacing = (self.most - self.least) / (self.levels - 1)
        return self.least + spacing * jnp.round((jnp.clip(value, self.least, self.most) - self.least) / spacing)


def _bits(floats: Float[Array, "..."]) -> Int[Array, "..."]:
    return jax.lax.bitcast_convert_type(floats, jnp.dtype(f"int{8 * floats.dtype.itemsize}"))


def _floats(bits: Int[Array, "..."]) -> Float[Array, "..."]:
    return jax.lax.bitcast_convert_type(bits, jnp.dtype(f"float{8 * bits.dtype.itemsize}"))
