"""Stochastic target propagation: layers tell each other random bits, and learn targets for their probabilities.

    p_l = sigmoid(W_l s_{l-1} + b_l),   s_l ~ Bernoulli(p_l),   s_0 = x + N(0, input_noise^2)
    t_{L-1} = p_{L-1} - eta dC/ds_{L-1},   t_{l-1} = p_{l-1} - g_l(p_l) + g_l(t_l),   g_l(p) = tanh(V_l p + c_l)
    f_l learns ||p_l - t_l||^2,   f_L learns C
    g_l learns ||g_l(f_l(s)) - z||^2,   s ~ Bernoulli(z),   z = p_{l-1} + e,   e ~ N(0, noise^2)

The gradient is taken at the sample. The noise falls as noise / (1 + steps / noise_halving).

Source: Lee, Zhang, Fischer and Bengio 2015.

Exact limit: units whose probability is 0 or 1 make it difference target propagation on the same chain.
"""

import dataclasses
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from ..._checks import count, non_negative, positive
from ...contract import Batch, Card, Credit, DataInfo, Learner, Needs
from ...nets import Activation, Chain, Series, layers
from ._layerwise import Activity, distance, nonlinearity, output_step
from ._rule import LayerTargets


class StochasticTargetPropagation(LayerTargets):
    """Difference target propagation through layers of Bernoulli units.

    Use it where units transmit random bits; `StraightThrough(stochastic=True)` is the baseline. The activity
    of every hidden layer is read as the probability of a bit, so hidden layers must end in a sigmoid.

    `Credit.output`, and the loss, are those of one pass of samples. The learner's model itself predicts
    mean-field, p_l = f_l(p_{l-1}); `sample` averages the predictions of many passes, as published.

    The optimizer moves the inverses, `learner.feedback`, beside the model, and takes a rate for each as with
    `DifferenceTargetPropagation`. The memory counts the steps.

    Args:
        target_step: eta, how far the last hidden layer's target lies down the cost's gradient, above 0.
        noise: standard deviation of the Gaussian noise on the inverses' training input at the start, in
            units of probability, 0 or more.
        noise_halving: number of steps after which the noise has fallen to half, above 0; it falls to a third
            after twice as many, and so on. The default is the published 100 epochs of 500 batches; where inverses
            and layers are trained in turns (`training.in_turns`) an epoch has twice as many steps.
        input_noise: standard deviation of the Gaussian noise on x in training, in the units of x, 0 or more.
        reduction: the cost that `target_step` multiplies the gradient of: the batch's `"mean"`, as published,
            with which an example's own step is `target_step` / batch size; or `"sum"`, each example's own.
        init_inverse: initialiser of the inverses' weights, by name (see `nets.initialiser`).
        loss: the cost, by name or as a `Loss`.

    Raises:
        ValueError: a number is out of its range, or a name is unknown.

    References:
        Lee, Zhang, Fischer & Bengio. Difference target propagation. ECML-PKDD, 2015.
    """

    target_step: float = 58.44
    noise: float = 0.5
    noise_halving: float = 50_000.0
    input_noise: float = 0.3
    init_inverse: str = eqx.field(default="glorot-uniform", static=True)

    card: ClassVar[Card] = Card(
        name="Difference target propagation, stochastic units",
        family="targets",
        needs=Needs.CHAIN,
        source=("lee2015",),
        dossier=("S28",),
        local=True,
        weight_transport=False,
        phases=2,
        derivatives=True,
        limit="difference target propagation when all probabilities are 0 or 1",
    )

    def __check_init__(self):
        """Refuse numbers out of their range."""
        positive("noise_halving", self.noise_halving)
        non_negative("input_noise", self.input_noise)

    def accept(self, model: PyTree) -> PyTree:
        """Return `model` if the activity of every hidden layer is a probability.

        Raises:
            TypeError: a hidden layer does not end in a sigmoid; the message says what to pass instead.
        """
        model = super().accept(model)
        logistic = [nonlinearity(f) is jax.nn.sigmoid for f in layers(model)[:-1]]
        if not all(logistic):
            raise TypeError(
                "StochasticTargetPropagation reads hidden layers as probabilities of bits, but hidden layer "
                f"{logistic.index(False) + 1} of {len(logistic)} does not end in a sigmoid; build the chain with "
                "activation='sigmoid', or choose DifferenceTargetPropagation"
            )
        return model

    def init(self, model: PyTree, *, data: DataInfo | None = None, key: Key[Array, ""]) -> Learner:
        """Draw one inverse g_l for each layer between the first and the last, and begin to count steps."""
        learner = super().init(model, data=data, key=key)
        return dataclasses.replace(learner, memory=jnp.zeros((), jnp.int32))

    def range_of(self, layer: Series) -> Activation:
        """The hyperbolic tangent, as published, though what it leads back to is a probability."""
        del layer
        return jnp.tanh

    def credit(self, learner: Learner, batch: Batch, *, key: Key[Array, ""]) -> Credit:
        """Return each layer's own gradient, and each inverse's; `inverse_loss` says how well they invert."""
        model, inverses, steps = learner.model, learner.feedback, learner.memory
        key_input, key_sample, key_inverse = jax.random.split(key, 3)
        x = batch.x + self.input_noise * jax.random.normal(key_input, batch.x.shape, batch.x.dtype)
        p, s = passed(model, x, key=key_sample)
        loss, output, gradient = output_step(self.loss, model, s[-2], batch, self.reduction)
        targets = self.targets(inverses, p[1:-1], gradient)
        update = eqx.filter_grad(self.forward_cost)(model, s, targets, batch)
        now = eqx.tree_at(lambda rule: rule.noise, self, self.noise / (1 + steps / self.noise_halving))
        inverting, inverse_update = eqx.filter_value_and_grad(now.inverse_cost)(inverses, model, p, key=key_inverse)
        return Credit(loss, output, (update, inverse_update), steps + 1, {"inverse_loss": inverting})

    def inverse_cost(
        self, inverses: list[Series], model: Chain, h: list[Activity], *, key: Key[Array, ""]
    ) -> Float[Array, ""]:
        """sum_l ||g_l(f_l(s)) - z||^2 with s ~ Bernoulli(z), z = p_{l-1} + noise, f_l(s) held constant."""
        cost = jnp.zeros(())
        keys = jax.random.split(key, (len(inverses), 2))
        for g, f, p, (key_noise, key_bits) in zip(inverses, layers(model)[1:-1], h[1:-2], keys, strict=True):
            z = p + self.noise * jax.random.normal(key_noise, p.shape, p.dtype)
            cost += distance(g(f(bits(z, key_bits))), z)
        return cost

    def sample(self, model: Chain, x: Activity, *, key: Key[Array, ""], draws: int = 100) -> Activity:
        """Return the prediction of a network of Bernoulli units, the mean over many passes.

        Args:
            model: the network, such as `learner.model`.
            x: inputs, without noise, the examples on the first axis.
            key: random key of the bits.
            draws: number of passes, at least 1.

        Returns:
            What the outputs stand for under `loss`, such as class probabilities, the mean over passes.

        Raises:
            ValueError: `draws` is not a positive integer.
        """
        count("draws", draws)

        def add(total: Array, key: Array) -> tuple[Array, None]:
            return total + self.loss.expected(passed(model, x, key=key)[0][-1]), None

        blank = jnp.zeros_like(model(x))
        return jax.lax.scan(add, blank, jax.random.split(key, draws))[0] / draws


def passed(model: Chain, x: Activity, *, key: Key[Array, ""]) -> tuple[list[Activity], list[Activity]]:
    """One pass of samples: x, p_1, ..., p_{L-1} and the output; and x, s_1, ..., s_{L-1} and the output."""
    *hidden, top = layers(model)
    p, s = [x], [x]
    for f, k in zip(hidden, jax.random.split(key, max(len(hidden), 1)), strict=False):
        p.append(f(s[-1]))
        s.append(bits(p[-1], k))
    output = top(s[-1])
    return [*p, output], [*s, output]


def bits(p: Activity, key: Key[Array, ""]) -> Activity:
    """1 with probability p, else 0."""
    return jax.random.bernoulli(key, p).astype(p.dtype)
