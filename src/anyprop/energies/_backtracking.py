"""Gradient flow by steps that are cut, for each example by itself, until they are short enough.

    try      s' = P(s + eps v),    v = ds/dt at s,  v' = ds/dt at s'
    keep     s <- s'               if <s' - s, v + v'> > 0
    cut      eps <- eps / 2        else, and try again from s

For an energy F, v = -dF/ds, and half of <s' - s, v + v'> is what the step takes off F, but for a term of third order
in the step: the trapezoidal rule for the work along it. So in a quadratic well a step is kept exactly if it lowers F.
F itself is not asked for: close to rest its change is lost in rounding long before v is.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int, Key

from .._checks import positive
from ._relaxation import Dynamics, Settled, Speeds, State, ToRest, as_told, either, fastest, settled, speeds
from ._solvers import Pull, Vector, implicit

Progress = tuple[State, State, Float[Array, " batch"], Int[Array, " batch"]]
"""A state, its velocity, how long the next step is, and how many were taken."""


class BacktrackingFlow(ToRest):
    """Gradient flow with a step that is halved, for each example by itself, where it goes too far.

    Use it where weights grow in training: a step that is short enough at first can become too long, and
    `GradientFlow` then overshoots, oscillates or diverges. A step that was cut stays cut for the rest of the call. It
    costs one velocity more than `GradientFlow` of as many steps, and an inner product a step, in which it looks at the
    state and the velocity once more. Its derivatives are those of a state at rest.

    Args:
        steps: steps at most, those included that are tried and not kept; a positive number.
        step_size: eps of the first step, in units of the system's time constant; above 0.
        tolerance: an example has settled once no unit moves faster than this, in units of the state per time
            constant. At 0 all steps are taken.

    Raises:
        ValueError: a number is out of its range.
        TypeError: the state is complex; raised by a call.
    """

    steps: int = eqx.field(static=True, default=100)
    step_size: float = eqx.field(static=True, default=0.5)
    tolerance: float = eqx.field(static=True, default=0.0)

    def __check_init__(self):
        """Refuse a step size that is not above 0."""
        positive("step_size", self.step_size)

    def __call__(self, dynamics: Dynamics, start: State, *, key: Key[Array, ""] | None = None) -> Settled:
        """Relax a batch of systems; there is no noise, so the key goes unused."""
        del key
        if any(jnp.iscomplexobj(s) for s in jax.tree.leaves(start)):
            raise TypeError("BacktrackingFlow needs real states, for complex ones have no descent; pass GradientFlow()")
        _, unflatten = ravel_pytree(start)

        def still(now: Progress) -> Speeds:
            s, v, *_ = now
            return speeds(s, dynamics.project(jax.tree.map(jnp.add, s, v)))

        def attempt(now: Progress) -> Progress:
            s, v, eps, steps = now
            tried = dynamics.project(jax.tree.map(lambda s, v: s + _each(eps, s) * v, s, v))
            there = dynamics.velocity(tried)
            # Where a step is so long that its end is no number, the work is none either, and not above 0.
            kept = _dot(jax.tree.map(jnp.subtract, tried, s), jax.tree.map(jnp.add, v, there)) > 0
            return *either(kept, (tried, there), (s, v)), jnp.where(kept, eps, eps / 2), steps + 1

        def unsettled(now: Progress) -> Bool[Array, " batch"]:
            return (fastest(still(now)) > self.tolerance) & (now[-1] < self.steps)

        def advance(pair: tuple[Bool[Array, " batch"], Progress]) -> tuple[Bool[Array, " batch"], Progress]:
            going, now = pair
            now = either(going, attempt(now), now)
            return unsettled(now), now

        def relax(pull: Pull, s: Vector) -> tuple[Vector, tuple[Array, Speeds]]:
            del pull
            begin = unflatten(s)
            zeros = jnp.zeros_like(fastest(speeds(begin, begin)))
            now = begin, dynamics.velocity(begin), zeros + self.step_size, zeros.astype(jnp.int32)
            if not self.tolerance:  # to look for rest after every step takes time
                now = jax.lax.fori_loop(0, self.steps, lambda _, now: attempt(now), now)
            else:
                _, now = jax.lax.while_loop(lambda pair: jnp.any(pair[0]), advance, (unsettled(now), now))
            return ravel_pytree(now[0])[0], (as_told(now[-1]), still(now))

        state, (steps, residual) = implicit(dynamics, start, relax)
        return settled(state, steps.astype(int), residual, self.tolerance)


def _each(numbers: Float[Array, " batch"], of: Array) -> Array:
    """A number for each example, in the shape of what it multiplies."""
    return numbers.reshape(-1, *(1,) * (of.ndim - 1))


def _dot(one: State, other: State) -> Float[Array, " batch"]:
    """The inner product of each example."""
    products = jax.tree.map(lambda a, b: jnp.sum(a * b, axis=tuple(range(1, a.ndim))), one, other)
    return jax.tree.reduce(jnp.add, products)
