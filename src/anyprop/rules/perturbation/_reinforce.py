"""REINFORCE: every stochastic unit learns from its own noise and one number that all units share.

    h_l ~ p(h_l | a_l),    e_l = d log p(h_l | a_l) / da_l          (h_l - p_l for Bernoulli-logistic units)
    delta_l = (C - b_l) e_l,    dW_l = outer(delta_l, h_{l-1})      hidden layers: C of this example, for all
    dW_L = dC/dW_L at the sampled h_{L-1}                           the last layer, which draws nothing
    ds_l = (C - b_l) ((h_l - mu_l)^2 / sigma_l^2 - 1)               Gaussian units that learn s = log sigma

The baseline b must not depend on the unit's own sample; then it changes the variance and not the mean:

    none       0
    mean       running mean of C
    input      b(x) = v x + c, itself learned: descends 1/2 (b(x) - C)^2
    optimal    E[e^2 C] / E[e^2] for each unit, which minimises the variance of e (C - b)

Source: Williams 1992; the optimal baseline: Greensmith, Bartlett and Baxter 2004, for each unit in Bengio,
Leonard and Courville 2013.

Exact limit: the expectation over all samples is the gradient of E[C], for any baseline.
"""

from collections.abc import Sequence
from typing import ClassVar, Literal, NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from ..._checks import choose, fraction
from ...contract import Batch, Card, Credit, DataInfo, Learner, Needs, exact_gradient
from ...losses import SquaredError
from ...nets import Chain, mlp, sites
from ._stochastic import (
    RunningMean,
    StochasticRule,
    assemble_update,
    example_of,
    hidden_traces,
    per_example,
    root_mean_square,
    sampled_pass,
)


class Extras(NamedTuple):
    """What the rule trains besides the network, None where it does not: the optimizer moves these too.

    Attributes:
        baseline: predicts the cost from the input.
        log_sigma: for each hidden layer log sigma, one for each unit.
    """

    baseline: Chain | None = None
    log_sigma: list[Float[Array, "..."]] | None = None


