"""What `fit` and `compare` refuse, before anything is compiled or written."""

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, PyTree

from .. import _checks
from .._files import without_nan
from ..contract import Batch, Rule
from ..data import Data
from ..losses import Loss
from ._checkpoint import CheckpointError
from ._program import describe


def check_rule(rule: Rule) -> None:
    """Refuse what is no rule, such as the name or the class of one.

    Raises:
        TypeError: it is none.
    """
    if not isinstance(rule, Rule):
        name = rule.__name__ if isinstance(rule, type) else "KolenPollack"
        raise TypeError(f"rule must be a rule, such as {name}(), not {rule!r}")


def check(
    rule: Rule,
    model: PyTree,
    data: Data,
    *,
    epochs: int,
    batch_size: int,
    patience: int | None,
    optimizer: optax.GradientTransformation | None = None,
    callbacks: Sequence[Callable[..., bool | None]] = (),
) -> Data:
    """Refuse a run that cannot go well, before anything is compiled or written.

    Args:
        rule: the rule.
        model: the network, or one of several alike.
        data: the data.
        epochs: passes over the training split.
        batch_size: examples of one step.
        patience: epochs to wait for a better validation loss, or None.
        optimizer: the optimizer, or None.
        callbacks: what is called after every epoch.

    Returns:
        The data in the shape that the model takes.

    Raises:
        ValueError: a number is out of its range, sizes do not fit, or labels do not fit the outputs.
        TypeError: an argument is of another kind, or the rule cannot train this kind of network.
    """
    check_rule(rule)
    if not isinstance(data, Data):
        raise TypeError(f"data must be loaded first, such as ap.data.load('mnist'), not a {type(data).__name__}")
    if optimizer is not None:
        check_optimizer("optimizer", optimizer)
    if not (isinstance(callbacks, Sequence) and all(map(callable, callbacks))):
        raise TypeError(f"callbacks must be a sequence of functions, such as [print], not {callbacks!r}")
    _checks.count("epochs", epochs)
    _checks.count("batch_size", batch_size)
    if patience is not None:
        _checks.count("patience", patience)
        data.split("validation")
    if batch_size > len(data.train):
        raise ValueError(
            f"batch_size={batch_size} is more than the {len(data.train)} training examples; pass a smaller one"
        )
    rule.accept(model)
    if hasattr(model, "input_shape"):
        data = data.shaped(model.input_shape)
    output = answer_shape(model, jax.ShapeDtypeStruct((1, *data.transform.shape), jnp.float32))
    if len(output) != 1:
        raise ValueError(
            f"net answers an example with shape {output}, and data hold one label or one row of targets for each; pass "
            "a net with one row of outputs, such as ap.nets.elman(..., sequence=False), or train it in a loop of your "
            "own, with y for every time step (see Rule.credit)"
        )
    for split in (data.train, data.validation, data.test):
        if split is not None:
            rule.loss.check(split.y, *output)
    # Some rules refuse a model only here. One that looks at numbers, which there are none of yet, is heard in `fit`.
    with contextlib.suppress(jax.errors.JAXTypeError):
        eqx.filter_eval_shape(lambda key: rule.init(model, data=describe(data), key=key), jax.random.key(0))
    return data


def check_optimizer(name: str, value: Any) -> None:
    """Refuse what is no optimizer.

    Raises:
        TypeError: it is of another kind; the message names the argument.
    """
    if not (hasattr(value, "init") and hasattr(value, "update")):
        raise TypeError(f"{name} must be one of Optax, such as optax.adam(1e-3), not {value!r}")


def answer_shape(model: PyTree, x: Array | jax.ShapeDtypeStruct) -> tuple[int, ...]:
    """The shape of what a network, or one of shapes in the place of arrays, answers an example of a batch `x`.

    Raises:
        TypeError: it cannot be called on `x`.
    """
    try:
        return eqx.filter_eval_shape(lambda model, x: model(x), model, x).shape[1:]
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"net cannot be called on a batch of shape {x.shape}; if it takes one example, as those of equinox.nn "
            "do, convert it with ap.nets.from_equinox, or pass equinox.filter_vmap(net)"
        ) from error


