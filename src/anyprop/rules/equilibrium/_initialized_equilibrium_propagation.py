"""Initialised equilibrium propagation: a forward pass leaves little to settle, and learns from where it led.

    s^f    a forward pass, through weights of its own or the network's (`energies.Initialized`)
    s^-    the rest near s^f of  E = E_network + tether sum_k ||s_k - s^f_k||^2,   from s^f in a few steps
    s^+    that of  E + beta C,   from s^-,   beta with a random sign
    network   (dE/dtheta(s^+) - dE/dtheta(s^-)) / beta
    forward   d/dphi_k ||s^f_k - s^-_k||^2, with s^f_{k-1} and s^- constant: each layer learns to foresee its own rest

Source: O'Connor, Gavves and Welling 2019; Bengio, Scellier, Bilaniuk, Sacramento and Senn 2016 for the forward pass
through the network's own weights, and the auto-encoders that make it a good one.

Exact limit: as beta -> 0 in settled phases, the gradient of C at the rest of E for the network's weights. Without a
tether that is the rest of the network itself, and the update that of `EquilibriumPropagation`, with random signs.
"""

from typing import ClassVar, Literal, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from ..._checks import choose, count, non_negative, positive
from ...contract import Batch, Card, Credit, DataInfo, Learner, Needs
from ...energies import Initialized, State
from ...energies._layered import Layered
from ._rule import Settling, onset, report

Forward = Literal["own", "shared"]


