"""A layered network that starts where a forward pass leaves it, and stays near.

    s^f_k = f(W^f_k s^f_{k-1} + b^f_k) + leak (W^f_k s^f_{k-1} + b^f_k),   s^f_0 = x        weights of their own
    s^f_k = f(2 (W_k s^f_{k-1} + b_k)),   and once, not twice, in the last layer            the network's own weights
    E = E_network(s, x) + tether sum_k ||s_k - s^f_k||^2

The forward pass is a constant to E: no derivative passes through it. Of the network's own weights it takes every drive
from below twice, in the place of the drive from above that is not there yet. Both are the same where each two layers
are an auto-encoder: the layer above returns W_{k+1}^T s_{k+1} = W_k s_{k-1} + b_k. Then the forward pass is at rest,
in a `Convergent` network, and in a `Hopfield` network of hard sigmoids or rectifiers. Curved units of the latter, such
as tanh, rest elsewhere, for their slope weighs what they hear. How far the layers are from being auto-encoders,

    sum_{k<L} 1/2 ||W_{k+1}^T s^f_{k+1} - (W_k s^f_{k-1} + b_k)||^2,

is made smaller by a rule that is local: the weights from above predict the drive from below.

Source: O'Connor, Gavves and Welling 2019; Bengio, Scellier, Bilaniuk, Sacramento and Senn 2016.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .._checks import non_negative
from ..nets import Activation, Chain
from ._convergent import Convergent
from ._energy import Energy, Nudge
from ._layered import RANGES, Activity, Layered, inner, primitive, walk
from ._relaxation import Dynamics, GradientFlow, Relaxation


class Initialized(Energy):
    """A network that settles from a forward pass rather than from zero.

    Args:
        network: what settles: a chain read as `Hopfield` or `Convergent`.
        forward: a chain of the same layers, whose weights make the forward pass; None for the network's own weights.
        tether: how strongly the state is held near the forward pass, in units of the energy per squared unit of the
            state; 0 or more.
        leak: slope that is added to each nonlinearity of the forward pass, so that units out of their range can
            learn; 0 or more. The network's own weights pass on without.
        relaxation: how it settles when it is called.

    Raises:
        TypeError: `network` is no chain read as one of these.
        ValueError: a number is out of its range.

    References:
        O'Connor, Gavves & Welling. Initialized equilibrium propagation for backprop-free training. ICLR, 2019.
    """

    network: Layered
    forward: Chain | None = None
    tether: float = eqx.field(default=0.1, static=True, kw_only=True)
    leak: float = eqx.field(default=0.01, static=True, kw_only=True)
    relaxation: Relaxation = eqx.field(default_factory=GradientFlow, kw_only=True)

    def __check_init__(self):
        """Refuse what has no layers with a state, and numbers out of their range."""
        if not isinstance(self.network, Layered):
            raise TypeError(
                f"network must be an energies.Hopfield or energies.Convergent, not {type(self.network).__name__}; read "
                "a chain as one, such as energies.Hopfield(chain)"
            )
        non_negative("tether", self.tether)
        non_negative("leak", self.leak)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input, without the batch axis."""
        return self.network.input_shape

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of one prediction, without the batch axis."""
        return self.network.output_shape

    def ahead(self, x: Activity) -> list[Activity]:
        """Return s^f_1 ... s^f_L; the derivatives of each go to its own layer, and no further down."""
        return [s for s, _, _ in self._pass(x)]

    def energy(self, state: PyTree, x: Activity) -> Float[Array, " batch"]:
        """Return the network's energy and that of the tether, of each example."""
        return self.network.energy(state, x) + self._pull(x)(state)

    def dynamics(self, x: Activity, nudge: Nudge | None = None) -> Dynamics:
        """Return the network's own dynamics, with the tether as one more nudge."""
        pull = self._pull(x)
        return self.network.dynamics(x, pull if nudge is None else lambda state: pull(state) + nudge(state))

    def start(self, x: Activity) -> PyTree:
        """Return the forward pass, as far as the units' range allows."""
        return self.project(jax.lax.stop_gradient(self.ahead(x)))

    def project(self, state: PyTree) -> PyTree:
        """Return the nearest state in the range of the units."""
        return self.network.project(state)

    def output(self, state: PyTree) -> Activity:
        """Return the network's prediction."""
        return self.network.output(state)

    def disagreement(self, x: Activity) -> Float[Array, " batch"]:
        """Return sum_{k<L} 1/2 ||W_{k+1}^T s^f_{k+1} - (W_k s^f_{k-1} + b_k)||^2 of each example.

        Only what comes from above has a derivative.
        """
        chain, (_, rates, below) = self.network.chain, zip(*self._pass(x), strict=True)
        both = jax.grad(lambda rates: jnp.sum(primitive(chain, rates, x)))(jax.lax.stop_gradient(list(rates)))
        errors = [b - a - jax.lax.stop_gradient(a) for b, a in zip(both, below, strict=True)]
        return sum((0.5 * inner(e, e) for e in errors[:-1]), start=jnp.zeros(len(x)))

    def _pull(self, x: Activity) -> Nudge:
        ahead = jax.lax.stop_gradient(self.ahead(x))

        def pull(state: PyTree) -> Float[Array, " batch"]:
            apart = (s - f for s, f in zip(state, ahead, strict=True))
            return self.tether * sum((inner(d, d) for d in apart), start=jnp.zeros(len(x)))

        return pull

    def _pass(self, x: Activity) -> list[tuple[Activity, Activity, Activity]]:
        """Each layer's state, its rate, and its drive from below, in a forward pass."""
        own = self.forward is None
        last, found = len(self.network.activations), []

        def respond(activation: Activation, below: Activity) -> Activity:
            drive = 2 * below if own and len(found) < last - 1 else below
            leak = 0.0 if own else self.leak * drive
            rate = activation(drive) + leak
            is_rate = isinstance(self.network, Convergent) or activation in RANGES
            found.append((rate if is_rate else drive + leak, rate, below))
            return jax.lax.stop_gradient(rate)

        walk((self.network.chain if self.forward is None else self.forward).stages, x, respond)
        return found
