"""`load`: from a name, a path or a user's own arrays to `Data`."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from .._checks import choose, count
from . import _arrays, _source
from ._catalogue import DATASETS, lookup
from ._data import AUGMENTATIONS, Data, Split, Transform

_STATISTICS_ROWS = 1024  # examples averaged at once: no float64 copy of a whole split


def load(
    source: str | os.PathLike[str] | Mapping[str, Any] | Iterable[Any],
    *,
    validation: int | None = None,
    standardise: bool = False,
    augmentation: Sequence[str] = (),
    seed: int = 0,
    train_size: int | None = None,
    reconstruct: bool = False,
) -> Data:
    """Load a data set by name, or a user's own data.

    Own data are checked before anything else happens. `uint8` examples are images, kept as they are and
    scaled to [0, 1] by the transform; all other numbers become `float32` features, used as they are.
    Integer `y` are labels 0, 1, ..., one for each example; float `y` of shape (n, k) are targets. Where every row
    of these is a single 1 among zeros, they are labels of k classes, and errors are counted, too.

        data = ap.data.load("mnist", validation=10_000)
        data = ap.data.load((x_train, y_train, x_test, y_test))

    Args:
        source: one of
            a name: "mnist" (in the package), "fashion-mnist", "cifar10", "cifar100", "higgs", looked for
            in `$ANYPROP_DATA/<name>/`, then in the user's cache, else downloaded there;
            a path: an `.npz` file or a folder of `.npy` files with x_train, y_train, x_test, y_test
            and optionally x_validation, y_validation;
            arrays: a tuple (x_train, y_train, x_test, y_test), or a mapping from "train" and optionally
            "validation" and "test" to pairs (x, y);
            batches: an iterable of pairs (x, y), gathered into the training split.
        validation: how many training examples to hold out as the validation split: the last ones,
            unshuffled (10,000 of MNIST give the classic 50,000). None holds none out.
        standardise: whether to subtract the mean and divide by the standard deviation of the training
            split: one number for grey images, one a channel for colour, one a feature otherwise.
        augmentation: of training images: any of "flip" (left and right) and "crop" (padded by 4).
        seed: of the permutation of the rows of HIGGS, which are split into training and test (5,000 rows;
            in the published file its last 500,000). Nothing else is random.
        train_size: keep the first so many training examples only, after the validation split was cut.
        reconstruct: put each example, flat and as the transform makes it, in the place of its label: for
            auto-encoders.

    Returns:
        The data, on the host and as they were stored; `Data.transform` makes inputs of them.

    Raises:
        ValueError: an argument that does not fit, a file that is truncated or altered, labels that are
            not integers from 0 to classes - 1, numbers that are not finite, lengths that differ, an
            empty split, `reconstruct` beside `augmentation`. The message says which, and what to pass instead.
        FileNotFoundError: the files are nowhere, and cannot be downloaded; the message names every
            place that was looked at.
    """
    if isinstance(augmentation, str):
        raise ValueError(f"augmentation must be a sequence of names: pass ({augmentation!r},)")
    for name in augmentation:
        choose("augmentation", name, AUGMENTATIONS)
    for argument, value in (("validation", validation), ("train_size", train_size)):
        if value is not None:
            count(argument, value)
    if reconstruct and augmentation:
        raise ValueError("reconstruct=True has the stored images for targets, not changed ones: pass augmentation=()")

    name, arrays, classes = _gather(source, seed)
    splits, classes = _arrays.check(arrays, classes)
    splits = _cut(splits, validation, train_size)
    train = splits["train"]
    shape = train.x.shape[1:]
    transform = _transform(train.x, standardise)
    if reconstruct:
        splits, classes = {name: _own_target(split, transform) for name, split in splits.items()}, None
        train = splits["train"]
    return Data(
        name=name,
        train=train,
        validation=splits.get("validation"),
        test=splits.get("test"),
        classes=classes,
        shape=shape,
        transform=transform,
        augmentation=tuple(augmentation),
    )


def _gather(source: Any, seed: int) -> tuple[str, dict[str, Any], int | None]:
    """Return a name, raw arrays for each split, and the number of classes where it is known."""
    if isinstance(source, str | os.PathLike):
        if isinstance(source, str) and source in DATASETS:
            dataset = lookup(source)
            return source, dict(dataset.read(_source.obtain(dataset), seed)), dataset.classes
        path = Path(source).expanduser()
        # A word that is no file is a misspelt name; anything else that is not there, a missing file.
        if isinstance(source, str) and path.name == source and not path.suffix and not path.exists():
            choose("source", source, DATASETS)
        return path.stem, _arrays.from_path(path), None
    if isinstance(source, Mapping):
        return "arrays", _arrays.from_mapping(source), None
    if isinstance(source, tuple) and len(source) == 4 and all(hasattr(array, "shape") for array in source):
        x_train, y_train, x_test, y_test = source
        return "arrays", {"train": (x_train, y_train), "test": (x_test, y_test)}, None
    return "batches", {"train": _arrays.from_batches(source)}, None


def _cut(splits: dict[str, Split], validation: int | None, train_size: int | None) -> dict[str, Split]:
    train = splits["train"]
    if validation is not None:
        if "validation" in splits:
            raise ValueError(
                f"validation={validation}, but these data bring a validation split of "
                f"{len(splits['validation'])} examples: pass validation=None"
            )
        if validation >= len(train):
            raise ValueError(f"validation={validation} must be below the number of training examples, {len(train)}")
        held_out = Split(train.x[-validation:], train.y[-validation:])
        train = Split(train.x[:-validation], train.y[:-validation])
        splits = {**splits, "validation": held_out}
    if train_size is not None:
        if train_size > len(train):
            raise ValueError(f"train_size={train_size} is above the number of training examples, {len(train)}")
        train = Split(train.x[:train_size], train.y[:train_size])
    return {**splits, "train": train}


def _own_target(split: Split, transform: Transform) -> Split:
    return Split(split.x, transform.standard(split.x.astype(np.float32)).reshape(len(split), -1))


def _transform(x: np.ndarray, standardise: bool) -> Transform:
    scale = 1 / 255 if x.dtype == np.uint8 else 1.0
    mean, std = np.zeros((), np.float32), np.ones((), np.float32)
    if standardise:
        mean, std = _statistics(x, scale)
    return Transform(scale=scale, mean=mean, std=std, shape=x.shape[1:])


def _statistics(x: np.ndarray, scale: float) -> tuple[Float32[np.ndarray, "..."], Float32[np.ndarray, "..."]]:
    # Images have one mean a channel, and grey ones, flat or not, a single one; features one each.
    grey = x.dtype == np.uint8 and (x.ndim < 4 or x.shape[-1] == 1)
    axes = tuple(range(x.ndim - 1 if grey else x.ndim - 2))

    # Sums in float64, terms in float32: the deviations are taken from a mean that is known by then.
    def average(of: Callable[[np.ndarray], np.ndarray]) -> Float32[np.ndarray, "..."]:
        chunks = (x[i : i + _STATISTICS_ROWS] * np.float32(scale) for i in range(0, len(x), _STATISTICS_ROWS))
        total = sum(of(chunk).sum(0, dtype=np.float64) for chunk in chunks)
        return np.asarray(np.mean(total, axes) / len(x), np.float32)

    mean = average(lambda chunk: chunk)
    std = np.sqrt(average(lambda chunk: np.square(chunk - mean)))
    # A feature that never changes stays at zero after the mean is taken away.
    return mean, np.where(std > 0, std, np.float32(1))
