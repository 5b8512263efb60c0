"""Checkpoints: the state of a run after an epoch, in one safetensors file, written whole or not at all."""

import json
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
    """Write every array of `state`, and `note` as JSON beside them, to `path`."""
    arrays = {f"{i:05d}": np.ascontiguousarray(_plain(leaf)) for i, leaf in enumerate(jax.tree.leaves(state))}
    text = json.dumps(without_nan(note), allow_nan=False)
    write_whole(path, lambda temporary: save_file(arrays, temporary, metadata={"anyprop": text}))


def read_note(path: Path) -> dict[str, Any]:
    """Return the note that `save` wrote.

    Raises:
        CheckpointError: the file is damaged or not one of ours.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            return json.loads(file.metadata()["anyprop"])
    except (SafetensorError, KeyError, TypeError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} is damaged or not an anyprop checkpoint ({error}); remove it to start again"
        ) from error


def restore(path: Path, like: PyTree) -> PyTree:
    """Return the state saved in `path`, in the structure of `like`.

    Raises:
        CheckpointError: the file is damaged, or its arrays do not fit `like`.
    """
    leaves, treedef = jax.tree.flatten(like)
    try:
        with safe_open(path, framework="numpy") as file:
            arrays = [file.get_tensor(name) for name in sorted(file.keys())]
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is damaged ({error}); remove it to start again") from error
    wanted = [(_plain(leaf).shape, _plain(leaf).dtype) for leaf in leaves]
    if wanted != [(array.shape, array.dtype) for array in arrays]:
        raise CheckpointError(f"{path} holds arrays of other shapes than this run; pass another out folder")
    return jax.tree.unflatten(treedef, [_typed(a, leaf) for a, leaf in zip(arrays, leaves, strict=True)])


def _is_key(leaf: jax.Array) -> bool:
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _plain(leaf: jax.Array) -> np.ndarray:
    return np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf)


def _typed(array: np.ndarray, like: jax.Array) -> jax.Array:
    restored = jax.numpy.asarray(array)
    return jax.random.wrap_key_data(restored) if _is_key(like) else restored
