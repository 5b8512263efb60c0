"""Predictive coding: the states move until each layer's error is what the layers above make of it.

    E = sum_k 1/2 ||e_k||^2,   e_k = s_k - c_k,   c_k = W_k rho(s_{k-1}) + b_k          (`energies.Feedforward`)
    free     s_k = c_k, a forward pass: E = 0, so no free phase is needed to compare with
    nudged   F = E + beta C(s_L, y)
    clamped  F = sum_{k<L} 1/2 ||e_k||^2 + beta C(c_L, y)
    infer    s_k <- s_k + gamma (-e_k + rho'(s_k) W_{k+1}^T e_{k+1}),   steps times, from the free state;
             gamma is halved where a step goes too far     (`energies.BacktrackingFlow`)
    learn    dF/dW_k / beta = -e_k rho(s_{k-1})^T / beta

Clamping is what a nudge of infinite strength does to an output unit of variance 1 / beta: for squared error
e_L = y - c_L, weighted by beta. So the published clamped network of output variance Sigma_0 has beta = 1 / Sigma_0.

Source: Whittington and Bogacz 2017.

Exact limit: as beta -> 0, once the states have settled, the gradient of the mean of C at the forward pass. The error is
O(beta).
"""

from collections.abc import Mapping
from typing import ClassVar, Literal, get_args

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from ..._checks import choose, count, non_negative, positive
from ...contract import Batch, Card, Credit, Learner, Needs, Rule
from ...energies import BacktrackingFlow, Feedforward, State
from ...losses import Loss, SquaredError, as_loss
from ...nets import Chain
from ._rule import report, restless

Output = Literal["clamped", "nudged"]


class PredictiveCoding(Rule):
    """Predictive coding: clamp the answer, let the layers' states settle, and learn from their prediction errors.

    Use it on feedforward networks: prediction is a plain forward pass, and an update is a Hebbian product of a layer's
    own error and the rate of the layer below. It takes a chain, which is read as `energies.Feedforward`, or one of
    these, for variances of its layers other than 1; no other energy. An inference step multiplies by each weight above
    the first once in each direction.

    It was published clamped, with beta = 1, 20 steps, Adam and batches of 20, on 784-600-600-10 with sigmoids.

    It reports, as metrics that begin with `inference_`: `steps` taken, the mean over the batch; `residual`, the speed
    of the batch's fastest unit at the end, and as `residual_1` and on that of each layer's; `converged`, the fraction
    of examples that settled to `tolerance`.

    Args:
        beta: strength of the nudge, or of the clamped output: one over the output's variance; in units of the energy
            per unit of the cost, above 0. The smaller, the nearer to backprop, down to about 1e-4 in single
            precision, where the errors are no longer large beside the rounding of the states.
        output: `"clamped"`, the answer stands in the output layer's place; or `"nudged"`, the output layer has a state
            of its own, on which the cost pulls. Clamped, the last of the energy's `variances` has no effect: 1 / beta
            takes its place.
        steps: inference steps, at most. An error needs a step for each layer on its way down.
        step_size: gamma of the first step, in units of the units' time constant, above 0. It is halved for an example
            whose step raises the energy: a step can be no longer than 2 over the energy's curvature, which grows with
            the weights.
        tolerance: inference ends early for an example once none of its units moves faster than this; 0 or more. At 0
            all steps are taken.
        loss: the cost C, by name or as a `Loss`.

    Raises:
        ValueError: a number is out of its range, or a name is unknown.

    References:
        Whittington & Bogacz. An approximation of the error backpropagation algorithm in a predictive coding network
        with local Hebbian synaptic plasticity. Neural Computation, 2017.
    """

    beta: float = 1.0
    output: Output = eqx.field(default="clamped", static=True)
    steps: int = eqx.field(default=20, static=True)
    step_size: float = 0.1
    tolerance: float = 0.0
    loss: Loss = eqx.field(default_factory=SquaredError, converter=as_loss, kw_only=True)

    card: ClassVar[Card] = Card(
        name="Predictive coding",
        family="equilibrium",
        needs=Needs.READING,
        source=("whittington2017", "bengio2017"),
        dossier=("S59",),
        local=True,
        weight_transport=True,
        phases=2,
        derivatives=True,
        limit="backprop, as beta goes to 0 in a settled state",
    )

    def __check_init__(self):
        """Refuse numbers out of their range and unknown names."""
        positive("beta", self.beta)
        choose("output", self.output, get_args(Output))
        count("steps", self.steps)
        positive("step_size", self.step_size)
        non_negative("tolerance", self.tolerance)

    def accept(self, model: PyTree) -> Feedforward:
        """Return the energy that this rule trains, with its inference as the relaxation.

        Raises:
            TypeError: it is neither a chain nor `energies.Feedforward`; the message says what to pass instead.
        """
        model = super().accept(model)
        inference = BacktrackingFlow(self.steps, self.step_size, self.tolerance)
        if isinstance(model, Chain):
            return Feedforward(model, relaxation=inference)
        if isinstance(model, Feedforward):
            return Feedforward(model.chain, variances=model.variances, relaxation=inference)
        raise TypeError(
            f"PredictiveCoding needs a chain, or energies.Feedforward, but model is a {type(model).__name__}; pass "
            "ap.nets.mlp(784, 300, 300, 10, key=key), or choose EquilibriumPropagation, which trains any energy"
        )

    def credit(self, learner: Learner, batch: Batch, *, key: Key[Array, ""]) -> Credit:
        """Return dF/dtheta / beta where inference ends."""
        del key
        clamped = self.output == "clamped"

        def pull(model: Feedforward, state: State) -> Float[Array, " batch"]:
            answer = model.predictions(state, batch.x)[-1] if clamped else model.output(state)
            return self.beta * self.loss(answer, batch.y)

        model = learner.model
        free = model.start(batch.x)
        start = free[:-1] if clamped else free
        end = model.settle(batch.x, start, nudge=lambda state: pull(model, state))

        def total(model: Feedforward) -> Float[Array, ""]:
            return jnp.mean(model.energy(end.state, batch.x) + pull(model, end.state)) / self.beta

        output = model.output(free)
        loss = jnp.mean(self.loss(output, batch.y))
        return Credit(loss, output, (eqx.filter_grad(total)(model), None), learner.memory, report("inference", end))

    def complaint(self, metrics: Mapping[str, float]) -> str | None:
        """Say that inference does not settle to the tolerance."""
        taken = f"{self.steps} steps of at most {self.step_size:g}"
        return restless(metrics, "inference", self.tolerance, taken, "more steps")
