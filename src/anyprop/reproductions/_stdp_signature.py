"""The signature of spike-timing-dependent plasticity, from a rule of rate times slope (Bengio et al. 2017).

A weight changes by its input's rate times the slope of its output. Simulated spike by spike, its mean change against
the time between the two spikes has the shape that Bi and Poo measured. The paper draws the curve; the settings of its
own simulation are not known, and the numbers here are those of a straight course to the threshold.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ..diagnose import STDPSignature, stdp_signature
from ._reproduction import Claim, Options, Reproduction

PAIRS = 1_000_000
"""Pairs of spikes that count as a pass: there is no end to them."""

EXPECTED = {0.25: 1.22, 0.75: 0.85, 1.25: 0.54, 1.75: 0.38, 2.25: 0.30, 4.75: 0.14}
"""The size of the mean change, by the size of the interval."""


def run(options: Options) -> tuple[Mapping[str, Sequence[float]], dict[str, Any]]:
    """Simulate, each seed by itself."""
    pairs = PAIRS * (options.epochs or REPRODUCTION.epochs)
    seeds = options.seeds or REPRODUCTION.seeds
    found = [jax.tree.map(np.asarray, stdp_signature(key=jax.random.key(s), pairs=pairs)) for s in range(seeds)]
    measured = {key: [numbers(one)[key] for one in found] for key in numbers(found[0])}
    plot(found, options.out / "signature.png")
    details = {
        "settings": {"pairs": pairs},
        "curves": {
            "interval": found[0].interval.tolist(),
            **{name: [getattr(one, name).tolist() for one in found] for name in ("change", "error", "pairs")},
        },
    }
    return measured, details


def numbers(found: STDPSignature) -> dict[str, float]:
    """What the claims are about."""
    side = len(found.interval) // 2
    later, earlier = found.change[side:], -found.change[side - 1 :: -1]
    error = np.hypot(found.error[side:], found.error[side - 1 :: -1])
    sizes = {
        f"size of the mean change at intervals of {interval}": float((later + earlier)[bin] / 2)
        for bin, interval in enumerate(found.interval[side:].round(2).tolist())
        if interval in EXPECTED
    }
    falls = np.concatenate([np.diff(later), np.diff(earlier)]) < 0
    return sizes | {
        "share of intervals with the sign of the change": float(np.mean(np.concatenate([later, earlier]) > 0)),
        "share of steps outwards on which the change falls": float(np.mean(falls)),
        "asymmetry in standard errors, root mean square": float(np.sqrt(np.mean(((later - earlier) / error) ** 2))),
    }


def plot(found: Sequence[STDPSignature], path: Path) -> None:
    """Save the curve, a mean over seeds and a band from the lowest to the highest."""
    # matplotlib takes long to import, so it waits until there is something to draw.
    from ..report._plots import MUTED, _draw, _figure, _save, looks
    from ..report._records import Curve

    interval, changes = np.asarray(found[0].interval), np.stack([one.change for one in found])
    side = changes.shape[1] // 2
    look = looks(["output first", "input first"])
    figure, (ax,) = _figure(8.0, 4.0)
    ax.axhline(0, color=MUTED, linewidth=1)
    ax.axvline(0, color=MUTED, linewidth=1)
    for name, half in (("output first", slice(None, side)), ("input first", slice(side, None))):
        c = changes[:, half]
        _draw(ax, Curve(interval[half], c.mean(0), c.min(0), c.max(0)), look[name])
    ax.set_xlabel("Time from the input's spike to the output's")
    ax.set_ylabel("Mean change of the weight")
    _save(figure, path)


REPRODUCTION = Reproduction(
    name="stdp-signature",
    title="The mean change of a weight against the time between two spikes, from a rule of rate times slope",
    source=("bengio2017stdp", "bipoo2001"),
    claims=(
        *(
            Claim(f"size of the mean change at intervals of {interval}", size, "", 0.01, "theory")
            for interval, size in EXPECTED.items()
        ),
        Claim("share of intervals with the sign of the change", 1.0, "", 0.0, "theory"),
        Claim("share of steps outwards on which the change falls", 1.0, "", 0.0, "theory"),
        Claim("asymmetry in standard errors, root mean square", 1.0, "", 0.5, "theory"),
    ),
    epochs=10,
    seeds=3,
    minutes=0.5,
    run=run,
)
