"""From flags to what they name, checked before anything is compiled or written."""

import dataclasses
import functools
import inspect
import math
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import jax
import optax

from .. import nets
from .._checks import choose, count
from .._files import writable_folder
from ..contract import Needs, Rule
from ..data import Data, load
from ..losses import LOSSES
from ..nets import Chain, SpikingNetwork
from ..training import check
from ..training._compare import one_or_each
from ..training._lock import alone
from ._flags import Examples, Network, Output, Training
from ._optimizers import default_rate, make_optimizer, optimizer_of

BUILDERS: dict[str, Callable[..., Chain]] = {
    "lenet5": nets.lenet5,
    "convnet": nets.convnet,
    "resnet20": nets.resnet20,
    "elman": nets.elman,
}
HIDDEN = 256  # units of the default network's hidden layer
RESULTS = ("results.json", "report.html", "metrics.jsonl", "checkpoint.safetensors")


def load_data(flags: Examples) -> Data:
    """The data that the flags name."""
    return load(
        flags.data,
        validation=flags.validation,
        standardise=flags.standardise,
        augmentation=flags.augment,
        train_size=flags.train_size,
        reconstruct=flags.reconstruct,
    )


# Networks --------------------------------------------------------------------------------------------


OPTIONS = {"activation": "activation", "output_activation": "output", "init": "init"}
"""Flags of a network, and what its builder calls them."""

BITS = ("sign", "step")
"""Activations that may stand between two sizes: what is heard of a layer then are bits."""


def network(flags: Network, data: Data, rules: Collection[Rule] = ()) -> functools.partial[Chain | SpikingNetwork]:
    """The function of a key that builds the network that the flags name, for these data.

    Sizes are those of a spiking network where all rules need one, and of a perceptron otherwise.

    Raises:
        ValueError: no network has this name, its sizes do not fit the data, or it has no such option.
    """
    features, outputs = math.prod(data.shape), data.classes or data.train.y.shape[-1]
    name = flags.net or f"{features}-{HIDDEN}-{outputs}"
    if name[0].isdigit():
        spiking = rules and all(rule.card.needs is Needs.SPIKING for rule in rules)
        make = SpikingNetwork if spiking else nets.mlp
        builder = functools.partial(make, *_sizes(name, data.name, features, outputs))
    else:
        builder = functools.partial(BUILDERS[choose("net", name, BUILDERS)], **_sizes_of_images(name, data, outputs))
    given = {flag: value for flag in OPTIONS if (value := getattr(flags, flag)) is not None}
    for flag, value in given.items():
        if OPTIONS[flag] not in inspect.signature(builder).parameters:
            raise ValueError(f"{flag}={value} is not an option of net={name}; leave it out")
    return functools.partial(builder, **{OPTIONS[flag]: value for flag, value in given.items()})


def name_of_network(flags: Network, build: functools.partial[Chain | SpikingNetwork]) -> str:
    """The network as `--net` names it, also where that was left out."""
    return flags.net or "-".join(map(str, build.args))


def _sizes(name: str, data: str, features: int, outputs: int) -> list[int | str]:
    sizes = [int(size) if size.isdecimal() else size for size in name.split("-")]
    if not all(size > 0 if isinstance(size, int) else size in BITS for size in sizes):
        raise ValueError(
            f"net={name} must be sizes joined by '-', each of at least 1, such as 784-256-10, or one of: "
            f"{', '.join(BUILDERS)}"
        )
    enough = (1, 2) if outputs == 2 else (outputs,)  # one output tells two classes apart
    if len(sizes) < 2 or sizes[0] != features or sizes[-1] not in enough:
        encodes = ", or reconstruct=True for an auto-encoder" if sizes[0] == sizes[-1] == features else ""
        raise ValueError(
            f"net={name} does not fit the data: an example of {data} has {features} numbers, and {outputs} outputs "
            f"are asked for; pass net={features}-{HIDDEN}-{outputs} or other hidden sizes between the two{encodes}"
        )
    return sizes


def _sizes_of_images(name: str, data: Data, outputs: int) -> dict[str, Any]:
    if len(data.shape) != 3 or (name == "lenet5" and (data.shape != (28, 28, 1) or outputs != 10)):
        wanted = "28 x 28 grey images of 10 classes" if name == "lenet5" else "images"
        raise ValueError(f"net={name} needs {wanted}, and an example of {data.name} has shape {data.shape}; pass sizes")
    if name == "lenet5":
        return {}
    if name == "elman":  # reads an image row by row
        return {"features": data.shape[1] * data.shape[2], "classes": outputs, "steps": data.shape[0]}
    return {"input_shape": data.shape, "classes": outputs}


