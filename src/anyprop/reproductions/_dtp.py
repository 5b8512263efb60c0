"""What the experiments of Lee, Zhang, Fischer and Bengio 2015 share: their optimizer.

They train the inverses on a pass over the data, then the layers on another, and call both one epoch.
"""

import jax.numpy as jnp
import optax


def rmsprop(rate: float) -> optax.GradientTransformation:
    """RMSprop as their code has it: centred, with momentum, the stabiliser inside the root.

    Args:
        rate: learning rate.
    """
    return optax.rmsprop(rate, decay=0.95, eps=1e-3, eps_in_sqrt=True, centered=True, momentum=0.9)


def optimizer(forward_rate: float, inverse_rate: float, steps: int | None = None) -> optax.GradientTransformation:
    """RMSprop with one rate for the layers, another for the inverses.

    Args:
        forward_rate: learning rate of the layers, `learner.model`.
        inverse_rate: learning rate of the inverses, `learner.feedback`.
        steps: number of steps that the inverses train for before the layers do, and so on in turns; default:
            both train in every step.
    """
    inverses, model = rmsprop(inverse_rate), rmsprop(forward_rate)
    if steps is not None:
        inverses, model = _in_turn(inverses, steps, 0), _in_turn(model, steps, 1)
    return optax.partition({"model": model, "inverses": inverses}, ("model", "inverses"))


def _in_turn(inner: optax.GradientTransformation, steps: int, turn: int) -> optax.GradientTransformation:
    """Let `inner` act for `steps` steps of every `2 * steps`: the first ones, turn 0, or the last ones, turn 1."""
    return optax.conditionally_mask(inner, lambda step, **_: jnp.asarray(step) // steps % 2 == turn)
