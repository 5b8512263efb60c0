"""A chain read as a convergent network whose feedback is weaker than its forward weights, by a factor gamma.

    dx_k/dt = f_k(W_k x_{k-1} + gamma W_{k+1}^T x_{k+1} + b_k) - x_k,   x_0 = x,   k = 1 ... L

and nothing comes from above the outputs. It descends

    E = sum_k gamma^(k-L) (G_k(x_k) - <x_k, W_k x_{k-1} + b_k>),   G_k'(x) = f_k^-1(x)

as -gamma^(L-k) dE/dx_k = W_k x_{k-1} + gamma W_{k+1}^T x_{k+1} + b_k - f_k^-1(x_k). With gamma = 1 this is
`Convergent`; as gamma -> 0 its rest is the chain's own forward pass, from which it starts.

The outputs' rates are what their loss compares with y, such as softmax(a_L) for the cross-entropy of logits a_L. So
they can be clamped to y.

Source: Xie and Seung 2003.
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import xlogy
from jaxtyping import Array, Float, PyTree

from .._checks import positive
from ..losses import BinaryCrossEntropy, CrossEntropy, Loss, SquaredError
from ..nets import ACTIVATIONS, Activation, Chain
from ._convergent import LEAKS, Convergent
from ._layered import Activity, inner, walk
from ._reading import Reading
from ._relaxation import Dynamics, GradientFlow, Relaxation, Settled


class WeakFeedback(Reading):
    """A chain that settles under weak feedback, and whose outputs can be clamped.

    The state is a list of the rates of each hidden layer and, last, the drives a_L of the outputs, which their rates
    follow. It starts at the chain's forward pass. The prediction is f_L(a_L), as the chain's own is.

    Args:
        chain: as `Convergent` takes it. For cross-entropies its outputs are logits, without an activation.
        loss: what compares the outputs with y: `CrossEntropy`, `BinaryCrossEntropy` or `SquaredError`.
        feedback: gamma, the weights down over the weights up; above 0.
        relaxation: how it settles when it is called.

    Raises:
        TypeError: a stage has no place in the energy, an activation has no inverse, or there is no rate of the
            outputs that could be clamped to y.
        ValueError: `feedback` is out of its range.

    References:
        Xie & Seung. Equivalence of backpropagation and contrastive Hebbian learning in a layered network. Neural
        Computation, 2003.
    """

    chain: Chain
    loss: Loss
    feedback: float
    relaxation: Relaxation = eqx.field(default_factory=GradientFlow, kw_only=True)

    def __check_init__(self):
        """Refuse chains without an energy, and outputs that cannot be clamped."""
        positive("feedback", self.feedback)
        *_, last = self._activations
        if isinstance(self.loss, CrossEntropy | BinaryCrossEntropy):
            if last is not ACTIVATIONS["identity"]:
                raise TypeError(
                    f"{type(self.loss).__name__} takes logits, but the chain's last layer has an activation of its "
                    "own; pass a chain with output='identity', or loss='squared-error'"
                )
        elif not isinstance(self.loss, SquaredError):
            raise TypeError(
                f"the loss {type(self.loss).__name__} has no rate that could be clamped to y; pass "
                "loss='cross-entropy', 'binary-cross-entropy' or 'squared-error'"
            )

    def start(self, x: Activity) -> list[Activity]:
        """Return the state of the forward pass, where the system rests without feedback."""
        drives: list[Activity] = []

        def respond(activation: Activation, drive: Activity) -> Activity:
            drives.append(drive)
            return activation(drive)

        walk(self.chain.stages, x, respond)
        return self._respond(drives)

    def rates(self, state: PyTree, clamp: Activity | None = None) -> list[Activity]:
        """Return x_1 ... x_L.

        Args:
            state: rates of the hidden layers, and drives of the outputs.
            clamp: what the outputs' rates are held at; default: they follow their drives.
        """
        return [*state[:-1], self.loss.expected(self.output(state)) if clamp is None else clamp]

    def energy(self, rates: PyTree, x: Activity) -> Float[Array, " batch"]:
        """Return sum_k gamma^(k-L) (G_k(x_k) - <x_k, W_k x_{k-1} + b_k>) of each example.

        Args:
            rates: x_1 ... x_L.
            x: the clamped input.
        """
        leaks = [*(LEAKS[activation] for activation in self._activations[:-1]), self._output_leak]
        held = sum(
            weight * jnp.sum(leak(rate), axis=tuple(range(1, rate.ndim)))
            for weight, leak, rate in zip(self._weights, leaks, rates, strict=True)
        )
        return held - self._primitive(rates, x)

    def dynamics(self, x: Activity, clamp: Activity | None = None) -> Dynamics:
        """Return what moves the state.

        Args:
            x: the clamped input.
            clamp: what the outputs' rates are held at; default: they follow their drives.
        """

        def answer(state: PyTree) -> list[Activity]:
            slopes = jax.grad(lambda rates: jnp.sum(self._primitive(rates, x)))(self.rates(state, clamp))
            return self._respond([slope / weight for slope, weight in zip(slopes, self._weights, strict=True)])

        def velocity(state: PyTree) -> list[Activity]:
            return jax.tree.map(jnp.subtract, answer(state), state)

        return Dynamics(velocity, lambda state: state, answer)

    def settle(
        self,
        x: Activity,
        start: PyTree | None = None,
        *,
        clamp: Activity | None = None,
        relaxation: Relaxation | None = None,
    ) -> Settled:
        """Let the system settle.

        Args:
            x: the clamped input.
            start: where to start from; default: `self.start(x)`.
            clamp: what the outputs' rates are held at; default: they follow their drives.
            relaxation: how to settle; default: `self.relaxation`.

        Raises:
            ValueError: `clamp`, where its values are known, lies outside of the range of the outputs' rates.
        """
        if clamp is not None and not isinstance(clamp, jax.core.Tracer):
            values = np.asarray(clamp)  # in NumPy, which looks at known values while the rest is traced
            self.check_clamp(float(values.min()), float(values.max()))
        start = self.start(x) if start is None else start
        return (relaxation or self.relaxation)(self.dynamics(x, clamp), start)

    def check_clamp(self, low: float, high: float) -> None:
        """Refuse targets that the outputs' rates cannot be clamped to.

        Args:
            low: the least number in y.
            high: the greatest one.

        Raises:
            ValueError: they lie outside of the range of the rates, from f_L(-inf) to f_L(inf), or 0 and 1 for the
                probabilities of cross-entropies.
        """
        least, most = 0.0, 1.0
        if isinstance(self.loss, SquaredError):
            with jax.ensure_compile_time_eval():
                least, most = self._activations[-1](jnp.array([-jnp.inf, jnp.inf])).tolist()
        if not (low >= least and high <= most):  # asked this way round, for NaN is in no range
            raise ValueError(
                f"y has targets from {low:.4g} to {high:.4g}, but the outputs, which are clamped to it, have rates "
                f"between {least:g} and {most:g}; scale y to this range, or pass a chain with output='identity' and "
                "loss='squared-error'"
            )

    def output(self, state: PyTree) -> Activity:
        """Return f_L(a_L)."""
        return self._activations[-1](state[-1])

    def __call__(self, x: Activity) -> Activity:
        """Return the prediction of the settled system; its derivatives are those of a system at rest."""
        return self.output(self.settle(x).state)

    @property
    def _activations(self) -> list[Activation]:
        """The activation of each layer, of a chain that has an energy."""
        return Convergent(self.chain).activations

    @property
    def _weights(self) -> list[float | Array]:
        """gamma^(k-L)."""
        depth = len(self._activations)
        return [self.feedback ** (k - depth) for k in range(1, depth + 1)]

    @property
    def _output_leak(self) -> Callable[[Activity], Activity]:
        """G_L, of the outputs' rates."""
        if isinstance(self.loss, CrossEntropy):
            return lambda rate: xlogy(rate, rate)
        if isinstance(self.loss, BinaryCrossEntropy):
            return LEAKS[ACTIVATIONS["sigmoid"]]
        return LEAKS[self._activations[-1]]

    def _primitive(self, rates: PyTree, x: Activity) -> Float[Array, " batch"]:
        """sum_k gamma^(k-L) <x_k, W_k x_{k-1} + b_k>."""
        phi, layers = jnp.zeros(len(x)), iter(zip(self._weights, rates, strict=True))

        def respond(activation: Activation, drive: Activity) -> Activity:
            del activation
            nonlocal phi
            weight, rate = next(layers)
            phi += weight * inner(rate, drive)
            return rate

        walk(self.chain.stages, x, respond)
        return phi

    def _respond(self, drives: list[Activity]) -> list[Activity]:
        """The state that drives lead to: f_k(a_k) of the hidden layers, and a_L."""
        hidden = zip(self._activations[:-1], drives[:-1], strict=True)
        return [*(activation(drive) for activation, drive in hidden), drives[-1]]