# Runs ------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Plan:
    """What `fit` and `compare` are called with.

    Args:
        net: builds the network from a key.
        data: the data.
        optimizers: one a rule.
        budget: epochs, batch size, seeds, patience.
        settings: what to record besides.
    """

    net: functools.partial[Chain | SpikingNetwork]
    data: Data
    optimizers: dict[str, optax.GradientTransformation]
    budget: dict[str, Any]
    settings: dict[str, Any]


def plan(
    rules: Mapping[str, Rule],
    net: Network,
    examples: Examples,
    training: Training,
    rates: Mapping[str, float],
    line: str,
) -> Plan:
    """Everything that the flags of a run name, checked for every rule before the first one is trained.

    Raises:
        ValueError: a flag is out of its range, or sizes do not fit.
        TypeError: a rule cannot train this network.
    """
    extras = {"momentum": training.momentum, "weight_decay": training.weight_decay}
    budget = {name: getattr(training, name) for name in ("epochs", "batch_size", "seeds", "patience")}
    count("seeds", budget["seeds"])
    names = {name: optimizer_of(rule, training.optimizer) for name, rule in rules.items()}
    optimizers = {name: make_optimizer(names[name], rate, **extras) for name, rate in rates.items()}
    data = load_data(examples)
    build = network(net, data, rules.values())
    model = build(key=jax.random.key(0))
    for rule in rules.values():
        check(rule, model, data, **{name: value for name, value in budget.items() if name != "seeds"})

    options = inspect.signature(build).parameters
    losses = {kind: name for name, kind in LOSSES.items()}
    settings = {
        "command": line,
        "net": name_of_network(net, build),
        **{flag: options[name].default for flag, name in OPTIONS.items() if name in options},
        "loss": one_or_each({name: losses[type(rule.loss)] for name, rule in rules.items()}),
        "optimizer": one_or_each(names),
        "learning_rate": one_or_each(rates),
        **{name: value for name, value in extras.items() if value is not None},
        "train_size": len(data.train),
        "validation": None if data.validation is None else len(data.validation),
        "standardise": examples.standardise,
        "augment": list(examples.augment),
        "reconstruct": examples.reconstruct,
    }
    return Plan(build, data, optimizers, budget, settings)


def learning_rates(texts: tuple[str, ...], rules: Mapping[str, Rule], optimizer: str | None) -> dict[str, float]:
    """The learning rate of every rule from `0.1 node-perturbation=0.001`: one for all, and exceptions.

    The one for all is not for rules whose update is a whole step, unless an optimizer was asked for.

    Raises:
        ValueError: something is not a number, names no rule of this run, or is given twice.
    """
    given: dict[str, float] = {}
    for text in texts:
        name, equals, value = text.rpartition("=")
        try:
            rate = float(value)
        except ValueError:
            raise ValueError(f"learning_rate={text} must be a number, or RULE=NUMBER for one rule") from None
        if equals:
            choose("rule", name, rules)
        if name in given:
            raise ValueError(f"--learning-rate has two values for {name or 'all rules'}; pass one of the two")
        given[name] = rate
    common = given.pop("", None)

    def shared(rule: Rule) -> float:
        whole = optimizer is None and rule.whole_step
        return default_rate(rule, optimizer) if common is None or whole else common

    return {name: given[name] if name in given else shared(rule) for name, rule in rules.items()}


# Folders ---------------------------------------------------------------------------------------------


def prepare_output(flags: Output, default: Path, rules: Collection[str] = ()) -> Path:
    """The folder for results, made sure of.

    Args:
        flags: the flags.
        default: the folder where none is named.
        rules: for a comparison, the names of its rules: each has a folder below.

    Raises:
        ValueError: it holds results that this run would replace, or cannot be written to.
        BlockingIOError: results are to be replaced, and another run is writing to them.
    """
    out = flags.out or default
    if flags.resume and flags.overwrite:
        raise ValueError("--resume goes on with old results, --overwrite replaces them; pass one of the two")
    folders = [out, *(out / name for name in rules)]
    old = [path for folder in folders for path in _results(folder)]
    if old and not flags.resume and not flags.overwrite:
        raise ValueError(
            f"{out} holds results already; pass --resume to go on with them, --overwrite to replace them, "
            "or another --out"
        )
    check_json(flags.json)
    writable_folder("out", out)
    if flags.overwrite:
        for folder in folders:
            if folder.is_dir():
                with alone(folder):  # not under the hands of another run
                    for path in _results(folder):
                        path.unlink()
    return out


def check_json(path: Path | None) -> None:
    """Refuse a `--json` that cannot be written to; folders that it lacks are made when it is written.

    Raises:
        ValueError: it is a folder, or what it would lie in is none that can be written to.
    """
    if path is None:
        return
    if path.is_dir():
        raise ValueError(f"--json {path} is a folder; pass the name of a file")
    writable_folder("json", next(parent for parent in path.parents if parent.exists()))


def _results(folder: Path) -> list[Path]:
    return [folder / name for name in RESULTS if (folder / name).exists()]
