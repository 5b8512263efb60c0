"""What a loaded data set is: its splits, and how its raw examples become what a net takes."""

import dataclasses
import functools
import hashlib
import math
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Int32, PRNGKeyArray, Shaped, UInt8

from .._checks import choose

SPLITS = ("train", "validation", "test")
AUGMENTATIONS = ("flip", "crop")
_PAD = 4  # pixels of zero padding before a random crop, as in the CIFAR experiments of He et al. (2016)


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """One part of a data set, in memory as it was stored; the arrays are read-only.

    Args:
        x: examples on the first axis, as `uint8` images or `float32` features.
        y: `int32` labels, one for each example, or `float32` targets of shape (n, k): one-hot labels where every row
            is a single 1 among zeros.
    """

    x: UInt8[np.ndarray, "n ..."] | Float32[np.ndarray, "n ..."]
    y: Int32[np.ndarray, " n"] | Float32[np.ndarray, "n k"]

    def __post_init__(self):
        if len(self.x) != len(self.y):
            raise ValueError(f"x holds {len(self.x)} examples and y {len(self.y)}: pass one label for each example")
        for name in ("x", "y"):
            # A view, so that the caller's own array stays writable.
            view = getattr(self, name).view()
            view.flags.writeable = False
            object.__setattr__(self, name, view)

    def __len__(self) -> int:
        return len(self.x)

    @functools.cached_property
    def ends(self) -> tuple[np.ndarray, np.ndarray]:
        """The least and the greatest value of each number of an example."""
        return self.x.min(axis=0), self.x.max(axis=0)

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of types, shapes and contents."""
        digest = hashlib.sha256()
        for array in (self.x, self.y):
            digest.update(f"{array.dtype}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()


class Transform(eqx.Module):
    """From raw examples to what a net takes: `(x * scale - mean) / std`, then a reshape.

    It is a pure function of a batch, so that data can stay on the device as they were stored and be
    transformed inside a compiled step.

    Args:
        scale: factor on the raw values: 1/255 takes `uint8` images to [0, 1].
        mean: subtracted after scaling; one number, or an array that broadcasts against one raw example.
        std: divided by at last; shaped like `mean`.
        shape: shape of one transformed example.
    """

    scale: float
    mean: Float32[np.ndarray, "..."]
    std: Float32[np.ndarray, "..."]
    shape: tuple[int, ...] = eqx.field(static=True)

    def __call__(self, x: Shaped[Array | np.ndarray, "batch ..."]) -> Float32[Array, "batch ..."]:
        """Transform a batch of raw examples.

        Args:
            x: raw examples, shape (batch, *natural shape).

        Returns:
            `float32` examples, shape (batch, *self.shape).
        """
        return self.standard(jnp.asarray(x, jnp.float32)).reshape(x.shape[0], *self.shape)

    def standard(self, x: Any) -> Any:
        """Return `(x * scale - mean) / std`, of JAX or of NumPy as `x` is."""
        return (x * self.scale - self.mean) / self.std


@dataclasses.dataclass(frozen=True, eq=False)
class Data:
    """A data set in memory, as `load` returns it.

    Args:
        name: what it was loaded as.
        train: the training split.
        validation: the split to choose models by, if one was held out.
        test: the test split, if there is one; neither training nor model selection should read it.
        classes: number of classes, or None where `y` holds targets that are no one-hot labels.
        shape: natural shape of one raw example: (28, 28, 1), (32, 32, 3), (28,).
        transform: takes a batch of raw examples to what a net takes.
        augmentation: what `augment` does to training images, out of "flip" and "crop".
    """

    name: str
    train: Split
    validation: Split | None
    test: Split | None
    classes: int | None
    shape: tuple[int, ...]
    transform: Transform
    augmentation: tuple[str, ...] = ()

    def __post_init__(self):
        for augmentation in self.augmentation:
            choose("augmentation", augmentation, AUGMENTATIONS)
        if self.augmentation and len(self.shape) != 3:
            raise ValueError(
                f"augmentation={self.augmentation} needs images of shape (height, width, channels), and one "
                f"example of {self.name!r} has shape {self.shape}: pass augmentation=()"
            )

    def split(self, name: str) -> Split:
        """Return a split by name.

        Args:
            name: "train", "validation" or "test".

        Raises:
            ValueError: there is no such split; the message says which there are.
        """
        choose("split", name, SPLITS)
        split = getattr(self, name)
        if split is None:
            there = ", ".join(repr(n) for n in SPLITS if getattr(self, n) is not None)
            hint = "; load with validation=<number of examples> to hold one out" if name == "validation" else ""
            raise ValueError(f"data {self.name!r} has no split {name!r}, only {there}{hint}")
        return split

    def shaped(self, input_shape: Sequence[int]) -> "Data":
        """Return the same data, delivered in the shape that a net wants.

        One grey image of shape (28, 28, 1) can be read flat as (784,), by rows as a sequence (28, 28),
        or by pixels as a sequence (784, 1). Nothing is copied: only the transform changes.

        Args:
            input_shape: shape of one input, without the batch axis.

        Returns:
            Data whose `transform` yields examples of that shape.

        Raises:
            ValueError: the number of values differs, or the shape asks for colour channels first, which
                a reshape would scramble.
        """
        wanted = tuple(int(size) for size in input_shape)
        have, want = math.prod(self.shape), math.prod(wanted)
        if have != want or min(wanted, default=0) < 1:
            raise ValueError(
                f"sizes that do not fit: one example of {self.name!r} has shape {self.shape} ({have} values) "
                f"and the net takes inputs of shape {wanted} ({want} values): build the net for {have} "
                "inputs, or pass other data"
            )
        if len(self.shape) == 3 and self.shape[-1] > 1 and wanted == (self.shape[-1], *self.shape[:2]):
            raise ValueError(
                f"input_shape={wanted} has the channels first, and {self.name!r} has them last: "
                f"build the net for inputs of shape {self.shape}"
            )
        return dataclasses.replace(self, transform=dataclasses.replace(self.transform, shape=wanted))

    def one_hot(self, y: Shaped[Array | np.ndarray, "n ..."]) -> Float32[Array, "n classes"]:
        """Return labels as rows with a single one.

        Args:
            y: integer labels, or such rows already.

        Raises:
            ValueError: these data have targets, not labels.
        """
        if self.classes is None:
            raise ValueError(f"data {self.name!r} has float targets, not labels: use y as it is")
        return jax.nn.one_hot(y, self.classes, dtype=jnp.float32) if y.ndim == 1 else jnp.asarray(y, jnp.float32)

    def augment(self, x: Shaped[Array | np.ndarray, "n ..."], *, key: PRNGKeyArray) -> Shaped[Array, "n ..."]:
        """Return a batch of raw training images, changed at random; each image in its own way.

        "flip" mirrors left and right with probability 1/2; "crop" pads 4 zero pixels on every side and
        cuts a window of the old size out. Call it inside the compiled step, before `transform`.

        Args:
            x: raw images, shape (n, height, width, channels).
            key: where the randomness comes from.

        Returns:
            Images of the same shape and type, unchanged where `augmentation` is empty.
        """
        x = jnp.asarray(x)
        flip_key, crop_key = jax.random.split(key)
        if "flip" in self.augmentation:
            flipped = jax.random.bernoulli(flip_key, shape=(x.shape[0], 1, 1, 1))
            x = jnp.where(flipped, x[:, :, ::-1], x)
        if "crop" in self.augmentation:
            padded = jnp.pad(x, ((0, 0), (_PAD, _PAD), (_PAD, _PAD), (0, 0)))
            corners = jax.random.randint(crop_key, (x.shape[0], 2), 0, 2 * _PAD + 1)
            window = x.shape[1:]
            x = jax.vmap(lambda image, at: jax.lax.dynamic_slice(image, (at[0], at[1], 0), window))(padded, corners)
        return x

    def fingerprint(self) -> str:
        """Return 16 hexadecimal digits that stand for these data: splits, sizes, contents and transform.

        A checkpoint keeps them, so that training is not resumed on other data.
        """
        return self._fingerprint

    @functools.cached_property
    def _fingerprint(self) -> str:
        digest = hashlib.sha256()
        for name in SPLITS:
            split = getattr(self, name)
            digest.update(f"{name}:{split.digest if split is not None else None};".encode())
        transform = self.transform
        digest.update(f"{self.name};{self.classes};{self.augmentation};{transform.shape};{transform.scale!r}".encode())
        for array in (transform.mean, transform.std):
            digest.update(f"{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()[:16]