def check_settings(settings: Mapping[str, Any] | None) -> None:
    """Refuse what cannot be recorded beside the results.

    Raises:
        TypeError: it is no mapping, or holds what JSON cannot say.
    """
    if settings is None:
        return
    if not isinstance(settings, Mapping):
        raise TypeError(f"settings must be a mapping, such as {{'note': 'first try'}}, not {settings!r}")
    try:
        json.dumps(without_nan(dict(settings)))
    except TypeError as error:
        raise TypeError(f"settings must hold numbers, texts and lists, which JSON can say: {error}") from error


def check_targets(loss: Loss, batch: Batch, outputs: int) -> None:
    """Refuse a batch whose targets do not fit its inputs, the loss or the network's outputs.

    Raises:
        ValueError: they do not.
    """
    if len(batch.x) != len(batch.y):
        raise ValueError(f"x holds {len(batch.x)} examples and y {len(batch.y)}: pass as many labels as examples")
    loss.check(np.asarray(batch.y), outputs)


def refuse_results(folder: Path, *, resume: bool) -> None:
    """Raise if `folder` holds results that a run would replace: nothing that a user has is overwritten.

    Without a checkpoint there is nothing to go on from; but a run that was killed before its first one has lost nothing
    when it starts again.

    Raises:
        FileExistsError: it holds an earlier run, and `resume` is not asked for.
        CheckpointError: it is, and there are results, but no checkpoint.
    """
    there = [name for name in ("checkpoint.safetensors", "results.json", "metrics.jsonl") if (folder / name).exists()]
    if there and not resume:
        raise FileExistsError(
            f"out={str(folder)!r} holds an earlier run ({', '.join(there)}); pass resume=True to go on with it, or "
            "another folder"
        )
    if "checkpoint.safetensors" not in there and ("results.json" in there or _learned(folder / "metrics.jsonl")):
        raise CheckpointError(
            f"out={str(folder)!r} holds the results of an earlier run, and no checkpoint to go on from; pass another "
            "out folder, or move them away"
        )


def _learned(lines: Path) -> bool:
    """Whether a `metrics.jsonl` has any epoch but 0, or something that nobody can read."""
    try:
        epochs = [json.loads(line)["epoch"] for line in lines.read_text(encoding="utf-8").splitlines()]
    except FileNotFoundError:
        return False
    except (ValueError, KeyError, TypeError):
        return True
    return any(epochs)


def refuse_others(folder: Path, rules: Iterable[str]) -> None:
    """Raise if `folder` holds results that a comparison of `rules` would replace, though it resumes.

    Raises:
        ValueError: it holds a run of `fit`, or a rule that is not among them, or nobody can read what.
    """
    if (folder / "metrics.jsonl").exists():  # a comparison has them one folder below
        raise ValueError(f"out={str(folder)!r} holds a run of fit, not a comparison; pass another out folder")
    path = folder / "results.json"
    if not path.exists():
        return
    try:
        there = list(json.loads(path.read_text(encoding="utf-8"))["settings"]["rules"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged; move it away, or pass another out folder") from error
    if lost := [name for name in there if name not in rules]:
        raise ValueError(
            f"out={str(folder)!r} also holds the results of {', '.join(lost)}; name them, too, or pass another out "
            "folder"
        )


def list_seeds(seeds: int | Sequence[int]) -> list[int]:
    """The seeds that `fit` is asked for, as integers of Python, which alone JSON knows."""
    if isinstance(seeds, Iterator):
        raise TypeError(
            f"seeds must be how many, or a sequence such as [0, 1], not a {type(seeds).__name__}; pass list(...) of it"
        )
    if not isinstance(seeds, Iterable):
        _checks.count("seeds", seeds)
        return list(range(int(seeds)))
    for seed in seeds:
        _checks.count("seeds", seed, least=0)
    if not len(seeds) or len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds={seeds} must name at least one seed, and each only once")
    return [int(seed) for seed in seeds]
