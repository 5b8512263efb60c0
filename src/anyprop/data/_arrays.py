"""A user's own arrays: reading them from where they are, and refusing what nobody could learn from."""

import zipfile
import zlib
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import IO, Any

import jax.numpy as jnp
import numpy as np

from ._data import SPLITS, Split

_NAMES = "x_train, y_train, x_test, y_test (and, if you like, x_validation, y_validation)"


def from_path(path: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Read splits from an `.npz` file or a folder of `.npy` files; pickles are refused.

    Args:
        path: the file or folder.

    Raises:
        FileNotFoundError: nothing is there, or an array is missing.
        ValueError: a file is truncated, altered or not made of plain arrays.
    """
    if path.is_dir():
        return _pair({file.stem for file in path.glob("*.npy")}, lambda name: _single(path / f"{name}.npy"), path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file or folder {path}: pass an .npz file or a folder with {_NAMES}")
    with path.open("rb") as file:
        archive = _read(file, path)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ValueError(f"{path} holds a single array: pass an .npz file or a folder with {_NAMES}")
        with archive:
            return _pair(archive.files, lambda name: _member(archive, name, path), path)


def _single(path: Path) -> np.ndarray:
    with path.open("rb") as file:
        return _read(file, path)


# From an open file: given a path, NumPy leaves it open where an archive turns out to be broken.
def _read(file: IO[bytes], path: Path) -> Any:
    try:
        return np.load(file, allow_pickle=False)
    except (ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is not a whole NumPy file of plain arrays ({error}): write it again") from error


def _member(archive: np.lib.npyio.NpzFile, name: str, path: Path) -> np.ndarray:
    try:
        return archive[name]
    except (ValueError, EOFError, OSError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{name} in {path} is not a whole, plain array ({error}): write it again") from error


def _pair(
    there: Collection[str], read: Callable[[str], np.ndarray], path: Path
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    wanted = ["train", "test"] + ["validation"] * ("x_validation" in there or "y_validation" in there)
    missing = [f"{axis}_{split}" for split in wanted for axis in "xy" if f"{axis}_{split}" not in there]
    if missing:
        raise FileNotFoundError(f"{path} lacks {', '.join(missing)}: it must hold {_NAMES}")
    return {split: (read(f"x_{split}"), read(f"y_{split}")) for split in wanted}


def from_mapping(source: Mapping[Any, Any]) -> dict[str, tuple[Any, Any]]:
    """Read splits from a mapping of split name to pair (x, y)."""
    unknown = [name for name in source if name not in SPLITS]
    if unknown or "train" not in source:
        raise ValueError(
            f"source has the splits {list(source)}: pass a mapping with 'train' and, if you like, "
            "'validation' and 'test', each a pair (x, y)"
        )
    return {name: _as_pair(pair, f"source[{name!r}]") for name, pair in source.items()}


def from_batches(source: Iterable[Any]) -> tuple[np.ndarray, np.ndarray]:
    """Gather an iterable of batches (x, y) into one pair of arrays."""
    xs: list[np.ndarray] = []
    ys: list[np.ndarray] = []
    if hasattr(source, "shape") or not isinstance(source, Iterable):
        raise ValueError(
            f"source is a {type(source).__name__}: pass a name, a path, (x_train, y_train, x_test, y_test), "
            "{'train': (x, y)} or an iterable of batches (x, y)"
        )
    for i, batch in enumerate(source):
        x, y = (np.asarray(array) for array in _as_pair(batch, f"batch {i} of source"))
        if x.ndim == 0 or y.ndim == 0 or len(x) != len(y):
            raise ValueError(
                f"batch {i} of source has x of shape {x.shape} and y of shape {y.shape}: the examples must "
                "be on the first axis of both"
            )
        if xs and (x.shape[1:], y.shape[1:], x.dtype) != (xs[0].shape[1:], ys[0].shape[1:], xs[0].dtype):
            raise ValueError(
                f"batch {i} of source has examples of {x.dtype}{x.shape[1:]} and {y.dtype}{y.shape[1:]}, and "
                f"batch 0 of {xs[0].dtype}{xs[0].shape[1:]} and {ys[0].dtype}{ys[0].shape[1:]}: all must "
                "be the same"
            )
        xs.append(x)
        ys.append(y)
    if not xs:
        raise ValueError("source yields no batches: pass an iterable of batches (x, y) that is not used up")
    return np.concatenate(xs), np.concatenate(ys)


def _as_pair(value: Any, what: str) -> tuple[Any, Any]:
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise ValueError(f"{what} is a {type(value).__name__}, not a pair: pass (x, y)")
    x, y = value
    return x, y


def check(arrays: Mapping[str, tuple[Any, Any]], classes: int | None) -> tuple[dict[str, Split], int | None]:
    """Check raw arrays and give them their types.

    Args:
        arrays: x and y of each split.
        classes: number of classes; None takes it from the training labels.

    Returns:
        The splits, and the number of classes: None for float targets that are no one-hot labels.

    Raises:
        ValueError: the arrays are no data to learn from; the message names the array.
    """
    splits = {name: _split(x, y, name) for name, (x, y) in arrays.items()}
    train = splits["train"]
    for name, split in splits.items():
        if split.x.shape[1:] != train.x.shape[1:] or split.x.dtype != train.x.dtype:
            raise ValueError(
                f"x_{name} has examples of {split.x.dtype}{split.x.shape[1:]}, and x_train of "
                f"{train.x.dtype}{train.x.shape[1:]}: all splits must be the same"
            )
        if split.y.shape[1:] != train.y.shape[1:] or split.y.dtype != train.y.dtype:
            raise ValueError(
                f"y_{name} holds {split.y.dtype} of shape {split.y.shape}, and y_train {train.y.dtype} of "
                f"shape {train.y.shape}: all splits must be the same"
            )
    if train.y.dtype != np.int32:
        return splits, train.y.shape[1] if all(_one_hot(split.y) for split in splits.values()) else None
    known = int(train.y.max()) + 1 if classes is None else classes
    for name, split in splits.items():
        if split.y.max() >= known:
            raise ValueError(
                f"y_{name} holds the label {split.y.max()}, out of range for {known} classes: labels count "
                "from 0, and the training labels must hold the highest"
            )
    return splits, known


def _split(x: Any, y: Any, name: str) -> Split:
    x, y = _examples(np.asarray(x), f"x_{name}"), _answers(np.asarray(y), f"y_{name}")
    if len(x) != len(y):
        raise ValueError(f"x_{name} holds {len(x)} examples and y_{name} {len(y)}: pass as many labels as examples")
    if len(x) == 0:
        raise ValueError(f"x_{name} is empty: pass at least one example, or leave the split out")
    return Split(x, y)


def _examples(x: np.ndarray, name: str) -> np.ndarray:
    if x.ndim < 2 or 0 in x.shape[1:]:
        raise ValueError(
            f"{name} has shape {x.shape}: pass the examples on the first axis and at least one value each "
            "(x[:, None] for single numbers)"
        )
    return np.ascontiguousarray(x) if x.dtype == np.uint8 else _float32(x, name)


def _answers(y: np.ndarray, name: str) -> np.ndarray:
    if jnp.issubdtype(y.dtype, jnp.integer) or y.dtype == np.bool_:
        if y.ndim != 1:
            raise ValueError(
                f"{name} holds integers of shape {y.shape}: pass one label for each "
                "example, shape (n,), or float targets (n, k)"
            )
        if y.size and y.min() < 0:
            raise ValueError(f"{name} holds the negative label {y.min()}: labels count from 0")
        if y.size and y.max() > np.iinfo(np.int32).max:
            raise ValueError(f"{name} holds the label {y.max()}, which is no class number")
        return np.ascontiguousarray(y, np.int32)
    if y.ndim != 2:
        raise ValueError(
            f"{name} holds {y.dtype} of shape {y.shape}: labels must be integers (y.astype(int)), targets "
            "floats of shape (n, k) (y[:, None] for a single one)"
        )
    return _float32(y, name)


def _one_hot(y: np.ndarray) -> bool:
    """Whether every row is a single 1 among zeros: as many numbers as rows are not 0, and the largest of each is 1."""
    return y.shape[1] > 1 and bool(np.count_nonzero(y) == len(y) and (y.max(axis=1) == 1).all())


def _float32(array: np.ndarray, name: str) -> np.ndarray:
    if not (jnp.issubdtype(array.dtype, jnp.number) or array.dtype == np.bool_) or jnp.issubdtype(
        array.dtype, jnp.complexfloating
    ):
        raise ValueError(f"{name} holds {array.dtype}: pass real numbers")
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused below
        array = np.ascontiguousarray(array, np.float32)
    if not np.isfinite(array).all():
        bad = int(np.flatnonzero(~np.isfinite(array.reshape(len(array), -1)).all(1))[0])
        raise ValueError(
            f"{name} holds a number that is NaN, infinite or too large for float32, first in example {bad}: "
            "clean it or leave it out"
        )
    return array
