"""Losses and metrics: what the network is asked to do, one number an example.

A loss is called with the network's output and the batch's `y` and returns the cost of every example.
`error` is its exact derivative with respect to the output, which is the signal that feedback rules
send down. `y` may be integer labels, shape (batch,), or targets of the output's shape. A network with one
output tells label 1 from label 0.
"""

import abc
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Shaped

from ._checks import choose

Output = Float[Array, "batch ..."]
Target = Shaped[Array, "batch ..."]

_ROUNDING = 1e-3
"""How far probabilities, and their sum, may be off where they were kept in half precision."""


class Loss(eqx.Module):
    """A cost for each example.

    `threshold` is where a single output goes over from label 0 to label 1: halfway between the two targets.
    """

    threshold: ClassVar[float] = 0.5

    @abc.abstractmethod
    def __call__(self, output: Output, y: Target) -> Float[Array, " batch"]:
        """Return the cost of each example."""

    def error(self, output: Output, y: Target) -> Output:
        """Return dC/d(output) of each example's own cost, not of the batch's mean."""
        return jax.grad(lambda o: jnp.sum(self(o, y)))(output)

    def expected(self, output: Output) -> Output:
        """Return the answer that an output stands for, in the units of y: probabilities of logits, else itself."""
        return output

    def check(self, y: Shaped[np.ndarray, "..."], outputs: int) -> None:
        """Refuse targets that this loss cannot be computed on.

        Args:
            y: all labels or targets of a data set.
            outputs: number of output units of the network.

        Raises:
            ValueError: labels outside 0 .. outputs - 1 (0 .. 1 of a single output), targets whose width is not
                `outputs`, or targets of a cross-entropy that are no probabilities.
        """
        if np.issubdtype(y.dtype, np.integer):
            largest = max(outputs - 1, 1)
            if y.size and not (y.min() >= 0 and y.max() <= largest):
                raise ValueError(
                    f"y has labels from {y.min()} to {y.max()}, but the network has {outputs} outputs: labels must lie "
                    f"in 0 .. {largest}; pass a network with {y.max() + 1} outputs or relabel the data"
                )
        elif not np.issubdtype(y.dtype, np.floating):
            raise ValueError(f"y must be integer labels or float targets, not {y.dtype}")
        elif y.shape[-1] != outputs:
            raise ValueError(f"y has targets of width {y.shape[-1]}, but the network has {outputs} outputs")

    def _check_probabilities(self, y: Shaped[np.ndarray, "..."]) -> None:
        """Refuse float targets outside of 0 .. 1: of such a cross-entropy has no least value."""
        if np.issubdtype(y.dtype, np.floating) and y.size:
            low, high = y.min(), y.max()
            if not (low >= -_ROUNDING and high <= 1 + _ROUNDING):
                raise ValueError(
                    f"y has targets from {low:.6g} to {high:.6g}, but loss={type(self).__name__}() takes "
                    "probabilities; pass loss='squared-error', or scale them to 0 .. 1"
                )


def targets(output: Output, y: Target) -> Output:
    """Return `y` in the shape of the output: labels become one-hot rows, or 0 and 1; targets stay as they are.

    Raises:
        ValueError: `y` is neither a label nor a row of targets for each row of the output; labels out of range are not
            seen here, where there are only shapes.
    """
    labels = jnp.issubdtype(y.dtype, jnp.integer)
    wanted = output.shape[:-1] if labels else output.shape
    if y.shape != wanted or not (labels or jnp.issubdtype(y.dtype, jnp.floating)):
        raise ValueError(
            f"y must be integer labels of shape {output.shape[:-1]} or float targets of shape {output.shape}, that of "
            f"the output, not {y.dtype} of shape {y.shape}"
        )
    if labels:
        if output.shape[-1] == 1:
            return y[..., None].astype(output.dtype)
        return jax.nn.one_hot(y, output.shape[-1], dtype=output.dtype)
    return y


class SquaredError(Loss):
    """C = 1/2 sum_i (output_i - y_i)^2, summed over units; its error is output - y."""

    def __call__(self, output: Output, y: Target) -> Float[Array, " batch"]:
        """Return 1/2 ||output - y||^2 of each example."""
        difference = output - targets(output, y)
        return 0.5 * jnp.sum(difference**2, axis=tuple(range(1, difference.ndim)))

    def error(self, output: Output, y: Target) -> Output:
        """Return output - y."""
        return output - targets(output, y)


