"""Memory with one row for each training example; `Batch.index` says which rows a batch has."""

from typing import TypeVar

import jax
from jaxtyping import Array, Int, PyTree

from ..contract import Batch, DataInfo

Variables = TypeVar("Variables", bound=PyTree)


def count_examples(rule: str, data: DataInfo | None) -> int:
    """Return the number of training examples, which a rule with variables for each of them must know.

    Raises:
        ValueError: `data` is missing.
    """
    if data is None:
        raise ValueError(
            f"data is missing: {rule} keeps variables for every training example; pass "
            "init(model, data=DataInfo(examples, x, y), key=key), or train with ap.fit, which does"
        )
    return data.examples


def row_index(rule: str, batch: Batch) -> Int[Array, " batch"]:
    """Return which rows of the memory belong to the batch.

    Raises:
        ValueError: `batch.index` is missing.
    """
    if batch.index is None:
        raise ValueError(
            f"batch.index is missing: {rule} keeps variables for every training example; pass Batch(x, y, index) "
            "with each example's number in the training set"
        )
    return batch.index


def take_rows(memory: Variables, index: Int[Array, " batch"]) -> Variables:
    """Return the rows of every array of the memory that belong to a batch."""
    return jax.tree.map(lambda rows: rows[index], memory)


def put_rows(memory: Variables, index: Int[Array, " batch"], new: Variables) -> Variables:
    """Return the memory with the rows that belong to a batch replaced."""
    return jax.tree.map(lambda rows, row: rows.at[index].set(row), memory, new)
