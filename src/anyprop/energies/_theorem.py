"""The theorem of equilibrium propagation in full: any total energy, any number of influences, any direction.

    F(theta, beta, s, v)            total energy of a state s in a world v, under influences beta
    s^beta                          the rest of  ds/dt = -dF/ds
    J = delta . dF/dbeta            at s^beta: how the energy at rest answers to more influence along delta

    dJ/dtheta = lim_{xi -> 0} (dF/dtheta(beta + xi delta, s^{beta + xi delta}) - dF/dtheta(beta, s^beta)) / xi

The energy at rest is one function of theta and beta, and its mixed second derivative may be taken in either order:
that is the whole proof, so beta need not be small, nor a scalar, nor F linear in it. Supervised learning is one case,
the input clamped for good and a cost that is not yet felt: F = E + beta C at beta = 0, delta = 1.

J is a cost: descent on it subtracts the difference above.

Source: Scellier and Bengio 2017.

Exact limit: dJ/dtheta as xi -> 0, with an error of O(xi) one-sided, and of O(xi^2) centred and in the mean of random
signs.
"""

from collections.abc import Callable
from typing import Literal, get_args

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PyTree

from .._checks import choose, positive
from ._relaxation import Dynamics, Relaxation, Settled, State

Influence = Float[Array, "..."]
Total = Callable[[PyTree, Influence, State, PyTree], Float[Array, " batch"]]
"""F(theta, beta, state, world) of each example."""

Velocity = Callable[[PyTree, Influence, State, PyTree], State]
"""(theta, beta, state, world) -> ds/dt."""

Variant = Literal["one-sided", "centred", "random-sign"]


def rest(
    total: Total,
    theta: PyTree,
    beta: Influence,
    start: State,
    world: PyTree,
    relaxation: Relaxation,
    project: Callable[[State], State] | None = None,
    velocity: Velocity | None = None,
) -> Settled:
    """Let a system settle to s^beta. Derivatives of the state are those of a state at rest.

    Args:
        total: F(theta, beta, state, world) of each example, the batch on the first axis of the state's arrays.
        theta: parameters, a module for instance.
        beta: influence parameters, of any shape.
        start: the state to start from.
        world: what is given from outside, in any form.
        relaxation: how to settle; one that follows the velocity.
        project: state -> the nearest state in the range of the units; default: every state is in range.
        velocity: ds/dt, of a system that runs down F in a way of its own; default: -dF/ds.

    Raises:
        RuntimeError: the way there met a slope that is not finite.
    """

    def move(state: State) -> State:
        if velocity is not None:
            return velocity(theta, beta, state, world)
        return jax.tree.map(jnp.negative, jax.grad(lambda s: jnp.sum(total(theta, beta, s, world)))(state))

    end = relaxation(Dynamics(move, project or (lambda state: state)), start)
    state = eqx.error_if(
        end.state,
        ~jnp.isfinite(end.residual),
        "the slope of total with respect to the state is not finite: start elsewhere, take smaller steps, give total a "
        "lower bound, or pass the velocity of a system that goes another way, such as velocity=SoftClamps.velocity",
    )
    return end._replace(state=state)


def objective(
    total: Total,
    theta: PyTree,
    beta: Influence,
    direction: Influence,
    start: State,
    world: PyTree,
    relaxation: Relaxation,
    project: Callable[[State], State] | None = None,
    velocity: Velocity | None = None,
) -> Float[Array, " batch"]:
    """Return J = delta . dF/dbeta at s^beta, of each example. Its derivative by JAX is the exact one, at rest.

    Args:
        total: see `rest`.
        theta: see `rest`.
        beta: see `rest`.
        direction: delta, shaped like beta.
        start: see `rest`.
        world: see `rest`.
        relaxation: see `rest`.
        project: see `rest`.
        velocity: see `rest`.

    Raises:
        ValueError: `direction` is zero or shaped unlike `beta`.
    """
    beta, direction = _floats(beta, direction)
    state = rest(total, theta, beta, start, world, relaxation, project, velocity).state
    return jax.jvp(lambda beta: total(theta, beta, state, world), (beta,), (direction,))[1]


def influence_gradient(
    total: Total,
    theta: PyTree,
    beta: Influence,
    direction: Influence,
    start: State,
    world: PyTree,
    relaxation: Relaxation,
    project: Callable[[State], State] | None = None,
    velocity: Velocity | None = None,
    *,
    xi: float = 1e-3,
    variant: Variant = "centred",
    key: Key[Array, ""] | None = None,
) -> PyTree:
    """Estimate the gradient of the batch's mean J from where the system rests, without differentiating the way there.

    Args:
        total: see `rest`.
        theta: see `rest`; the gradient is laid out like its floating-point arrays.
        beta: see `rest`.
        direction: delta, shaped like beta.
        start: see `rest`; the nudged phases start from s^beta.
        world: see `rest`.
        relaxation: see `rest`.
        project: see `rest`.
        velocity: see `rest`.
        xi: how far to nudge along the direction, above 0.
        variant: `"one-sided"`, `"centred"` (between xi and -xi), or `"random-sign"` (one-sided, the sign drawn).
        key: random key; only a random sign needs one.

    Raises:
        ValueError: `xi` or `direction` is zero, `direction` is shaped unlike `beta`, or a sign is to be drawn without
            a key.
        RuntimeError: the way to rest met a slope that is not finite.

    References:
        Scellier & Bengio. Equilibrium propagation: bridging the gap between energy-based models and
        backpropagation. Frontiers in Computational Neuroscience, 2017.
    """
    positive("xi", xi)
    choose("variant", variant, get_args(Variant))
    beta, direction = _floats(beta, direction)
    high, low = jnp.asarray(xi), -xi if variant == "centred" else 0.0
    if variant == "random-sign":
        if key is None:
            raise ValueError("key is missing: variant='random-sign' draws a sign; pass key=jax.random.key(0)")
        high *= jax.random.rademacher(key, ())
    first = rest(total, theta, beta, start, world, relaxation, project, velocity).state

    def slope(theta: PyTree, xi: float | Array) -> Float[Array, ""]:
        influence = beta + xi * direction
        state = rest(total, jax.lax.stop_gradient(theta), influence, first, world, relaxation, project, velocity).state
        return jnp.mean(total(theta, influence, state, world))

    return eqx.filter_grad(lambda theta: (slope(theta, high) - slope(theta, low)) / (high - low))(theta)


def _floats(beta: Influence, direction: Influence) -> tuple[Influence, Influence]:
    """The influence and its direction in floating-point numbers, once it is clear that the direction is one."""
    if jnp.shape(direction) != jnp.shape(beta):
        raise ValueError(f"direction has shape {jnp.shape(direction)}, but beta has shape {jnp.shape(beta)}")
    if not isinstance(direction, jax.core.Tracer) and not np.any(direction):
        raise ValueError("direction is zero, so there is no nudge; pass one with an entry that is not")
    dtype = jnp.result_type(beta, direction, float)
    return jnp.asarray(beta, dtype), jnp.asarray(direction, dtype)
