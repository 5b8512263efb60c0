"""Every registered rule, put through every check of the conformance kit."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import pytest

import anyprop as ap
from anyprop.nets import Activate, Chain, Dense, SpikingNetwork
from anyprop.rules import RULES
from anyprop.testing import CHECKS, Inapplicable, check
from anyprop.testing._case import Case, blobs, case, small_mlp


def tiny(key, depth):
    """Few enough parameters for what costs as much for each of them as others cost for all."""
    return ap.nets.mlp(4, *[3] * (depth - 1), 3, key=key)


def hard_and_sampled(key, depth):
    """Sign units and sigmoid ones by turns, so that hard and sampled layers both occur."""
    sizes = [8, *[6] * (depth - 1), 5]
    units = ["sigmoid" if layer % 2 else "sign" for layer in range(depth - 1)] + ["identity"]
    keys = jax.random.split(key, depth)
    return Chain([Dense(n, m, activation=f, key=k) for n, m, f, k in zip(sizes, sizes[1:], units, keys, strict=False)])


def signs(key, depth):
    """Layers that hear the sign of the layer below, but for the first and the last."""
    first, *rest = small_mlp(key, depth).stages
    return Chain([first, *(stage for layer in rest[:-1] for stage in (Activate("sign"), layer)), *rest[-1:]])


def autoencoder(key, depth):
    """Ways up and down in turn, mirrored: half of the layers each."""
    up = [8, 7, *[6] * depth][: (depth + 1) // 2 + 1]
    return ap.nets.mlp(*up, *reversed(up[:-1]), key=key)


def itself(key, model):
    """Inputs that are their own targets."""
    x = blobs(key, model).x
    return ap.Batch(x, x)


def spiking(key, depth):
    """Trials just long enough for spikes to reach the last layer."""
    return SpikingNetwork(3, *[4] * (depth - 1), 2, duration=10 + 10 * depth, key=key)


def rates(key, model):
    """Input rates, which are never negative, one unit high for each of two classes."""
    del model
    y = jnp.arange(10) % 2
    return ap.Batch(2 * jax.nn.one_hot(y, 3) + jax.random.uniform(key, (10, 3)), y)


def restricted(key, depth):
    """One layer of hidden units, which is as deep as an untrained machine of few sweeps learns."""
    del depth
    return ap.nets.mlp(8, 7, 5, activation="sigmoid", key=key)


def bits(key, model):
    """Inputs of zeros and ones."""
    batch = blobs(key, model)
    return ap.Batch((batch.x > 0).astype(batch.x.dtype), batch.y)


SPECIAL = {
    # ADMM's closed forms are those of piecewise linear units; from ten examples, its least squares are all but
    # interpolation, which a ridge damps.
    "admm": {"rule": ap.ADMM(ridge=0.01), "model": partial(small_mlp, activation="relu")},
    "actor-critic": {"model": partial(small_mlp, activation="sigmoid")},
    # Where mu does not grow, nothing can be seen of where it stops.
    "alternating-minimization": {"rule": ap.AlternatingMinimization(mu_increase=0.1, mu_max=1.15)},
    "alternating-minimization-memory": {"rule": ap.AlternatingMinimizationMemory(mu_increase=0.04, mu_max=0.15)},
    "offline-alternating-minimization": {"rule": ap.OfflineAlternatingMinimization(mu_increase=0.04, mu_max=0.15)},
    "conductance-perturbation": {"model": spiking, "batch": rates, "depths": (1, 2, 4)},
    "finite-differences": {"model": tiny},
    "natural-gradient": {"model": tiny},
    # Without damping it goes to the nearest stationary point, whatever that is, as its docstring says.
    "newton": {"rule": ap.rules.exact.Newton(damping=0.1, saddle_free=True), "model": tiny},
    "reinforce": {"model": partial(small_mlp, activation="sigmoid")},
    "straight-through": {"model": hard_and_sampled, "depths": (2, 4, 8)},
    # The published convention, reduction="mean", makes an example's step smaller in a larger batch.
    **{
        name: {"rule": RULES[name](reduction="sum")} for name in ("target-propagation", "difference-target-propagation")
    },
    "discrete-target-propagation": {
        "rule": ap.DiscreteTargetPropagation(target_step=2.0, reduction="sum"),
        "model": signs,
        "depths": (3, 4, 8),
    },
    "stochastic-target-propagation": {
        "rule": ap.StochasticTargetPropagation(target_step=0.58, reduction="sum"),
        "model": partial(small_mlp, activation="sigmoid"),
    },
    **{
        name: {"model": restricted, "batch": bits, "depths": ()}
        for name in ("boltzmann-learning", "contrastive-divergence", "deep-boltzmann")
    },
    # Short phases, and cold enough for a few samples to show every layer's direction.
    "stochastic-equilibrium-propagation": {
        "rule": ap.StochasticEquilibriumPropagation(
            temperature=1e-4, samples=2, spacing=2, nudged_steps=8, free_steps=12, step_size=0.5
        )
    },
    "target-propagation-em": {"model": autoencoder, "batch": itself, "depths": (2, 4, 8)},
}
"""What a rule needs besides its defaults to be tested."""


@cache
def subject(name: str) -> Case:
    return case(**{"rule": RULES[name](), **SPECIAL.get(name, {})})


@pytest.mark.parametrize("check_name", CHECKS)
@pytest.mark.parametrize("rule_name", RULES)
def test_conformance(rule_name, check_name):
    try:
        check(subject(rule_name), check_name)
    except Inapplicable as reason:
        pytest.skip(str(reason))
