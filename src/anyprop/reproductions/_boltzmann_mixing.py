"""Mixing stops as a model sharpens (Bengio 2016): Gibbs sampling of Boltzmann machines whose weights grow.

Two machines of 20 units that are -1 or 1, without biases: a restricted one, whose layers take turns, and a general
one, whose units do. Weights are drawn from N(0, 1/n), n the number of units that each is joined to. Every state is
then as probable as its opposite, so a sampler has to cross from one half of them to the other. The weights are
multiplied by a scale, which is an inverse temperature. 100 chains start from noise, and after a burn-in the integrated
autocorrelation time of the visible units is measured, in sweeps; above a tenth of the chains' length it is a lower
bound.

The deck states the effect and no number.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from .. import nets
from ..diagnose import autocorrelation_time
from ..energies import Boltzmann, GeneralBoltzmann
from ..energies._boltzmann_machine import BoltzmannMachine, Groups
from ._reproduction import Claim, Options, Reproduction

UNITS = 10
"""Visible units, and as many hidden ones."""

SCALES = (0.5, 1.0, 1.5, 2.0, 2.5, 3.0)
CHAINS = 100
EPOCH = 100
"""Sweeps that count as a pass: there are no data."""


def restricted(key: Key[Array, ""]) -> Boltzmann:
    """Two layers of spins, the weights drawn from N(0, 1/10)."""
    return Boltzmann(nets.mlp(UNITS, UNITS, output="tanh", init="glorot-normal", key=key))


def general(key: Key[Array, ""]) -> GeneralBoltzmann:
    """Spins, all joined, the weights drawn from N(0, 1/19)."""
    return GeneralBoltzmann(UNITS, UNITS, kind="spin", scale=(2 * UNITS - 1) ** -0.5, key=key)


def mixing_time(machine: BoltzmannMachine, sweeps: int, key: Key[Array, ""]) -> Float[Array, ""]:
    """The autocorrelation time of the visible units, in sweeps.

    Args:
        machine: the machine.
        sweeps: as many are discarded, and as many measured.
        key: random key.
    """

    def sweep(state: Groups, key: Key[Array, ""]) -> tuple[Groups, Float[Array, "chains visible"]]:
        state = machine.sweep(state, machine.groups, key)
        return state, state[0]

    key_start, key_sweeps = jax.random.split(key)
    start = machine.start(CHAINS, key=key_start)
    return autocorrelation_time(jax.lax.scan(sweep, start, jax.random.split(key_sweeps, 2 * sweeps))[1][sweeps:])


def run(options: Options) -> tuple[Mapping[str, Sequence[float]], dict[str, Any]]:
    """Measure both machines at every scale, a machine a seed."""
    sweeps = EPOCH * (options.epochs or REPRODUCTION.epochs)
    seeds = options.seeds or REPRODUCTION.seeds
    times = {
        "restricted": _times(restricted, sweeps, seeds),
        "general": _times(general, sweeps, seeds),
    }
    measured = {
        f"{name}: time at weight scale {SCALES[0]} over that at {SCALES[-1]}": [row[0] / row[-1] for row in rows]
        for name, rows in times.items()
    }
    plot(times, options.out / "times.png")
    settings = {"units": 2 * UNITS, "scales": list(SCALES), "chains": CHAINS, "sweeps": sweeps}
    return measured, {"settings": settings, "autocorrelation_time": times}


def plot(times: Mapping[str, Sequence[Sequence[float]]], path: Path) -> None:
    """Save the autocorrelation times, by machine (seeds, scales), against the scale.

    Lines are geometric means over seeds, and bands reach from the lowest to the highest.
    """
    # matplotlib takes long to import, so it waits until there is something to draw.
    from ..report._plots import _draw, _figure, _legend, _save, _value_axis, looks
    from ..report._records import Curve

    look = looks(list(times))
    figure, (ax,) = _figure(8.0, 4.0)
    for name, rows in times.items():
        time = np.array(rows)
        _draw(ax, Curve(np.array(SCALES), np.exp(np.log(time).mean(0)), time.min(0), time.max(0)), look[name])
    _value_axis(ax, "Autocorrelation time, in sweeps", [float(t) for rows in times.values() for t in np.ravel(rows)])
    ax.set_xlabel("Scale of the weights")
    _legend(figure, list(times), look)
    _save(figure, path)


def _times(draw: Callable[[Key[Array, ""]], BoltzmannMachine], sweeps: int, seeds: int) -> list[list[float]]:
    @eqx.filter_jit
    def at(scale: Float[Array, ""], key: Key[Array, ""]) -> Float[Array, ""]:
        key_machine, key_chains = jax.random.split(key)
        return mixing_time(jax.tree.map(lambda leaf: scale * leaf, draw(key_machine)), sweeps, key_chains)

    return [[float(at(jnp.asarray(scale), jax.random.key(seed))) for scale in SCALES] for seed in range(seeds)]


REPRODUCTION = Reproduction(
    name="boltzmann-mixing",
    title="The autocorrelation time of Gibbs sampling grows steeply with the weights of a Boltzmann machine",
    source=("ackley1985", "bengio2016talk"),
    claims=tuple(
        Claim(
            f"{name}: time at weight scale {SCALES[0]} over that at {SCALES[-1]}",
            0.1,
            "ratio",
            0.0,
            "own target",
            at_most=True,
        )
        for name in ("restricted", "general")
    ),
    epochs=50,
    seeds=5,
    minutes=2.0,
    run=run,
)
