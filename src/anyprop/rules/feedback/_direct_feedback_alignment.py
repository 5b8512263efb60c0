"""Direct feedback alignment: every layer hears the output error itself, through its own random weights.

    e = dC/dh_L,   delta_L = f'(a_L) * e,   delta_l = f'(a_l) * (B_l^T e),   dW_l = outer(delta_l, h_{l-1})

B_l has the shape of a dense weight from layer l straight to the outputs.

The error B_l^T e arrives where W_{l+1}^T delta_{l+1} would: at the input of the layer above. Whatever lies
between that input and a_l (pooling, normalisation, flattening) passes it exactly, and so does a skip.

Source: Nøkland 2016.

Exact limit: with one hidden layer and B = W_2 it is backprop, and so it is in a linear network of any depth
with B_l = W_{l+1} ... W_L.
"""

from typing import ClassVar

import equinox as eqx
import jax
from jaxtyping import Array, Float, Key, PyTree

from ..._checks import choose
from ...contract import Batch, Card, Credit, DataInfo, Learner, Needs, Rule, exact_gradient
from ...nets import INITIALISERS, Site, Wiring, initialiser, wire
from .._traces import above_first, trace_shapes
from ._projection import draw_projections, output_error


@jax.custom_vjp
def direct(h: Array, signal: Array) -> Array:
    """Return `h`, whose backward pass hands `signal` down in place of the error that arrives."""
    del signal
    return h


direct.defvjp(lambda h, signal: (h, signal), lambda signal, error: (signal, None))


class Direct(Wiring):
    """Hand a given error down at the site's input.

    Args:
        signal: the error at the input, one row an example.
    """

    signal: Float[Array, "batch units"]

    def __call__(self, site: Site, h: Float[Array, "batch ..."]) -> tuple[Array, Array]:
        """Return a and f(a), those of the plain site."""
        a = site.drive(direct(h, self.signal.reshape(h.shape)))
        return a, site.activation(a)


class DirectFeedbackAlignment(Rule):
    """Direct feedback alignment: each layer gets the output error through its own fixed random weights.

    Use it where layers should learn in parallel as soon as the output error is known, without a backward
    pass from layer to layer. It costs what backprop costs, less where layers are wide and outputs are few.
    It does well on dense nets and falls far behind on deep convolutional ones. Inside a residual block every
    dense or convolutional layer hears the output directly, and the skip passes down what it gets.

    Its feedback weights join outputs and layers, so none of them corresponds to a forward weight and
    `feedback_weights` is None.

    Args:
        init_feedback: initialiser of the feedback weights, by name (see `nets.initialiser`), as if they
            were the weights of a dense layer with a layer's units as inputs. The default is the paper's
            range, 1 / sqrt(units of the layer).
        loss: the cost, by name or as a `Loss`.

    Raises:
        ValueError: `init_feedback` is unknown.

    References:
        Nøkland. Direct feedback alignment provides learning in deep neural networks. NeurIPS, 2016.
    """

    init_feedback: str = eqx.field(default="uniform-by-fan-in", static=True)

    card: ClassVar[Card] = Card(
        name="Direct feedback alignment",
        family="feedback",
        needs=Needs.CHAIN,
        source=("nokland2016",),
        dossier=("S21",),
        local=True,
        weight_transport=False,
        phases=2,
        derivatives=True,
        limit="backprop with one hidden layer and B = W; in a linear network with B = product of the W above",
    )

    def __check_init__(self):
        """Refuse an unknown initialiser."""
        choose("init_feedback", self.init_feedback, INITIALISERS)

    def init(self, model: PyTree, *, data: DataInfo | None = None, key: Key[Array, ""]) -> Learner:
        """Draw one fixed B for each layer that has another above it."""
        del data
        traces = trace_shapes(self.accept(model))
        layers = [t.input.shape[1:] for t, hears in zip(traces, above_first(model), strict=True) if hears]
        return Learner(model, memory=draw_projections(layers, model, initialiser(self.init_feedback), key))

    def credit(self, learner: Learner, batch: Batch, *, key: Key[Array, ""]) -> Credit:
        """Return the update whose errors came straight from the output."""
        del key
        # Written as two forward passes, the first for e; a compiled program holds one.
        e = output_error(self.loss, learner.model(batch.x), batch)
        signals = iter([e @ feedback.T for feedback in learner.memory])
        wirings = [Direct(next(signals)) if hears else None for hears in above_first(learner.model)]
        loss, output, wired = exact_gradient(self.loss, wire(learner.model, wirings), batch)
        return Credit(loss, output, (wire(wired, [None] * len(wirings)), None), learner.memory)
