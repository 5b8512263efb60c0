"""The temporal derivative: the outputs drift towards the answer, and every unit's drift is its error.

    up:    a_l = W_l h_{l-1} + b_l,   h_l = f_l(a_l),   h_0 = x
    down:  h_L(t) = h_L - k dC/dh_L                               that is h_L + k (y - h_L)
           h_l(t) = f_l(a_l + alpha W_{l+1}^T (h_{l+1}(t) - h_{l+1}))
    dW_l ~ alpha^(l-L) / k  outer(h_l(t) - h_l, h_{l-1})          the input times the drift of the output

The feedback goes through f_l itself, whose slope at a_l makes the error of backprop of it: in the units of an error,
with s_l = k alpha^(L-l),

    delta_L = dC/dh_L,   delta_l = (f_l(a_l) - f_l(a_l - s_l c_l)) / s_l,   c_l = W_{l+1}^T delta_{l+1}

so the pass down is the backward pass of `jax.grad` with this difference in the place of the slope. A drift runs *down*
the cost, dh/dt ~ -dC/da, so that a weight may follow it.

Source: Hinton 2007, a talk; Xie and Seung 1999 for derivatives in time that learn.

Exact limit: backprop, as k alpha -> 0; the error is O(k alpha). The output units have no slope in the above: what is
descended is the cost that matches them, whose derivative with respect to a_L is dC/dh_L. Cross-entropies on the
logits of identity outputs match, and so does squared error there. With squared error on sigmoid outputs it is
the binary cross-entropy that is descended.
"""

from collections.abc import Callable
from functools import partial
from typing import ClassVar

import jax
from jaxtyping import Array, Float, Key, PyTree

from ..._checks import positive
from ...contract import Batch, Card, Credit, Learner, Needs, Rule, exact_gradient
from ...nets import Affine, Chain, Flatten, Pool, Site, Wiring, affines, has_hard_units, wire

Activity = Float[Array, "batch ..."]


class TemporalDerivative(Rule):
    """The temporal derivative: errors are changes of the units' own rates, under weak feedback.

    Use it for what contrastive methods have in common at its simplest: a pass up, a nudge of the outputs, and a pass
    down through the same units, with no derivative of an activation and nothing to settle. It costs what backprop
    costs.

    A layer n below the outputs moves by about k alpha^n times its error. Rates are rounded, to 6e-8 of their size in
    single precision, so that is the least that such a move may be.

    Args:
        nudge: k, the part of the way to the answer that the outputs go; above 0.
        feedback: alpha, the weights down over the weights up; above 0.
        loss: the cost, by name or as a `Loss`. It says where the outputs go, y - h_L for all cross-entropies and
            squared error; the slope of the output's own activation has no part in it.

    Raises:
        ValueError: a number is out of its range.

    References:
        Hinton. How to do backpropagation in a brain. Talk at the NIPS Deep Learning Workshop, 2007.
        Xie & Seung. Spike-based learning rules and stabilization of persistent neural activity. NIPS 1999.
    """

    nudge: float = 0.1
    feedback: float = 0.5

    card: ClassVar[Card] = Card(
        name="Temporal derivative",
        family="equilibrium",
        needs=Needs.CHAIN,
        source=("hinton2007", "xie1999"),
        dossier=("S16",),
        local=True,
        weight_transport=True,
        phases=2,
        derivatives=False,
        limit="backprop on the cost that matches the outputs, as nudge times feedback goes to 0",
    )

    def __check_init__(self):
        """Refuse numbers out of their range."""
        positive("nudge", self.nudge)
        positive("feedback", self.feedback)

    def accept(self, model: PyTree) -> PyTree:
        """Return `model` if it is one layer after the other, and the hidden ones answer a small change.

        Raises:
            TypeError: it is not; the message says what to pass instead.
        """
        chain: Chain = super().accept(model)
        for i, stage in enumerate(chain.stages):
            last = i == len(chain.stages) - 1
            if not isinstance(stage, Affine) and (last or not isinstance(stage, Pool | Flatten)):
                place = "at the end " if last else ""
                raise TypeError(
                    f"TemporalDerivative has no way down through a {type(stage).__name__} {place}(stages[{i}]); pass a "
                    "chain of dense and convolutional layers, with pooling and flattening between them, such as "
                    "ap.nets.mlp(784, 100, 10, key=key)"
                )
        if has_hard_units(chain.stages[:-1]):
            raise TypeError(
                "TemporalDerivative has no way down through a sign or a step, which a small change of the drive leaves "
                "as it is; pass activation='tanh' or 'hard-sigmoid'"
            )
        return chain

    def credit(self, learner: Learner, batch: Batch, *, key: Key[Array, ""]) -> Credit:
        """Return the drift of every unit times its input."""
        del key
        depth = len(affines(learner.model))
        moves = [self.nudge * self.feedback**n for n in range(depth - 1, 0, -1)]
        wired = wire(learner.model, [*(Drift(move) for move in moves), Output()])
        loss, output, update = exact_gradient(self.loss, wired, batch)
        return Credit(loss, output, (wire(update, [None] * depth), None), learner.memory)


class Drift(Wiring):
    """A layer that answers an error with a change of its rate.

    Args:
        move: s_l, the size of the drive from above for an error of 1.
    """

    move: float

    def __call__(self, site: Site, h: Activity) -> tuple[Array, Array]:
        """Return a and f(a)."""
        a = site.drive(h)
        return a, _rate(site.activation, a, self.move)


class Output(Wiring):
    """The output layer: its drive hears the error of its rate, whatever its slope."""

    def __call__(self, site: Site, h: Activity) -> tuple[Array, Array]:
        """Return a and f(a)."""
        a = site.drive(h)
        return a, jax.lax.stop_gradient(site.activation(a)) + (a - jax.lax.stop_gradient(a))


@partial(jax.custom_vjp[Array], nondiff_argnums=(0,))
def _rate(f: Callable[[Array], Array], a: Array, move: float) -> Array:
    """f(a), whose backward pass takes a difference quotient in the place of the slope."""
    del move
    return f(a)


def _up(f: Callable[[Array], Array], a: Array, move: float) -> tuple[Array, tuple[Array, Array, float]]:
    h = f(a)
    return h, (a, h, move)


def _down(f: Callable[[Array], Array], saved: tuple[Array, Array, float], error: Array) -> tuple[Array, None]:
    a, h, move = saved
    move = move * len(a)  # errors are those of the mean cost, and every example is nudged by its own
    return (h - f(a - move * error)) / move, None


_rate.defvjp(_up, _down)
