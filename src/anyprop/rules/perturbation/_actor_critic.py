"""Actor-critic inside a network: each stochastic layer is an actor, and its own critic predicts the cost.

    h_l ~ p(h_l | a_l),    e_l = d log p(h_l | a_l) / da_l,    y: the target, which the critics may see

    advantage    delta_l = (C - Q_l(h_{l-1}, y)) e_l             unbiased: Q_l does not know h_l
    gradient     delta_l = f'(a_l) * dQ_l(h_l, y)/dh_l           biased, low variance: a synthetic gradient

    dW_l = outer(delta_l, h_{l-1}),    dphi_l = d/dphi 1/2 (Q_l - C)^2,    Q_l = b + q_l

b is the running mean of C, so that the network q_l need only learn what differs between examples and samples.

The last layer draws nothing and gets dC/dW_L at the sampled h_{L-1}.

Source: Barto, Sutton and Anderson 1983, read as credit assignment between layers; the critic's gradient is
that of Jaderberg et al. 2017. `TemporalDifferenceActorCritic` is the other reading: between time steps.

Exact limit: in mode "advantage" the expectation over samples is the gradient of E[C], for any critic.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from ..._checks import choose, count, fraction
from ...contract import Batch, Card, Credit, DataInfo, Learner, Needs, exact_gradient
from ...losses import SquaredError, targets
from ...nets import Trace, mlp, sites
from ._stochastic import (
    RunningMean,
    StochasticRule,
    assemble_update,
    example_of,
    hidden_traces,
    per_example,
    root_mean_square,
    sampled_pass,
    through_activation,
)


class ActorCritic(StochasticRule):
    """Actor-critic credit assignment: small learned critics tell each stochastic layer what cost to expect.

    Use it to trade variance for bias. With `"advantage"` it is REINFORCE with the best kind of baseline, one
    that knows the example and what the layer received. With `"gradient"` a layer follows its critic
    downhill: hardly any noise, but only as right as the critic, whose fit must keep up with the network.

    A critic is a one-hidden-layer tanh network for each hidden layer, in `Learner.feedback`: the same
    optimizer moves it. `Credit.loss` and `Credit.output` are those of the sampled pass; the metric `critic`
    is the root mean square of C - Q.

    Args:
        mode: `"advantage"` or `"gradient"`.
        critic_width: hidden units of each critic.
        decay: of the running mean of the cost, per batch, at least 0 and below 1.
        units: `"bernoulli"` for Bernoulli-logistic units (hidden layers must be sigmoid), or `"gaussian"`
            for any activation plus Gaussian noise, whose score needs the activation's derivative.
        sigma: standard deviation of Gaussian units, in units of their activity; Bernoulli units have none.
        loss: the cost, by name or as a `Loss`.

    Raises:
        ValueError: `mode` or `units` is unknown, `critic_width` is below 1, `decay` is outside [0, 1), or
            `sigma` is not positive.

    References:
        Barto, Sutton & Anderson. Neuronlike adaptive elements that can solve difficult learning control
        problems. IEEE Transactions on Systems, Man, and Cybernetics, 1983.
        Jaderberg et al. Decoupled neural interfaces using synthetic gradients. ICML, 2017.
    """

    mode: Literal["advantage", "gradient"] = eqx.field(default="advantage", static=True)
    critic_width: int = eqx.field(default=32, static=True)
    decay: float = 0.9

    card: ClassVar[Card] = Card(
        name="Actor-critic",
        family="perturbation",
        needs=Needs.CHAIN,
        source=("barto1983", "jaderberg2017"),
        dossier=("S10",),
        local=True,
        weight_transport=False,
        phases=1,
        derivatives=False,
        limit='mode "advantage": the gradient of E[C] over the units\' samples, in expectation',
    )

    def __check_init__(self):
        """Refuse an unknown mode, a critic without hidden units, and a decay outside [0, 1)."""
        choose("mode", self.mode, ("advantage", "gradient"))
        count("critic_width", self.critic_width)
        fraction("decay", self.decay)

    def init(self, model: PyTree, *, data: DataInfo | None = None, key: Key[Array, ""]) -> Learner:
        """Draw one critic for each hidden layer, and start the running mean of the cost at zero."""
        del data
        model = self.accept(model)
        seen = [self._seen(trace).size for trace in hidden_traces(model, example_of(model))]
        output = jax.eval_shape(model, example_of(model))
        keys = jax.random.split(key, max(len(seen), 1))
        critics = [mlp(n + output.size, self.critic_width, 1, key=k) for n, k in zip(seen, keys, strict=False)]
        zero = jnp.zeros((), output.dtype)
        return Learner(model, critics, RunningMean(zero, zero))

    def estimate(self, learner: Learner, batch: Batch, noise: Sequence[Float[Array, "batch ..."]]) -> Credit:
        """Return the estimate that this noise makes."""
        samplers = self.samplers(noise)
        sampled = sampled_pass(self.loss, learner.model, samplers, batch)
        examples = len(batch.x)
        y = targets(sampled.output, batch.y).reshape(examples, -1)
        centred = sampled.costs - learner.memory.value

        errors, gradients, surprises = [], [], []
        actors = zip(learner.feedback, samplers, sites(learner.model), sampled.traces, strict=False)
        for critic, sampler, site, trace in actors:
            sight = jnp.concatenate([self._seen(trace).reshape(examples, -1), y], axis=1)
            _, q, gradient = exact_gradient(SquaredError(), critic, Batch(sight, centred[:, None]))
            surprise = centred - q[:, 0]
            if self.mode == "advantage":
                error = per_example(surprise, trace.output) * sampler.score(site, trace)
            else:
                slope = jax.grad(lambda s, critic=critic: jnp.sum(critic(s)))(sight)[:, : -y.shape[1]]
                error = through_activation(site, trace, slope.reshape(trace.output.shape))
            errors.append(error / examples)
            gradients.append(gradient)
            surprises.append(surprise)

        update = assemble_update(learner.model, sampled, errors)
        memory = learner.memory.after(self.decay, sampled.costs, jnp.ones_like(sampled.costs))
        metrics = {"critic": root_mean_square(surprises)}
        return Credit(jnp.mean(sampled.costs), sampled.output, (update, gradients), memory, metrics)

    def _seen(self, trace: Trace) -> Any:
        """What a layer's critic sees, an array or its shape: the layer's input or its sample."""
        return trace.input if self.mode == "advantage" else trace.output