class CrossEntropy(Loss):
    """C = -sum_i y_i log softmax(output)_i, on logits; its error is softmax(output) - y.

    Float targets are probabilities, each row of them with the sum 1.
    """

    def __call__(self, output: Output, y: Target) -> Float[Array, " batch"]:
        """Return the cross-entropy of each example."""
        log_p = jax.nn.log_softmax(output)
        return -jnp.sum(targets(output, y) * log_p, axis=tuple(range(1, output.ndim)))

    def expected(self, output: Output) -> Output:
        """Return softmax(output)."""
        return jax.nn.softmax(output)

    def check(self, y: Shaped[np.ndarray, "..."], outputs: int) -> None:
        """Refuse targets that are no labels and no rows of probabilities, and a single output: its softmax is 1."""
        if outputs == 1:
            instead = "loss='binary-cross-entropy'"
            if not np.issubdtype(y.dtype, np.integer):
                instead = "loss='squared-error', or 'binary-cross-entropy' for targets that are probabilities"
            raise ValueError(f"loss=CrossEntropy() of one output is always 0; pass {instead}, or a net with 2 outputs")
        super().check(y, outputs)
        self._check_probabilities(y)
        if np.issubdtype(y.dtype, np.floating) and y.size:
            sums = y.sum(axis=-1, dtype=np.float64)
            worst = sums.flat[np.abs(sums - 1).argmax()]
            if abs(worst - 1) > _ROUNDING:
                raise ValueError(
                    f"y has a row of targets that sums to {worst:.6g}, and loss=CrossEntropy() takes rows that sum to "
                    "1; pass loss='binary-cross-entropy' for outputs that do not exclude each other, or divide each "
                    "row by its sum"
                )

    def error(self, output: Output, y: Target) -> Output:
        """Return softmax(output) - y."""
        return self.expected(output) - targets(output, y)


class BinaryCrossEntropy(Loss):
    """C = -sum_i y_i log s_i + (1 - y_i) log(1 - s_i), s = sigmoid(output), on logits; its error is s - y.

    Float targets are probabilities, each on its own.
    """

    threshold: ClassVar[float] = 0.0

    def __call__(self, output: Output, y: Target) -> Float[Array, " batch"]:
        """Return the binary cross-entropy of each example, summed over units."""
        t = targets(output, y)
        return jnp.sum(jax.nn.softplus(output) - t * output, axis=tuple(range(1, output.ndim)))

    def expected(self, output: Output) -> Output:
        """Return sigmoid(output)."""
        return jax.nn.sigmoid(output)

    def check(self, y: Shaped[np.ndarray, "..."], outputs: int) -> None:
        """Refuse targets that are no labels and no probabilities."""
        super().check(y, outputs)
        self._check_probabilities(y)

    def error(self, output: Output, y: Target) -> Output:
        """Return sigmoid(output) - y."""
        return self.expected(output) - targets(output, y)


class Hinge(Loss):
    """C = sum_i max(1 - output_i, 0) where y_i is 1, max(output_i, 0) where it is 0.

    Each output is a classifier of its own. Of float targets, those above 1/2 count as 1, the others as 0.
    """

    def __call__(self, output: Output, y: Target) -> Float[Array, " batch"]:
        """Return the hinge loss of each example, summed over units."""
        cost = jnp.where(targets(output, y) > 0.5, jax.nn.relu(1 - output), jax.nn.relu(output))
        return jnp.sum(cost, axis=tuple(range(1, output.ndim)))


LOSSES: dict[str, type[Loss]] = {
    "cross-entropy": CrossEntropy,
    "squared-error": SquaredError,
    "binary-cross-entropy": BinaryCrossEntropy,
    "hinge": Hinge,
}


def as_loss(loss: str | Loss) -> Loss:
    """Return the loss called `cross-entropy`, `squared-error`, `binary-cross-entropy` or `hinge`; a `Loss` is itself.

    Raises:
        ValueError: no loss has this name; the message names the nearest ones.
    """
    return loss if isinstance(loss, Loss) else LOSSES[choose("loss", loss, LOSSES)]()


def wrong(output: Output, y: Target, threshold: float = 0.5) -> Bool[Array, " batch"]:
    """Whether each example's answer is another than its label (or its target's answer); of a sequence, the last one.

    Args:
        output: what the network says. The answer is the largest output; of a single output, whether it is above
            `threshold`.
        y: labels, or targets of the output's shape.
        threshold: the loss's own, see `Loss`. Default: that of probabilities.
    """
    label = y if jnp.issubdtype(y.dtype, jnp.integer) else _answer(y, 0.5)
    miss = _answer(output, threshold) != label
    return miss if miss.ndim == 1 else miss[:, -1]


def _answer(values: Output, threshold: float) -> Int[Array, "batch ..."]:
    """The largest unit, or 0 or 1 of a single one."""
    if values.shape[-1] == 1:
        return (values[..., 0] > threshold).astype(int)
    return jnp.argmax(values, axis=-1)
