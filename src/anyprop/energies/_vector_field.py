"""A chain read as a network that settles without an energy: up and down it has different weights.

    ds_k/dt = mu_k = W_k rho(s_{k-1}) + B_k rho(s_{k+1}) + b_k - s_k,     rho(s_0) = x,  k = 1 ... L

There is no derivative of rho, and the cost acts on the potential s_L itself. B_k is shaped like W_{k+1}, whose way it
goes back. Where B_k = W_{k+1}^T and rho is linear, mu is the slope of the Hopfield energy; elsewhere of none.

Source: Scellier, Goyal, Binas, Mesnard and Bengio 2018.
"""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from ..nets import Activation, Chain, affines_above_first
from ._device import Nudge
from ._hopfield import Hopfield
from ._layered import Activity, inner, walk
from ._reading import Reading
from ._relaxation import Dynamics, GradientFlow, Relaxation, Settled


class VectorField(Reading):
    """A chain with feedback weights of its own, which settles like a network of leaky rate units.

    The state is a list of the potentials of each dense or convolutional layer, and starts at zero. The prediction is
    s_L.

    Args:
        chain: as for `Hopfield`.
        feedback: B, one weight for each of `nets.affines_above_first(chain)`, shaped like that layer's own.
        relaxation: how it settles when it is called: `GradientFlow`, or `FixedPoint`, where s <- mu(s) + s.

    Raises:
        TypeError: a stage of the chain has no place in such a network.
        ValueError: a feedback weight is missing or shaped unlike the weight whose way it goes back.

    References:
        Scellier, Goyal, Binas, Mesnard & Bengio. Generalization of equilibrium propagation to vector field dynamics.
        2018.
    """

    chain: Chain
    feedback: list[Float[Array, "..."]]
    relaxation: Relaxation = eqx.field(default_factory=GradientFlow, kw_only=True)

    def __check_init__(self):
        """Refuse stages that have no place here, and feedback of other shapes than the weights'."""
        Hopfield(self.chain)
        expected = [site.weight.shape for site in affines_above_first(self.chain)]
        given = [weight.shape for weight in self.feedback]
        if given != expected:
            raise ValueError(
                f"feedback has weights of shapes {given}, but those above the chain's first layer have shapes "
                f"{expected}; pass VectorField.drawn(chain, key=key) to draw them"
            )

    @classmethod
    def drawn(
        cls, chain: Chain, *, scale: float = 1.0, relaxation: Relaxation | None = None, key: Key[Array, ""]
    ) -> "VectorField":
        """Return the chain with random feedback weights, from the initialisers of the weights whose way they go back.

        Args:
            chain: the chain.
            scale: factor on what the initialisers draw.
            relaxation: how it settles when it is called; default: `GradientFlow()`.
            key: random key for the weights.
        """
        Hopfield(chain)  # refuses other stages before their weights are asked for
        above = affines_above_first(chain)
        keys = jax.random.split(key, max(len(above), 1))
        feedback = [scale * site.redraw(k).weight for site, k in zip(above, keys, strict=False)]
        return cls(chain, feedback, relaxation=relaxation or GradientFlow())

    def start(self, x: Activity) -> list[Activity]:
        """Return zeros for every layer."""
        return Hopfield(self.chain).start(x)

    def field(self, state: list[Activity], x: Activity) -> list[Activity]:
        """Return mu.

        Args:
            state: s_1 ... s_L.
            x: the clamped input.
        """
        rates = [f(s) for f, s in zip(Hopfield(self.chain).activations, state, strict=True)]
        back = _with_weights(self.chain, self.feedback)
        up = jax.grad(lambda post: jnp.sum(directed(self.chain, post, rates, x)))(rates)
        down = jax.grad(lambda pre: jnp.sum(directed(back, rates, pre, x)))(rates)
        return jax.tree.map(lambda u, d, s: u + d - s, up, down, state)

    def dynamics(self, x: Activity, nudge: Nudge | None = None) -> Dynamics:
        """Return mu, from which the slope of a nudge is taken; and where each unit rests, given the others."""

        def velocity(state: list[Activity]) -> list[Activity]:
            pull = jax.grad(lambda s: jnp.sum(nudge(s) if nudge else 0.0))(state)
            return jax.tree.map(jnp.subtract, self.field(state, x), pull)

        def answer(state: list[Activity]) -> list[Activity]:
            return jax.tree.map(jnp.add, state, velocity(state))

        return Dynamics(velocity, lambda state: state, answer)

    def settle(
        self,
        x: Activity,
        start: list[Activity] | None = None,
        *,
        nudge: Nudge | None = None,
        relaxation: Relaxation | None = None,
        key: Key[Array, ""] | None = None,
    ) -> Settled:
        """Let the network settle, with nothing but the input and the nudge acting on it; see `Energy.settle`."""
        start = self.start(x) if start is None else start
        return (relaxation or self.relaxation)(self.dynamics(x, nudge), start, key=key)

    def output(self, state: list[Activity]) -> Activity:
        """Return s_L."""
        return state[-1]

    def __call__(self, x: Activity) -> Activity:
        """Return the prediction of the settled network."""
        return self.output(self.settle(x).state)


def directed(chain: Chain, post: Sequence[Activity], pre: Sequence[Activity], x: Activity) -> Float[Array, " batch"]:
    """sum_k <post_k, W_k pre_{k-1} + b_k>: what weights carry, by the layers they lead to and the layers they leave."""
    total, layers = jnp.zeros(len(x)), iter(zip(post, pre, strict=True))

    def respond(activation: Activation, drive: Activity) -> Activity:
        del activation
        nonlocal total
        arriving, leaving = next(layers)
        total += inner(arriving, drive)
        return leaving

    walk(chain.stages, x, respond)
    return total


def _with_weights(chain: Chain, weights: Sequence[Float[Array, "..."]]) -> Chain:
    """The chain with other weights above its first layer."""
    return eqx.tree_at(lambda c: [site.weight for site in affines_above_first(c)], chain, list(weights))
