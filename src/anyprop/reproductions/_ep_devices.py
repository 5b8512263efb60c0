"""Equilibrium propagation on imperfect devices: trained on the device itself, or trained ideally and then deployed.

A device is an energy with effective parameters that nobody knows. Three ways to a network on MNIST:

    ideal       the perfect system, trained and tested
    deployed    its parameters, programmed into the device and tested there
    on device   trained and tested on the device, by what can be measured at it

Most devices are a Hopfield network 784-100-10 of steep sigmoids. Its units may be uneven: slopes, offsets and time
constants that nobody has calibrated. One is a resistive network 784-100-10. Every seed has a device of its own, tested
without the noise of the moment. What parts differ by is tried at several levels, with the same draws, scaled.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PyTree

from .. import data, nets
from ..energies import Dynamics, Energy, GradientFlow, Hopfield, SimulatedDevice, State
from ..losses import wrong
from ..rules.equilibrium import EquilibriumPropagation
from ..training import fit
from . import _ep_resistive
from ._reproduction import Claim, Options, Reproduction

SIZES = 784, 100, 10
HOPFIELD = EquilibriumPropagation(1.0, "random-sign", free_steps=20, nudged_steps=4)
RATES = {"first": 0.1, "last": 0.05}

LEVELS = {
    "uneven units": (0.2, 0.1, 0.4),
    "mismatched weights": (0.2, 0.5, 1.0),
    "mismatched resistors": (0.6, 0.3, 1.2),
}
"""By how much parts differ: the level that a device has if its name says nothing else, and the others.