class InitializedEquilibriumPropagation(Settling):
    """Equilibrium propagation whose free phase starts from a learned forward pass, and so needs few steps.

    Use it where the free phase of `EquilibriumPropagation` is too slow and no states can be kept between epochs. It
    takes a chain, which is read as `energies.Hopfield` or `energies.Convergent`, one of these, or an
    `energies.Initialized` of one, whose forward pass it goes on with; no other energy. `Learner.model` is
    `energies.Initialized`: its part `network` learns by equilibrium propagation, and its part `forward` to foresee
    where that settles, by costs of each layer's own. Called, it settles from the forward pass.

    Published with hard sigmoids on 784-500-10, with 4 free steps, and on 784-500-500-500-10, with 20. The forward
    part and the network can have rates of their own, by `optax.partition`.

    It reports, as metrics that begin with `free_` or `nudged_`: `steps` taken, the mean over the batch; `residual`, the
    speed of the batch's fastest unit at the end, and as `residual_1` and on that of each layer's; `converged`, the
    fraction of examples that settled to `tolerance`; and as `free_distance` how far the free phase has moved,
    ||s^- - s^f|| / ||s^-||; 0 where nothing has, and infinite where all has moved to 0.

    Args:
        beta: strength of the nudge, in units of the energy per unit of the cost, above 0; each batch draws its sign.
            Against squared error, output units without bounds withstand -beta below 1.
        nudged_steps: steps of the nudged phase, at most. An error needs a step for each layer on its way down.
        forward: the weights of the forward pass: `"own"`, which start as a copy of the network's, so that there is
            little to settle from the first; or the network's, `"shared"`.
        tether: how strongly the state is held near the forward pass, in units of the energy per squared unit of the
            state; 0 or more.
        leak: slope that is added to each nonlinearity of a forward pass of its own, so that units out of their range
            can learn; 0 or more.
        autoencoder: weight of the cost that makes a forward pass through shared weights a good one: the layer above
            is to return to each hidden unit the drive that it has from below. In units of the cost per squared unit of
            the drive; 0 or more.
        free_steps: steps of the free phase, at most.
        step_size: of each step of a gradient flow, in units of the units' time constant.
        tolerance: a phase ends early for an example once none of its units moves faster than this; 0 or more. A
            nudge is first felt as a speed of about beta times the error: a tolerance has to be far below that.
        relaxation: `"gradient-flow"`, `"fixed-point"` (the discrete-time dynamics), `"sweeps"` (layer after layer), or
            an object that brings its own steps and tolerance, `energies.FixedPoint(30, 1e-6)`, or that of an energy,
            `energy.relaxation`. Nudged phases have `nudged_steps` of it at most.
        network: how a chain is read: `"hopfield"`, or `"convergent"`, whose state is its rates, so that smooth units
            settle in discrete time too.
        loss: the cost C, by name or as a `Loss`.

    Raises:
        ValueError: a number is out of its range, a name is unknown, or `free_steps`, `step_size` or `tolerance` stands
            beside an object that has its own, `leak` beside a shared forward pass, or `autoencoder` beside one of its
            own. Raised by `init`: `tether` or `leak` is left out for an `energies.Initialized` made with another.
        TypeError: the relaxation is an object that looks for no rest.

    References:
        O'Connor, Gavves & Welling. Initialized equilibrium propagation for backprop-free training. ICLR, 2019.
        Bengio, Scellier, Bilaniuk, Sacramento & Senn. Feedforward initialization for fast inference of deep generative
        networks is biologically plausible. arXiv:1606.01651, 2016.
    """

    beta: float = 0.5
    nudged_steps: int = eqx.field(default=6, static=True)
    forward: Forward = eqx.field(default="own", static=True)
    tether: float = 0.1
    leak: float = 0.01
    autoencoder: float = 0.0
    free_steps: int = eqx.field(default=20, static=True, kw_only=True)

    card: ClassVar[Card] = Card(
        name="Initialised equilibrium propagation",
        family="equilibrium",
        needs=Needs.READING,
        source=("oconnor2019", "bengio2016"),
        dossier=("S65",),
        local=True,
        weight_transport=True,
        phases=3,
        derivatives=True,
        limit="equilibrium propagation, without a tether and in settled phases",
    )

    def __check_init__(self):
        """Refuse numbers out of their range and unknown names."""
        positive("beta", self.beta)
        count("nudged_steps", self.nudged_steps)
        choose("forward", self.forward, get_args(Forward))
        non_negative("tether", self.tether)
        non_negative("leak", self.leak)
        non_negative("autoencoder", self.autoencoder)
        if self.forward == "shared" and self.leak != InitializedEquilibriumPropagation.leak:
            raise ValueError(f"leak={self.leak} is for a forward pass of its own; pass forward='own', or leave it out")
        if self.forward == "own" and self.autoencoder:
            raise ValueError(
                f"autoencoder={self.autoencoder} is for a forward pass through shared weights; pass forward='shared', "
                "or leave it out"
            )

    def init(self, model: PyTree, *, data: DataInfo | None = None, key: Key[Array, ""]) -> Learner:
        """Read the model as a network that settles, and give it a forward pass, if it has none.

        Raises:
            TypeError: the rule cannot train this kind of model; the message says what to pass instead.
            ValueError: the model has a `tether` or a `leak` of its own, and the rule was given none.
        """
        del data, key
        model = self.accept(model)
        network, forward = (model.network, model.forward) if isinstance(model, Initialized) else (model, None)
        if not isinstance(network, Layered):
            raise TypeError(
                "InitializedEquilibriumPropagation needs layers to pass forward through, but model is a "
                f"{type(model).__name__}; pass a chain, an energies.Hopfield or energies.Convergent of one, or an "
                "energies.Initialized, or choose EquilibriumPropagation, which trains any energy"
            )
        if self.forward == "shared":
            forward = None
        elif forward is None:
            forward = jax.tree.map(jnp.copy, network.chain)
        for name in ("tether", "leak") if isinstance(model, Initialized) else ():
            own, mine = getattr(model, name), getattr(self, name)
            heard = name == "tether" or self.forward == "own"
            if heard and own != mine == getattr(InitializedEquilibriumPropagation, name):
                raise ValueError(
                    f"model has {name}={own}, but InitializedEquilibriumPropagation trains with its own {name}={mine}; "
                    f"pass {name}={own} to it"
                )
        settings = {"tether": self.tether, "leak": self.leak, "relaxation": model.relaxation}
        return Learner(Initialized(network, forward, **settings))

    def credit(self, learner: Learner, batch: Batch, *, key: Key[Array, ""]) -> Credit:
        """Return the difference of dE/dtheta between the phases over beta, and each forward layer's own gradient."""
        model, x = learner.model, batch.x
        free = model.settle(x)
        beta = self.beta * jax.random.rademacher(key, (), free.residual.dtype)

        def pull(state: State) -> Float[Array, " batch"]:
            return beta * self.loss(model.output(state), batch.y)

        nudged = model.settle(x, free.state, nudge=pull, relaxation=self.phase(self.nudged_steps))

        def cost(model: Initialized) -> Float[Array, ""]:
            contrast = (model.energy(nudged.state, x) - model.energy(free.state, x)) / beta
            if self.forward == "own":
                return jnp.mean(contrast) + _squares(model.ahead(x), free.state) / len(x)
            return jnp.mean(contrast + self.autoencoder * model.disagreement(x))

        origin = jax.tree.map(jnp.zeros_like, free.state)
        moved, size = _squares(free.state, model.start(x)), _squares(free.state, origin)
        distance = jnp.sqrt(jnp.where(moved > 0, moved / size, 0.0))
        output = model.output(free.state)
        loss = jnp.mean(self.loss(output, batch.y))
        metrics = report("free", free) | report("nudged", nudged) | {"free_distance": distance}
        metrics |= onset(model, free.state, batch, self.loss, beta)
        return Credit(loss, output, (eqx.filter_grad(cost)(model), None), learner.memory, metrics)


def _squares(state: list[Array], other: list[Array]) -> Float[Array, ""]:
    """||state - other||^2, summed over layers, units and examples."""
    return sum((jnp.sum((s - o) ** 2) for s, o in zip(state, other, strict=True)), start=jnp.zeros(()))
