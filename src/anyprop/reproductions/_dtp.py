"""What the experiments of Lee, Zhang, Fischer and Bengio 2015 share: their optimizer.

They train the inverses on a pass over the data, then the layers on another, and call both one epoch.
"""

import optax

from ..training import in_turns


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
    model, inverses = rmsprop(forward_rate), rmsprop(inverse_rate)
    if steps is not None:
        return in_turns(model, inverses, steps=steps)
    return optax.partition({"model": model, "inverses": inverses}, ("model", "inverses"))
