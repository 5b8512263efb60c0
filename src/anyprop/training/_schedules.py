"""The step size of stochastic alternating minimisation, and the bound on its error that comes with it.

K blocks theta_1, ..., theta_K are moved in turn, each with the blocks before it already moved:

    theta_d^{t+1} = Pi_d(theta_d^t - eta^t grad_d L(theta_1^{t+1}, .., theta_{d-1}^{t+1}, theta_d^t, ..; x_t))

    eta^t = (3/2) / ([2 xi - 3 gamma (K-1)] (t + 2) + (3/2) (K-1) gamma)

and, with Delta = theta - theta* and T = t + 1 steps taken,

    E |Delta^T|^2  <=  E |Delta^0|^2 (2 / (T + 2))^{3/2}  +  9 sigma^2 / ([2 xi - 3 gamma (K-1)]^2 (T + 2))

Source: Choromanska et al. 2019, theorem 3.2.
"""

from collections.abc import Callable

import jax.numpy as jnp
import optax
from jax.typing import ArrayLike
from jaxtyping import Array

from .._checks import count, non_negative, positive


def alternating_minimization_schedule(xi: float, gamma: float, blocks: int) -> optax.Schedule:
    """The decaying step size with which stochastic alternating minimisation provably converges.

    Use it as the learning rate of `optax.sgd` where the cost's curvature is known or can be bounded. It falls
    like 1/t.

    Args:
        xi: smallest 2 mu_d lambda_d / (mu_d + lambda_d) of all blocks, where lambda_d is the strong convexity
            and mu_d the smoothness of the cost in block d, the other blocks at the optimum; above zero.
        gamma: gradient stability: the gradient in any block d differs by at most
            gamma sum_{i != d} |theta_i - theta_i*| from what it would be with the other blocks at the optimum;
            zero or above, below 2 xi / (3 (blocks - 1)).
        blocks: K, the number of blocks that take turns.

    Returns:
        The step size as a function of the number of steps already taken, t = 0, 1, ...

    Raises:
        ValueError: an argument is out of its range.

    References:
        Choromanska et al. Beyond Backprop: Online Alternating Minimization with Auxiliary Variables. ICML, 2019.
    """
    margin = _margin(xi, gamma, blocks)

    def schedule(count: ArrayLike) -> Array:
        return 1.5 / (margin * (jnp.asarray(count) + 2) + 1.5 * (blocks - 1) * gamma)

    return schedule


def alternating_minimization_bound(
    xi: float, gamma: float, blocks: int, *, start: float, sigma2: float
) -> Callable[[ArrayLike], Array]:
    """The bound on the expected error of stochastic alternating minimisation with that step size.

    Use it to see what the theorem promises before training, or to draw it over a measured error.

    Args:
        xi: curvature, as in `alternating_minimization_schedule`.
        gamma: gradient stability, as in `alternating_minimization_schedule`.
        blocks: K, the number of blocks that take turns.
        start: expected squared distance from the optimum before the first step, summed over the blocks.
        sigma2: sigma^2, the sum over blocks of the largest expected squared norm that the sample gradient in
            the block has within the balls that the blocks are kept in.

    Returns:
        The bound on the expected squared distance, as a function of the number of steps taken, T = 0, 1, ...

    Raises:
        ValueError: an argument is out of its range.

    References:
        Choromanska et al. Beyond Backprop: Online Alternating Minimization with Auxiliary Variables. ICML, 2019.
    """
    margin = _margin(xi, gamma, blocks)
    non_negative("start", start)
    non_negative("sigma2", sigma2)

    def bound(count: ArrayLike) -> Array:
        beyond = jnp.asarray(count) + 2
        return start * (2 / beyond) ** 1.5 + 9 * sigma2 / (margin**2 * beyond)

    return bound


def _margin(xi: float, gamma: float, blocks: int) -> float:
    """Return 2 xi - 3 gamma (K-1), which the theorem needs above zero."""
    positive("xi", xi)
    non_negative("gamma", gamma)
    count("blocks", blocks)
    margin = 2 * xi - 3 * gamma * (blocks - 1)
    if margin <= 0:
        raise ValueError(
            f"gamma={gamma!r} must be below 2 xi / (3 (blocks - 1)) = {2 * xi / (3 * (blocks - 1)):g}: blocks that "
            "depend more on each other than on themselves need not converge"
        )
    return margin
