"""Contrastive Hebbian learning: Hebb's rule with the answer given, and its reverse without.

    dx_k/dt = f_k(W_k x_{k-1} + gamma W_{k+1}^T x_{k+1} + b_k) - x_k,   x_0 = x,   k = 1 ... L

    free:     x~, where the whole network rests
    clamped:  x^, where it rests with x_L = y
    dW_k  ~  gamma^(k-L) (outer(x^_k, x^_{k-1}) - outer(x~_k, x~_{k-1}))

Both phases are minima of an energy E, see `energies.WeakFeedback`, and the update is the gradient of their difference,

    J = E(x^) - E(x~),   dJ/dtheta = dE/dtheta(x^) - dE/dtheta(x~)

which holds at any gamma. At gamma = 1 the factor is gone, and this is Movellan's form. As gamma -> 0, J goes to the
cost that matches the outputs, KL(y || x~_L) for softmax and sigmoid, 1/2 ||y - x~_L||^2 for linear ones, as the hidden
layers come to differ between the phases by

    x^_k - x~_k = gamma^(L-k) delta_k,   delta_L = y - x~_L,   delta_k = f'_k * (W_{k+1}^T delta_{k+1})

Where the free phase has come to the lowest minimum, J >= 0. Where several are in reach the phases may end in different
ones, and then the update has no such meaning: a negative J says so.

Source: Movellan 1991; Xie and Seung 2003 for gamma. Peterson and Anderson 1987 have the two phases.

Exact limit: the gradient of J in phases that have settled; backprop through the forward pass as gamma -> 0, with an
error of O(gamma). With squared error on outputs that are not linear it is not this cost that is descended, but the one
that matches them: for sigmoids the binary cross-entropy.
"""

from collections.abc import Mapping
from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from ..._checks import count, non_negative, positive
from ...contract import Batch, Card, Credit, DataInfo, Learner, Needs, Rule
from ...energies import GradientFlow, WeakFeedback
from ...losses import targets
from ._rule import report, restless


