"""Checkpoints: the state of a run after an epoch, in one safetensors file, written whole or not at all."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from .._files import without_nan, write_whole


class CheckpointError(ValueError):
    """A checkpoint cannot be used: it is damaged, or it belongs to other settings."""


def save(path: Path, state: PyTree, note: dict[str, Any]) -> None:
    """Write every array of `state`, `note` as JSON beside them, and a sum of all that, to `path`.

    Raises:
        OSError: the file cannot be written, as on a full disk.
    """
    arrays = {f"{i:05d}": np.ascontiguousarray(_plain(leaf)) for i, leaf in enumerate(jax.tree.leaves(state))}
    text = json.dumps(without_nan(note), allow_nan=False)
    metadata = {"anyprop": text, "sha256": _sum(text, arrays)}
    try:
        write_whole(path, lambda temporary: save_file(arrays, temporary, metadata=metadata))
    except SafetensorError as error:  # in which safetensors wraps what the system says
        raise OSError(f"{path} cannot be written ({error}); make room for it, or pass another out folder") from error


def read(path: Path, like: Mapping[str, Any]) -> tuple[dict[str, Any], list[np.ndarray]]:
    """Return the note, which has the names of `like`, and the arrays that `save` wrote.

    A checkpoint without a sum, as they were written at first, is refused: nobody can tell whether it is whole.

    Raises:
        CheckpointError: the file is damaged or not one of ours.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata()
            arrays = {name: file.get_tensor(name) for name in sorted(file.keys())}
        text, written = metadata["anyprop"], metadata["sha256"]
        note = json.loads(text)
        if _sum(text, arrays) != written:
            raise ValueError("its contents are not those whose SHA-256 it holds")
        if missing := [name for name in like if name not in note]:
            raise ValueError(f"its note lacks {', '.join(missing)}")
    except (SafetensorError, KeyError, TypeError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} is damaged or not a checkpoint of this version of anyprop ({error}); remove it, and the "
            "results beside it, to start again"
        ) from error
    return note, list(arrays.values())


def restore(path: Path, arrays: list[np.ndarray], like: PyTree) -> PyTree:
    """Return the state whose arrays were read from `path`, in the structure of `like`.

    Raises:
        CheckpointError: the arrays do not fit `like`.
    """
    leaves, treedef = jax.tree.flatten(like)
    wanted = [(_plain(leaf).shape, _plain(leaf).dtype) for leaf in leaves]
    if wanted != [(array.shape, array.dtype) for array in arrays]:
        raise CheckpointError(f"{path} holds arrays of other shapes than this run; pass another out folder")
    return jax.tree.unflatten(treedef, [_typed(a, leaf) for a, leaf in zip(arrays, leaves, strict=True)])


def _sum(text: str, arrays: Mapping[str, np.ndarray]) -> str:
    """The SHA-256 of a note and of the arrays beside it, each with its name, type and shape, in the order given."""
    digest = hashlib.sha256(text.encode())
    for name, array in arrays.items():
        digest.update(f"{name}:{array.dtype}{array.shape};".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _is_key(leaf: jax.Array) -> bool:
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _plain(leaf: jax.Array) -> np.ndarray:
    return np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf)


def _typed(array: np.ndarray, like: jax.Array) -> jax.Array:
    restored = jax.numpy.asarray(array)
    return jax.random.wrap_key_data(restored) if _is_key(like) else restored
