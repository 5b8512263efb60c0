"""Flags that commands share, and the flags that a rule's hyper-parameters become."""

import contextlib
import dataclasses
import functools
import io
import operator
import types
import typing
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import equinox as eqx
import tyro
from tyro.conf import FlagCreatePairsOff, arg

from .._checks import choose
from ..contract import Rule
from ..losses import LOSSES
from ..nets import ACTIVATIONS, INITIALISERS
from ..rules import RULES
from ._optimizers import OPTIMIZERS


def _name_of(options: Iterable[str]) -> str:
    return "|".join(options)


@dataclasses.dataclass
class Network:
    """What learns, and by which cost.

    Args:
        net: sizes of a multi-layer perceptron joined by '-', such as 784-500-10, or a network by name. The
            first and the last size must be the data's; for two classes the last may be 1. A sign or a step after a
            hidden layer, as in 784-500-sign-500-10, is all that the next one hears of it. Conductance perturbation
            takes the sizes for a spiking network's. Each seed draws its own weights.
        activation: nonlinearity of the hidden layers.
        output_activation: nonlinearity of the last layer of a net of sizes. Energies that keep their units in a
            range, such as hard sigmoids, are published with the same one here.
        init: initialiser of the weights.
        loss: cost to train by.
    """

    net: Annotated[
        str | None,
        arg(
            metavar="SIZES|lenet5|convnet|resnet20|elman",
            help_behavior_hint="(default: one hidden layer, 256)",
        ),
    ] = None
    activation: Annotated[
        str | None,
        arg(metavar=_name_of(ACTIVATIONS), help_behavior_hint="(default: tanh, or the network's)"),
    ] = None
    output_activation: Annotated[
        str | None,
        arg(metavar=_name_of(ACTIVATIONS), help_behavior_hint="(default: identity)"),
    ] = None
    init: Annotated[
        str | None,
        arg(
            metavar=_name_of(INITIALISERS),
            help_behavior_hint="(default: glorot-normal, or the network's)",
        ),
    ] = None
    loss: Annotated[str | None, arg(metavar=_name_of(LOSSES), help_behavior_hint="(default: the rule's)")] = None


@dataclasses.dataclass
class Examples:
    """What it learns from.

    Args:
        data: a data set by name, or the path of an .npz file or of a folder of .npy files with x_train,
            y_train, x_test and y_test.
        validation: training examples to hold out as the validation split.
        standardise: subtract the mean of the training examples and divide by their standard deviation.
        augment: change training images at random.
        train_size: keep the first so many training examples only.
        reconstruct: put each example in the place of its label: for auto-encoders.
    """

    data: Annotated[str, arg(metavar="NAME|PATH")] = "mnist"
    validation: Annotated[int | None, arg(metavar="N", help_behavior_hint="(default: none)")] = None
    standardise: FlagCreatePairsOff[bool] = False
    augment: Annotated[tuple[str, ...], arg(metavar="[flip] [crop]", help_behavior_hint="(default: none)")] = ()
    train_size: Annotated[int | None, arg(metavar="N", help_behavior_hint="(default: all)")] = None
    reconstruct: FlagCreatePairsOff[bool] = False


@dataclasses.dataclass
class Training:
    """How it is trained.

    Args:
        epochs: passes over the training examples.
        batch_size: examples of one step.
        optimizer: what turns a rule's direction into a step.
        momentum: of --optimizer momentum.
        weight_decay: of --optimizer adamw.
        patience: stop early when the validation loss has not fallen for so many epochs; needs --validation.
    """

    epochs: int = 5
    batch_size: int = 100
    optimizer: Annotated[
        str | None,
        arg(
            metavar=_name_of(OPTIMIZERS),
            help_behavior_hint="(default: adam; sgd at 1 for a rule whose update is a whole step)",
        ),
    ] = None
    momentum: Annotated[float | None, arg(metavar="FLOAT", help_behavior_hint="(default: 0.9)")] = None
    weight_decay: Annotated[float | None, arg(metavar="FLOAT", help_behavior_hint="(default: 0.0001)")] = None
    patience: Annotated[int | None, arg(metavar="N", help_behavior_hint="(default: never)")] = None