class ContrastiveHebbian(Rule):
    """Contrastive Hebbian learning: the network with its outputs clamped to the answer, minus the network left free.

    Use it for Hebbian learning in a network that settles, whose one and the same dynamics gives answers and errors.
    The weaker the feedback, the nearer it comes to backprop on the chain, and the smaller the signal: a layer n below
    the outputs differs between the phases by about gamma^n times its error. Rates are rounded, to 6e-8 of their size
    in single precision, so that is the least that such a difference may be. With `feedback=1` it is Movellan's form,
    in which weights are as strong downwards; its phases take more and shorter steps.

    `Learner.model` is the chain read as `energies.WeakFeedback`, with this rule's free phase as its relaxation: it
    predicts by settling under the same weak feedback, not by a forward pass. The free phase starts at the forward
    pass, the clamped one at the free rest.

    It reports, as metrics that begin with `free_` or `clamped_`: `steps` taken, the mean over the batch; `residual`,
    the speed of the batch's fastest unit at the end, and as `residual_1` and on that of each layer's; `converged`, the
    fraction of examples that settled to `tolerance`. As `clamp_speed_1` and on, for each hidden layer, how fast the
    clamped outputs first move its fastest unit: without a tolerance, a phase whose layer moves faster than that by
    itself has not settled. And `contrast`, the mean of J, in units of the cost: negative
    where the clamped phase has come to rest in a deeper minimum than the free one.

    Args:
        feedback: gamma, the weights down over the weights up; above 0, and 1 for Movellan's form.
        free_steps: steps of the free phase, at most.
        clamped_steps: steps of the clamped phase, at most. An error needs a step for each layer on its way down.
        step_size: of each step, in units of the units' time constant. At 1 a unit goes at once to where the others
            drive it.
        tolerance: a phase ends early for an example once none of its units moves faster than this; 0 or more. It has
            to be far below gamma^(L-1), the size of the first layer's signal.
        loss: the cost, by name or as a `Loss`: `"cross-entropy"` and `"binary-cross-entropy"` on logits, or
            `"squared-error"` on the rates f_L(a_L). It says what y is compared with, and the outputs are clamped to y.

    Raises:
        ValueError: a number is out of its range; or, by `init` and a `credit` that is not compiled, y lies outside of
            the range of the outputs' rates.

    References:
        Movellan. Contrastive Hebbian learning in the continuous Hopfield model. Connectionist Models: Proceedings of
        the 1990 Summer School, 1991.
        Xie & Seung. Equivalence of backpropagation and contrastive Hebbian learning in a layered network. Neural
        Computation, 2003.
    """

    feedback: float = 0.2
    free_steps: int = eqx.field(default=15, static=True)
    clamped_steps: int = eqx.field(default=15, static=True)
    step_size: float = 1.0
    tolerance: float = 0.0

    card: ClassVar[Card] = Card(
        name="Contrastive Hebbian learning",
        family="equilibrium",
        needs=Needs.CHAIN,
        source=("xie2003", "movellan1991"),
        dossier=("S15",),
        local=True,
        weight_transport=True,
        phases=2,
        derivatives=False,
        limit="backprop on the cost that matches the outputs, as the feedback goes to 0 in settled phases",
    )

    def __check_init__(self):
        """Refuse numbers out of their range."""
        positive("feedback", self.feedback)
        count("free_steps", self.free_steps)
        count("clamped_steps", self.clamped_steps)
        positive("step_size", self.step_size)
        non_negative("tolerance", self.tolerance)

    def accept(self, model: PyTree) -> WeakFeedback:
        """Return the chain with weak feedback, and the free phase as its relaxation.

        Raises:
            TypeError: it cannot be read so; the message says what to pass instead.
        """
        chain = super().accept(model.chain if isinstance(model, WeakFeedback) else model)
        return WeakFeedback(chain, self.loss, self.feedback, relaxation=self._phase(self.free_steps))

    def init(self, model: PyTree, *, data: DataInfo | None = None, key: Key[Array, ""]) -> Learner:
        """Read the chain with weak feedback.

        Raises:
            TypeError: it cannot be read so; the message says what to pass instead.
            ValueError: a target lies outside of the range of the outputs' rates.
        """
        del key
        learner = Learner(self.accept(model))
        if data is not None and data.y_low is not None and data.y_high is not None:
            learner.model.check_clamp(data.y_low, data.y_high)
        return learner

    def credit(self, learner: Learner, batch: Batch, *, key: Key[Array, ""]) -> Credit:
        """Return the difference of dE/dtheta between the phases."""
        del key
        model: WeakFeedback = learner.model
        free = model.settle(batch.x)
        output = model.output(free.state)
        y = targets(output, batch.y)
        clamped = model.settle(batch.x, free.state, clamp=y, relaxation=self._phase(self.clamped_steps))

        def contrast(model: WeakFeedback) -> Float[Array, ""]:
            given = model.energy(model.rates(clamped.state, y), batch.x)
            return jnp.mean(given - model.energy(rates, batch.x))

        rates = model.rates(free.state)
        j, grads = eqx.filter_value_and_grad(contrast)(model)
        metrics = report("free", free) | report("clamped", clamped) | {"contrast": j}
        metrics |= _onset(model, free.state, batch.x, y)
        loss = jnp.mean(self.loss(output, batch.y))
        return Credit(loss, output, (grads, None), learner.memory, metrics)

    def complaint(self, metrics: Mapping[str, float]) -> str | None:
        """Say that a phase does not settle: to the tolerance, or to where the answer can be told from drift."""
        for phase, steps in (("free", self.free_steps), ("clamped", self.clamped_steps)):
            taken, remedy = f"{steps} steps of {self.step_size:g}", f"more {phase}_steps or a smaller step_size"
            if found := restless(metrics, phase, self.tolerance, taken, remedy):
                return found
        return None

    def _phase(self, steps: int) -> GradientFlow:
        return GradientFlow(steps, self.step_size, self.tolerance)


def _onset(model: WeakFeedback, rest: list[Array], x: Array, y: Array) -> dict[str, Float[Array, ""]]:
    """How fast clamped outputs first move each hidden layer, one after the other from the last to the first."""
    free, clamped = (model.dynamics(x, clamp).velocity for clamp in (None, y))
    state, found, drift = list(rest), {}, free(rest)
    for k in reversed(range(len(rest) - 1)):
        velocity = clamped(state)[k]
        found[f"clamp_speed_{k + 1}"] = jnp.max(jnp.abs(velocity - drift[k]))
        state[k] = rest[k] + velocity
    return found