class Reinforce(StochasticRule):
    """REINFORCE: all layers get the same scalar cost, and each unit correlates it with its own noise.

    Use it where no error can be sent down at all: units need to know the cost and nothing about the layers
    above. The estimate is unbiased for the network of stochastic units, but its variance grows with their
    number, so expect to need small learning rates, and a baseline. The mean-field network, which the model
    is when it predicts, is not exactly what was trained; units that have become certain agree with it.

    `Credit.loss` and `Credit.output` are those of the sampled pass. Its metric `advantage` is the root mean
    square of C - b: the smaller, the less variance.

    Args:
        baseline: what is subtracted from the cost: `"none"`, a running `"mean"`, a learned linear function
            of the `"input"`, or for each unit the one that is `"optimal"` for its variance. Running ones
            are zero on the first batch.
        decay: of the running averages of `"mean"` and `"optimal"`, per batch, at least 0 and below 1.
        units: `"bernoulli"` for Bernoulli-logistic units (hidden layers must be sigmoid), or `"gaussian"`
            for any activation plus Gaussian noise, whose score needs the activation's derivative.
        learn_sigma: whether each Gaussian unit learns its own standard deviation, from the same cost and
            baseline, starting at `sigma`: how much a unit explores then falls where noise costs.
        sigma: standard deviation of Gaussian units, in units of their activity; Bernoulli units have none.
        loss: the cost, by name or as a `Loss`.

    Raises:
        ValueError: `baseline` or `units` is unknown, `decay` is outside [0, 1), `sigma` is not positive, or
            `learn_sigma` is asked of units that have no sigma.

    References:
        Williams. Simple statistical gradient-following algorithms for connectionist reinforcement learning.
        Machine Learning, 1992.
        Greensmith, Bartlett & Baxter. Variance reduction techniques for gradient estimates in reinforcement
        learning. Journal of Machine Learning Research, 2004.
    """

    baseline: Literal["none", "mean", "input", "optimal"] = eqx.field(default="mean", static=True)
    decay: float = 0.9
    learn_sigma: bool = eqx.field(default=False, static=True, kw_only=True)

    card: ClassVar[Card] = Card(
        name="REINFORCE",
        family="perturbation",
        needs=Needs.CHAIN,
        source=("williams1992", "greensmith2004", "bengio2013"),
        dossier=("S09",),
        local=True,
        weight_transport=False,
        phases=1,
        derivatives=False,
        limit="the gradient of E[C] over the units' samples, in expectation",
    )

    def __check_init__(self):
        """Refuse an unknown baseline, a decay outside [0, 1), and units without a sigma to learn."""
        choose("baseline", self.baseline, ("none", "mean", "input", "optimal"))
        fraction("decay", self.decay)
        if self.learn_sigma and self.units != "gaussian":
            raise ValueError(f"learn_sigma: {self.units} units have no sigma; pass units='gaussian' with it")

    def init(self, model: PyTree, *, data: DataInfo | None = None, key: Key[Array, ""]) -> Learner:
        """Start the baseline at zero, and every sigma that is learned at the one given."""
        del data
        model = self.accept(model)
        units = [trace.output for trace in hidden_traces(model, example_of(model))]
        extras = Extras(
            mlp(example_of(model).size, 1, init="zeros", key=key) if self.baseline == "input" else None,
            [jnp.full(h.shape[1:], jnp.log(self.sigma), h.dtype) for h in units] if self.learn_sigma else None,
        )
        if self.baseline == "mean":
            zeros = [jnp.zeros((), h.dtype) for h in units]
        elif self.baseline == "optimal":
            zeros = [jnp.zeros(h.shape[1:], h.dtype) for h in units]
        else:
            return Learner(model, extras)
        return Learner(model, extras, [RunningMean(zero, zero) for zero in zeros])

    def estimate(self, learner: Learner, batch: Batch, noise: Sequence[Float[Array, "batch ..."]]) -> Credit:
        """Return the estimate that this noise makes."""
        s = learner.feedback.log_sigma
        samplers = self.samplers(noise, None if s is None else [jnp.exp(one) for one in s])
        sampled = sampled_pass(self.loss, learner.model, samplers, batch)
        hidden = zip(samplers, sites(learner.model), sampled.traces, strict=False)
        scores = [sampler.score(site, trace) for sampler, site, trace in hidden]
        baselines, gradient, memory = self._baseline(learner, batch, sampled.costs, scores)
        advantages = [per_example(sampled.costs, e) - b for e, b in zip(scores, baselines, strict=True)]
        errors = [A * e / len(batch.x) for A, e in zip(advantages, scores, strict=True)]
        update = assemble_update(learner.model, sampled, errors)
        ds = None
        if s is not None:  # (h - mu) / sigma is the noise
            ds = [jnp.mean(A * (xi**2 - 1), axis=0) for A, xi in zip(advantages, noise, strict=True)]
        metrics = {"advantage": root_mean_square(advantages)}
        return Credit(jnp.mean(sampled.costs), sampled.output, (update, Extras(gradient, ds)), memory, metrics)

    def _baseline(
        self,
        learner: Learner,
        batch: Batch,
        costs: Float[Array, " batch"],
        scores: list[Float[Array, "batch ..."]],
    ) -> tuple[list[Float[Array, "..."]], PyTree, PyTree]:
        """Each hidden layer's b, from before this batch's samples, and the baseline's gradient and memory."""
        if self.baseline == "none":
            return [jnp.zeros(())] * len(scores), None, None
        if self.baseline == "input":
            cases = Batch(batch.x.reshape(len(batch.x), -1), costs[:, None])
            _, b, gradient = exact_gradient(SquaredError(), learner.feedback.baseline, cases)
            return [per_example(b[:, 0], e) for e in scores], gradient, None
        weights = [e**2 if self.baseline == "optimal" else jnp.ones_like(costs) for e in scores]
        running = zip(learner.memory, weights, strict=True)
        memory = [mean.after(self.decay, per_example(costs, weight), weight) for mean, weight in running]
        return [mean.value for mean in learner.memory], None, memory
