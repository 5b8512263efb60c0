"""Inputs and outputs held by springs.

    F(theta, beta, (x, s), (x_bar, y_bar)) = E(theta, s, x) + beta_x A_x + beta_y A_y

    A_x = 1/2 ||x - x_bar||^2,    A_y = 1/2 ||y(s) - y_bar||^2

The input becomes part of the state: it gives way to what the system would rather have. A nudge of the output along
delta = (0, 1) learns to predict y from x; one along delta = (1, 0), x from y; one along (1, -1) trades them.

Source: Scellier and Bengio 2017.

Exact limit: as beta_x -> infinity, at beta_y = 0 and along delta = (0, 1), supervised learning of y from x.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from ._energy import Energy
from ._relaxation import State

Activity = Float[Array, "batch ..."]


class SoftClamps(eqx.Module):
    """An energy whose input and output are both soft-clamped to what is observed of them.

    Its `total` is a total energy with two influences, beta = (beta_x, beta_y), for the functions of the theorem:
    `influence_gradient(SoftClamps.total, clamps, beta, direction, clamps.start(world), world, ...)`. Pass
    `velocity=SoftClamps.velocity` for the system to move as it does by itself. A `Convergent` one needs that, unless
    its units are hard sigmoids or rectifiers: the slope of its energy is not finite at the ends of their range, and 0,
    where sigmoids start, is one of them.

    Args:
        energy: the system. Where it gives x no well of its own, beta_x has to be above 0 for x to rest.

    References:
        Scellier & Bengio. Equilibrium propagation: bridging the gap between energy-based models and
        backpropagation. Frontiers in Computational Neuroscience, 2017.
    """

    energy: Energy

    def __check_init__(self):
        """Refuse what has no energy."""
        if not isinstance(self.energy, Energy):
            raise TypeError(
                f"energy must be an energies.Energy, not {type(self.energy).__name__}; read a chain as one, such as "
                "energies.Hopfield(chain)"
            )

    def total(
        self, beta: Float[Array, "2"], state: tuple[Activity, State], world: tuple[Activity, Activity]
    ) -> Float[Array, " batch"]:
        """Return E + beta_x A_x + beta_y A_y of each example.

        Args:
            beta: (beta_x, beta_y), the stiffness of the springs, in units of the energy.
            state: x, and the state of the system.
            world: x_bar and y_bar.
        """
        x, s = state
        x_bar, y_bar = world
        springs = jnp.stack([_spring(x, x_bar), _spring(self.energy.output(s), y_bar)])
        return self.energy.energy(s, x) + beta @ springs

    def velocity(
        self, beta: Float[Array, "2"], state: tuple[Activity, State], world: tuple[Activity, Activity]
    ) -> tuple[Activity, State]:
        """Return how x moves, down the slope of the total energy, and how the system does, nudged by its spring.

        Args:
            beta: see `total`.
            state: see `total`.
            world: see `total`.
        """
        (x, s), (_, y_bar) = state, world
        slope = jax.grad(lambda x: jnp.sum(self.total(beta, (x, s), world)))(x)
        dynamics = self.energy.dynamics(x, lambda s: beta[1] * _spring(self.energy.output(s), y_bar))
        return -slope, dynamics.velocity(s)

    def start(self, world: tuple[Activity, Activity]) -> tuple[Activity, State]:
        """Return x_bar, and where the system starts from with it."""
        x_bar, _ = world
        return x_bar, self.energy.start(x_bar)

    def project(self, state: tuple[Activity, State]) -> tuple[Activity, State]:
        """Return the nearest state in the range of the units; x has no bounds."""
        x, s = state
        return x, self.energy.project(s)

    def world(self, x_bar: Activity, y_bar: Activity) -> tuple[Activity, Activity]:
        """Return (x_bar, y_bar), once it is clear that a spring can be at rest there.

        Args:
            x_bar: what is observed of the input.
            y_bar: what is observed of the output.

        Raises:
            ValueError: `y_bar` is shaped unlike the output.
            RuntimeError: `y_bar` lies outside the range of the output units. The range is read from where states are
                projected to that lie as far as can be along an output's slope, either way.
        """
        start = self.energy.start(x_bar)
        shape = jax.eval_shape(self.energy.output, start).shape
        if y_bar.shape != shape:
            raise ValueError(f"y_bar has shape {y_bar.shape}, but the outputs have shape {shape}")
        low, high = _ends(self.energy, start)
        outside = (y_bar < low) | (y_bar > high)
        y_bar = eqx.error_if(y_bar, outside, "y_bar lies outside the range of the output units, which cannot reach it")
        return x_bar, y_bar


def _ends(energy: Energy, start: State) -> tuple[Float[Array, "1 ..."], Float[Array, "1 ..."]]:
    """The least and the greatest of each output, over the states in range."""
    origin, unflatten = ravel_pytree(jax.tree.map(lambda s: jnp.zeros_like(s[:1]), start))
    # An output may be a sum of several units, which it follows in different directions.
    slopes = jax.jacrev(lambda s: energy.output(unflatten(s)))(origin)
    far = jnp.sign(slopes).reshape(-1, len(origin)) * (jnp.finfo(origin.dtype).max / 2)

    def end(states: Float[Array, "outputs units"]) -> Float[Array, "1 ..."]:
        outputs = jax.vmap(lambda s: energy.output(energy.project(unflatten(s))).ravel())(states)
        return jnp.diagonal(outputs).reshape(slopes.shape[:-1])

    return end(-far), end(far)


def _spring(a: Activity, b: Activity) -> Float[Array, " batch"]:
    """1/2 ||a - b||^2 of each example."""
    return 0.5 * jnp.sum((a - b) ** 2, axis=tuple(range(1, a.ndim)))