Of units, the standard deviation of the slope, of the offset in units of the state, and of the log of the time constant;
of weights and resistors, that of their log.
"""

NOISY: dict[str, Any] = {
    "state_noise": 0.04, "parameter_noise": 0.04, "levels": 256, "least": -1.0, "most": 1.0
}  # fmt: skip
"""Noise of what is read and of the weights, and weights of 8 bits."""

MISMATCH: dict[str, Any] = {"mismatch": LEVELS["mismatched weights"][0]}
RESISTORS: dict[str, Any] = {"levels": 256, "most": 0.5}


class UnevenFlow(GradientFlow):
    """A gradient flow in which every unit has a time constant of its own.

    Args:
        speeds: returns one over the time constants, an array a layer. Arrays themselves would be trained.
    """

    speeds: Callable[[], list[np.ndarray]] = eqx.field(static=True, kw_only=True)

    def step(self, dynamics: Dynamics, state: State) -> State:
        """Return P(s + eps (ds/dt) / tau)."""
        steps = jax.tree.map(lambda v, speed: self.step_size * speed * v, dynamics.velocity(state), self.speeds())
        return dynamics.project(jax.tree.map(jnp.add, state, steps))


def units(slopes: np.ndarray, offsets: np.ndarray) -> nets.Activation:
    """Steep sigmoids of the state, each unit with a slope and an offset of its own."""

    def uneven(s: Float[Array, "..."]) -> Float[Array, "..."]:
        return nets.ACTIVATIONS["steep-sigmoid"](s * slopes + offsets)

    return uneven


def hopfield(seed: int, spread: float = 0.0) -> Hopfield:
    """The Hopfield network of a seed, its units uneven by `spread`; its weights are the same for every spread."""
    random = np.random.default_rng(seed)

    def errors() -> list[np.ndarray]:
        return [spread * random.normal(size=n).astype(np.float32) for n in SIZES[1:]]

    hidden, output = (units(1 + slopes, offsets) for slopes, offsets in zip(errors(), errors(), strict=True))
    speeds = [np.exp(error) for error in errors()]
    chain = nets.mlp(*SIZES, activation=hidden, output=output, init="glorot-uniform", key=jax.random.key(seed))
    return Hopfield(chain, relaxation=UnevenFlow(HOPFIELD.free_steps, speeds=lambda: speeds))


def resistive(seed: int) -> Energy:
    """The resistive network of a seed."""
    return _ep_resistive.network(key=jax.random.key(seed))


def rates(examples: int) -> optax.GradientTransformation:
    """Descent with a rate for each layer of the Hopfield network."""
    del examples

    def layer(path: Any, _: Array) -> str:
        return "first" if "stages[0]" in jax.tree_util.keystr(path) else "last"

    def layers(params: PyTree) -> PyTree:
        return jax.tree.map_with_path(layer, params)

    return optax.partition({name: optax.sgd(rate) for name, rate in RATES.items()}, layers)


Device = tuple[Callable[[int], Energy], Mapping[str, Any]]
"""What is built, by seed, and the imperfections of its parts."""


class Kind(NamedTuple):
    """A kind of network, and devices of that kind.

    Args:
        rule: what trains it.
        network: the ideal one, by seed.
        optimizer: by the number of training examples.
        batch_size: examples of one step.
        devices: by name.
    """

    rule: EquilibriumPropagation
    network: Callable[[int], Energy]
    optimizer: Callable[[int], optax.GradientTransformation]
    batch_size: int
    devices: Mapping[str, Device]


def uneven(seed: int) -> Hopfield:
    """The Hopfield network of a seed with uneven units."""
    return hopfield(seed, LEVELS["uneven units"][0])


def at(level: float, name: str) -> str:
    """The name of a device whose parts differ by so much."""
    return name if level == LEVELS[name][0] else f"{name} at {level:g}"


def graded(name: str, device: Callable[[float], Device]) -> dict[str, Device]:
    """A device at every level."""
    return {at(level, name): device(level) for level in LEVELS[name]}


KINDS = {
    "hopfield": Kind(
        HOPFIELD,
        hopfield,
        rates,
        20,
        {
            **graded("uneven units", lambda level: (partial(hopfield, spread=level), {})),
            **graded("mismatched weights", lambda level: (hopfield, {"mismatch": level})),
            "noisy parts": (hopfield, NOISY),
            "all of these": (uneven, {**MISMATCH, **NOISY}),
        },
    ),
    "resistive": Kind(
        _ep_resistive.RULE,
        resistive,
        _ep_resistive.optimizer,
        _ep_resistive.BATCH,
        graded("mismatched resistors", lambda level: (resistive, {"mismatch": level, **RESISTORS})),
    ),
}


def run(options: Options) -> tuple[Mapping[str, Sequence[float]], dict[str, Any]]:
    """Train every network and every device; the errors are those of the last epoch."""
    mnist = data.load("mnist").shaped(SIZES[:1])
    epochs, seeds = options.epochs or REPRODUCTION.epochs, options.seeds or REPRODUCTION.seeds
    test = mnist.split("test")
    x, y = mnist.transform(test.x), jnp.asarray(test.y)
    errors: dict[str, list[float]] = {}

    def train(kind: Kind, model: PyTree, name: str, seed: int) -> PyTree:
        run = fit(
            kind.rule,
            model,
            mnist,
            optimizer=kind.optimizer(len(mnist.train)),
            epochs=epochs,
            batch_size=kind.batch_size,
            seeds=[seed],
            alignment=False,  # nobody knows the gradient of a device
            out=options.out / name.replace(" ", "-") / str(seed),
            resume=options.resume,
            name=name,
        )
        last = run.results["runs"][0]["epochs"][-1]
        errors.setdefault(f"{name}, trained there", []).append(100 * last["test_error"])
        return run.model

    for kind_name, kind in KINDS.items():
        for seed in range(seeds):
            ideal = train(kind, kind.network(seed), f"ideal {kind_name}", seed)
            for name, (build, imperfections) in kind.devices.items():
                device = SimulatedDevice(build(seed), **imperfections, key=jax.random.fold_in(jax.random.key(seed), 1))
                deployed = eqx.filter_jit(device.programmed(ideal))(x)
                errors.setdefault(f"{name}, deployed", []).append(100 * float(jnp.mean(wrong(deployed, y))))
                train(kind, device, name, seed)

    measured = {}
    for kind_name, kind in KINDS.items():
        for name in kind.devices:
            own = errors[f"{name}, trained there"]
            for other, theirs in (
                ("ideal", errors[f"ideal {kind_name}, trained there"]),
                ("deployed", errors[f"{name}, deployed"]),
            ):
                measured[f"{name}: error on device less {other}"] = [a - b for a, b in zip(own, theirs, strict=True)]
    means = {name: round(statistics.fmean(values), 2) for name, values in errors.items()}
    found = curves(errors)
    plot(found, options.out / "levels.png")
    levels = {
        name: {"level": sorted(LEVELS[name])} | {way: [statistics.fmean(e) for e in each] for way, each in ways.items()}
        for name, ways in found.items()
    }
    return measured, {"test errors": errors, "means": means, "levels": levels}


def curves(errors: Mapping[str, list[float]]) -> dict[str, dict[str, list[list[float]]]]:
    """The errors over seeds, by what parts differ in, by the way to the network, and by level, the lowest first."""
    return {
        name: {
            "ideal": [errors[f"ideal {kind_name}, trained there"]] * len(LEVELS[name]),
            "deployed": [errors[f"{at(level, name)}, deployed"] for level in sorted(LEVELS[name])],
            "on device": [errors[f"{at(level, name)}, trained there"] for level in sorted(LEVELS[name])],
        }
        for kind_name, kind in KINDS.items()
        for name in LEVELS
        if name in kind.devices
    }


def plot(curves: Mapping[str, Mapping[str, Sequence[Sequence[float]]]], path: Path) -> None:
    """Save test errors against levels: a mean over seeds, and a band from the lowest to the highest.

    Args:
        curves: by what the parts of a device differ in, and by the way to the network: by level, over seeds, in %.
        path: the file.
    """
    # matplotlib takes long to import, so it waits until there is something to draw.
    from ..report._plots import _draw, _figure, _legend, _save, _value_axis, looks
    from ..report._records import Curve

    look = looks(["ideal", "deployed", "on device"])
    figure, axes = _figure(3.0 * len(curves), 3.4, columns=len(curves))
    for ax, (name, ways) in zip(axes, curves.items(), strict=True):
        errors = {way: np.asarray(found) / 100 for way, found in ways.items()}
        for way, found in errors.items():
            _draw(ax, Curve(np.asarray(sorted(LEVELS[name])), found.mean(1), found.min(1), found.max(1)), look[way])
        _value_axis(ax, "Test error", [float(e) for found in errors.values() for e in found.ravel()])
        ax.set_xlabel(f"Level of {name}")
    _legend(figure, list(look), look)
    _save(figure, path)


DEVICES = [name for kind in KINDS.values() for name in kind.devices]
OTHERS = {at(level, name) for name, levels in LEVELS.items() for level in levels[1:]}

REPRODUCTION = Reproduction(
    name="ep-devices",
    title="Equilibrium propagation trains imperfect devices without calibration, 784-100-10 on MNIST",
    source=("scellier2017", "kendall2020"),
    claims=(
        *(
            Claim(f"{name}: error on device less ideal", 1.0, "%", 0.0, "own target", at_most=True)
            for name in DEVICES
            if name not in OTHERS  # how much can be learnt around is what the levels show
        ),
        *(
            Claim(f"{name}: error on device less deployed", 0.0, "%", 0.0, "own target", at_most=True)
            for name in DEVICES
        ),
    ),
    epochs=2,
    seeds=3,
    minutes=28.0,
    run=run,
    guess="A network trained without noise bears this much of it: the difference is of a few test images.",
)