@dataclasses.dataclass
class Output:
    """What is written.

    Args:
        out: folder for the results and the checkpoints.
        resume: go on with what lies in the folder, after a crash or for more epochs.
        overwrite: start again although the folder holds results; they are replaced.
        json: write the results to this file, too.
        quiet: print nothing but errors.
    """

    out: Annotated[Path | None, arg(metavar="FOLDER", help_behavior_hint="(default: below runs/)")] = None
    resume: FlagCreatePairsOff[bool] = False
    overwrite: FlagCreatePairsOff[bool] = False
    json: Annotated[Path | None, arg(metavar="FILE", help_behavior_hint="(default: none)")] = None
    quiet: FlagCreatePairsOff[bool] = False


def hyperparameter_flags(rule: type[Rule]) -> type:
    """A dataclass of a rule's hyper-parameters but the loss, with the rule's own docstring."""
    hints = {name: _sayable(hint) for name, hint in typing.get_type_hints(rule).items()}
    flags = dataclasses.make_dataclass(
        rule.__name__,
        [
            (
                field.name,
                hints[field.name],
                dataclasses.field(default=field.default, default_factory=field.default_factory),
            )
            for field in dataclasses.fields(rule)
            if field.name != "loss"
        ],
        kw_only=True,
    )
    flags.__doc__ = rule.__doc__
    return flags


def _sayable(hint: Any) -> Any:
    """Of the kinds that a hyper-parameter may be, those that a command line can say: no objects."""
    if typing.get_origin(hint) not in (types.UnionType, typing.Union):
        return hint
    kinds = [kind for kind in typing.get_args(hint) if not (isinstance(kind, type) and issubclass(kind, eqx.Module))]
    return functools.reduce(operator.or_, kinds)


def build_rule(rule: type[Rule], values: dict[str, Any], loss: str | None) -> Rule:
    """The rule with these hyper-parameters, and its own loss unless another is named."""
    return rule(**values, **({} if loss is None else {"loss": loss}))


def parse_assignment(text: str) -> tuple[str, str, Any]:
    """Read `RULE.NAME=VALUE` as a rule's name, a hyper-parameter's name, and a value of its type.

    Raises:
        ValueError: it has another form, names a rule or a hyper-parameter that does not exist, or has no such value.
    """
    left, equals, value = text.partition("=")
    rule, dot, name = left.partition(".")
    if not (equals and dot):
        raise ValueError(f"--set {text} must read RULE.NAME=VALUE, such as --set kolen-pollack.decay=0.001")
    choose("rule", rule, RULES)
    flags = hyperparameter_flags(RULES[rule])
    name, names = name.replace("-", "_"), [field.name for field in dataclasses.fields(flags)]
    if not names:
        raise ValueError(f"--set {text}: {rule} has no hyper-parameters")
    choose(f"hyper-parameter of {rule}", name, names)
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # tyro draws a box and exits
            parsed = tyro.cli(flags, args=[f"--{name}", value], config=(tyro.conf.FlagConversionOff,))
    except SystemExit:
        raise ValueError(
            f"--set {text}: {value!r} is no value of {name}; anyprop train {rule} --help shows what is"
        ) from None
    return rule, name, getattr(parsed, name)


def takes_next(word: str, rule: type[Rule]) -> bool:
    """Whether `train` with this rule reads the word as a flag whose value is the next word."""
    fields = [field for group in (Network, Examples, Training, Output, rule) for field in dataclasses.fields(group)]
    switches = {"help", *(field.name for field in fields if isinstance(field.default, bool))}
    name = word.replace("-", "_").removeprefix("__").removeprefix("no_")
    return word.startswith("--") and "=" not in word and name not in switches
