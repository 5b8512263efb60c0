"""Codes: a variable for each hidden pre-activation, which alternating minimisation moves instead of an error.

A chain is read in links c_l = W_l sigma_{l-1}(c_{l-1}), c_0 = x, l = 1..L, and an output W_{L+1} sigma_L(c_L).
With every code a free variable, learning minimises, block after block, the objective

    sum over examples of   C(W_{L+1} sigma_L(c_L), y) + mu sum_l ||c_l - W_l sigma_{l-1}(c_{l-1})||^2

From the top down, each code goes down its own terms, divided by mu; m_l = W_l sigma_{l-1}(c_{l-1}) is what
the code below, not yet moved, makes of it:

    c_L:   C(W_{L+1} sigma_L(c), y) / mu        +  ||c - m_L||^2  +  (lambda / mu) |c|_1        problem (4)
    c_l:   ||c_{l+1} - W_{l+1} sigma_l(c)||^2   +  ||c - m_l||^2  +  (lambda / mu) |c|_1        problem (5)

    v <- momentum v + g,   c <- c - rate (g + momentum v)        g: the gradient at c, v: zero at first

A step costs one product with W_{l+1} and one with its transpose. An Elman layer is read as one link for each
time step, c_t = x_t W + f(c_{t-1}) R + b, all of the same weights.

Source: Choromanska et al. 2019.
"""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, TypeGuard

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from ..._checks import choose, count, non_negative, positive
from ...contract import Batch, Rule
from ...nets import Activate, Chain, Conv, Dense, Elman, Norm, Series, affines, assemble, for_loops, links, sites
from .._straight import straight, straighten

MOMENTUM = 0.9
"""Nesterov's momentum in the descent of a code."""

Code = Float[Array, "batch ..."]
"""The code of a link: one row an example."""

Cost = Callable[[Array], Array]
"""From a batch of codes to the cost of each."""


class Link(eqx.Module):
    """c = W sigma(below), with one code an example.

    Args:
        stages: the part of the chain that leads from the code below, or x, to this one.
    """

    stages: Series

    def encode(self, below: Code) -> Code:
        """Return the code of a forward pass."""
        return self.stages(below)

    def predict(self, below: Code, code: Code) -> Code:
        """Return m, what this link would have the code be."""
        del code
        return self.stages(below)

    def residual(self, below: Code, code: Code) -> Float[Array, "rows ..."]:
        """Return m - c, one row for each vector of units."""
        return self.predict(below, code) - code

    def end(self, code: Code) -> Code:
        """Return the part of the code that the next link reads."""
        return code

    def descend(self, descent: "Descent", above: Cost, below: Code, code: Code) -> Code:
        """Return the code after its steps down its own terms; `above` is the one that the next link reads."""
        return descent(above, self.predict(below, code), code)

    @property
    def biased(self) -> bool:
        """Whether there is a bias."""
        return any(site.bias is not None for site in sites(self.stages))

    @property
    def weights(self) -> Float[Array, "in out"]:
        """All its weights as one matrix, with the bias, if there is one, as a last row."""
        parts = sites(self.stages)
        biases = [site.bias for site in parts if site.bias is not None]
        return jnp.vstack([*(site.weight.reshape(-1, site.weight.shape[-1]) for site in parts), *biases])

    def split(self, weights: Float[Array, "in out"]) -> list[tuple[Array, Array | None]]:
        """Return the weight and the bias of each of its sites, of a matrix like `weights`."""
        parts = sites(self.stages)
        ends = np.cumsum([site.weight.size // site.weight.shape[-1] for site in parts])
        return [
            (rows.reshape(site.weight.shape), None if site.bias is None else weights[-1])
            for site, rows in zip(parts, jnp.split(weights, ends), strict=False)  # a bias is left over
        ]

    def inputs(self, below: Code, code: Code) -> Float[Array, "rows in"]:
        """Return what the matrix of weights multiplies: a convolution has a row for each place, of what it sees."""
        del code
        *nonlinearity, site = self.stages.stages
        a = Series(tuple(nonlinearity))(below)
        return self._rows(site.patches(a) if isinstance(site, Conv) else a)

    def _rows(self, *inputs: Float[Array, "... _"]) -> Float[Array, "rows in"]:
        """Inputs side by side, with a last one that is always 1 if there is a bias."""
        if self.biased:
            inputs = (*inputs, jnp.ones_like(inputs[0][..., :1]))
        rows = jnp.concatenate(inputs, axis=-1)
        return rows.reshape(-1, rows.shape[-1])


class Unrolled(Link):
    """c_t = x_t W + f(c_{t-1}) R + b, f(c_0) = 0: an Elman layer, with a code for each time step."""

    @property
    def layer(self) -> Elman:
        """The Elman layer."""
        (layer,) = self.stages.stages
        assert isinstance(layer, Elman)
        return layer

    def encode(self, below: Float[Array, "batch time features"]) -> Float[Array, "batch time units"]:
        """Return the codes of a forward pass, all time steps."""

        def advance(state: Array, drive: Array) -> tuple[Array, Array]:
            code = drive + self.layer.recurrent(state)
            return self.layer.activation(code), code

        drives = jnp.moveaxis(self.layer.input(below), 1, 0)
        return jnp.moveaxis(jax.lax.scan(advance, self.layer.start(below), drives)[1], 0, 1)

    def predict(
        self, below: Float[Array, "batch time features"], code: Float[Array, "batch time units"]
    ) -> Float[Array, "batch time units"]:
        """Return m_t of every time step, from the codes of the time steps before."""
        return self.layer.input(below) + self.layer.recurrent(self._states(below, code))

    def inputs(
        self, below: Float[Array, "batch time features"], code: Float[Array, "batch time units"]
    ) -> Float[Array, "rows in"]:
        """Return x_t beside f(c_{t-1}), a row for each example and time step."""
        return self._rows(below, self._states(below, code))

    def _states(
        self, below: Float[Array, "batch time features"], code: Float[Array, "batch time units"]
    ) -> Float[Array, "batch time units"]:
        """f(c_{t-1}) of every time step."""
        states = self.layer.activation(code[:, :-1])
        return jnp.concatenate([self.layer.start(below)[:, None], states], axis=1)

    def residual(
        self, below: Float[Array, "batch time features"], code: Float[Array, "batch time units"]
    ) -> Float[Array, "rows units"]:
        """Return m_t - c_t, one row for each example and time step."""
        return super().residual(below, code).reshape(-1, code.shape[-1])

    def end(self, code: Float[Array, "batch time units"]) -> Float[Array, "batch units"]:
        """Return the last time step's code."""
        return code[:, -1]

    def descend(
        self,
        descent: "Descent",
        above: Cost,
        below: Float[Array, "batch time features"],
        code: Float[Array, "batch time units"],
    ) -> Float[Array, "batch time units"]:
        """Return the codes after their steps, from the last time step to the first."""
        codes, centres, drives = (
            jnp.moveaxis(a, 1, 0) for a in (code, self.predict(below, code), self.layer.input(below))
        )
        activation = straight(self.layer.activation)

        def back(later: Array, at: tuple[Array, Array, Array]) -> tuple[Array, Array]:
            code, centre, drive_later = at

            def above(code: Array) -> Array:
                return descent.squares(drive_later + self.layer.recurrent(activation(code)) - later)

            code = descent(above, centre, code)
            return code, code

        last = descent(above, centres[-1], codes[-1])
        _, earlier = jax.lax.scan(back, last, (codes[:-1], centres[:-1], drives[1:]), reverse=True)
        return jnp.concatenate([jnp.moveaxis(earlier, 0, 1), last[:, None]], axis=1)


class Descent(NamedTuple):
    """Gradient descent on a code's own terms, with Nesterov's momentum.

    Args:
        steps: number of steps.
        rate: step size, for each example's own terms.
        shrink: lambda / mu, weight of the penalty |c|_1.
        over: `jnp.mean` or `jnp.sum`, what norms do with the units of a layer.
    """

    steps: int
    rate: float
    shrink: float | Float[Array, ""]
    over: Callable[..., Array]

    def squares(self, residual: Float[Array, "rows ..."]) -> Float[Array, " rows"]:
        """Return ||residual||^2 of each row."""
        return self.over(residual**2, axis=tuple(range(1, residual.ndim)))

    def size(self, code: Float[Array, "rows ..."]) -> Float[Array, " rows"]:
        """Return |code|_1 of each row."""
        return self.over(jnp.abs(code), axis=tuple(range(1, code.ndim)))

    def __call__(self, above: Cost, centre: Code, code: Code) -> Code:
        """Return the code after its steps.

        Args:
            above: the term that ties the code to what lies above it.
            centre: m, what the link below would have the code be.
            code: where to start.
        """

        def terms(code: Array) -> Array:
            # Summed over examples, each example's gradient is that of its own terms.
            return jnp.sum(above(code) + self.squares(code - centre) + self.shrink * self.size(code))

        def step(_: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
            code, velocity = state
            g = jax.grad(terms)(code)
            velocity = MOMENTUM * velocity + g
            return code - self.rate * (g + MOMENTUM * velocity), velocity

        return jax.lax.fori_loop(0, self.steps, step, (code, jnp.zeros_like(code)))[0]


class CodeRule(Rule):
    """A rule that moves codes and then lets each layer learn to produce its own.

    Args:
        mu: weight of the distance between a code and what the layer below makes of it.
        code_steps: steps of each code.
        code_rate: step size of a code.
        code_sparsity: lambda, weight of the penalty |c|_1 on codes.
        reduction: whether norms are a `"sum"` or a `"mean"` over a layer's units.
        mu_increase: what each batch adds to mu.
        mu_max: where mu stops growing; None for nowhere.
        loss: the cost, by name or as a `Loss`.
    """

    mu: float = eqx.field(default=1.0, kw_only=True)
    code_steps: int = eqx.field(default=5, static=True, kw_only=True)
    code_rate: float = eqx.field(default=0.03, kw_only=True)
    code_sparsity: float = eqx.field(default=0.0, kw_only=True)
    reduction: Literal["mean", "sum"] = eqx.field(default="sum", static=True, kw_only=True)
    mu_increase: float = eqx.field(default=0.0, kw_only=True)
    mu_max: float | None = eqx.field(default=None, kw_only=True)

    def __check_init__(self):
        """Refuse numbers out of their range and an unknown reduction."""
        positive("mu", self.mu)
        count("code_steps", self.code_steps)
        positive("code_rate", self.code_rate)
        non_negative("code_sparsity", self.code_sparsity)
        choose("reduction", self.reduction, ("mean", "sum"))
        non_negative("mu_increase", self.mu_increase)
        if self.mu_max is not None:
            positive("mu_max", self.mu_max)
            if self.mu_max < self.mu:
                raise ValueError(f"mu_max={self.mu_max!r} must not be below mu={self.mu!r}, where mu starts")

    def accept(self, model: PyTree) -> PyTree:
        """Return `model` if there is a code for each of its links.

        Raises:
            TypeError: it has a recurrent layer that codes do not reach; the message says what to pass instead.
        """
        model = super().accept(model)
        if elmans := [node for node in jax.tree.leaves(model, is_leaf=_is_elman) if _is_elman(node)]:
            first, *above = links(model)
            if not (len(elmans) == 1 and above and first.stages == (elmans[0],) and not elmans[0].sequence):
                raise TypeError(
                    f"{type(self).__name__} needs an Elman layer to be the first one and a dense layer to read its "
                    "last state; pass ap.nets.elman(28, 100, 10, key=key) with sequence=False, or choose Backprop"
                )
        return model

    def first_mu(self, model: Chain) -> Float[Array, ""]:
        """The mu of the first batch, in the precision of the weights."""
        return jnp.asarray(self.mu, jnp.result_type(*(site.weight for site in affines(model))))

    def next_mu(self, mu: Float[Array, ""]) -> Float[Array, ""]:
        """The mu of the batch after one with this mu."""
        larger = mu + self.mu_increase
        return larger if self.mu_max is None else jnp.minimum(larger, self.mu_max)

    def descent(self, mu: float | Float[Array, ""]) -> Descent:
        """The descent of a code at this mu."""
        over = {"mean": jnp.mean, "sum": jnp.sum}[self.reduction]
        return Descent(self.code_steps, self.code_rate, self.code_sparsity / mu, over)

    def update_codes(
        self, model: Chain, batch: Batch, codes: Sequence[Code], mu: float | Float[Array, ""]
    ) -> list[Code]:
        """Return the codes after problem (4) and, from the top down, problems (5).

        Args:
            model: the network.
            batch: examples.
            codes: where the codes start, first link to last.
            mu: weight of the distance between a code and what the link below makes of it.
        """
        descent = self.descent(mu)
        *hidden, output = map(straighten, read(for_loops(model)))

        def above(code: Array, /) -> Array:
            return self.loss(output.encode(code), batch.y) / mu

        below = beneath(hidden, batch.x, codes)
        moved = list(codes)
        for l in reversed(range(len(hidden))):
            moved[l] = hidden[l].descend(descent, above, below[l], codes[l])
            above = _tie(descent, hidden[l], moved[l])
        return moved

    def objective(
        self, model: Chain, batch: Batch, codes: Sequence[Code], mu: float | Float[Array, ""]
    ) -> Float[Array, ""]:
        """The objective, as a mean over examples, with these codes.

        With codes held constant, its gradient with respect to the model is each layer's own.
        """
        descent = self.descent(mu)
        *hidden, output = map(straighten, read(model))
        *below, last = beneath(hidden, batch.x, codes)
        total = jnp.sum(self.loss(output.encode(last), batch.y))
        for link, h, code in zip(hidden, below, codes, strict=True):
            residual = link.residual(h, code)
            total += mu * jnp.sum(descent.squares(residual))
            total += self.code_sparsity * jnp.sum(descent.size(code.reshape(residual.shape)))
        return total / len(batch.x)


class Moments(NamedTuple):
    """What a layer's weight problem, min_W tr(W^T A W) - 2 tr(W^T B), is made of: means over examples.

    W has a row an input, as the library's weights do, and the bias as a last row; A and B are transposed
    with respect to the paper. A convolution sums over the places it looks at, a recurrent layer over time.

    Args:
        A: a^T a, of the layer's inputs a = sigma(below), with a last input that is always 1 if there is a bias.
        B: a^T c, of inputs and codes.
    """

    A: Float[Array, "in in"]
    B: Float[Array, "in out"]

    def residual(self, weight: Float[Array, "in out"]) -> Float[Array, "in out"]:
        """Return B - A W, which is zero at the solution."""
        return self.B - self.A @ weight

    def near(self, weight: Float[Array, "in out"], ridge: float) -> "Moments":
        """Return the moments of the problem with ridge ||W - weight||^2 added, or more where rounding hides that."""
        pull = jnp.maximum(ridge, above_rounding(self.A))
        return Moments(self.A + pull * jnp.eye(len(self.A), dtype=self.A.dtype), self.B + pull * weight)

    def sweep(self, weight: Float[Array, "in out"]) -> Float[Array, "in out"]:
        """Return the weights after a pass over the inputs, each with those before it at their new weights."""
        return weight + jax.scipy.linalg.solve_triangular(self.A, self.residual(weight), lower=True)

    def sparse_sweep(self, weight: Float[Array, "in out"], shrink: Float[Array, " in"]) -> Float[Array, "in out"]:
        """Return the weights after a pass in which each input's also go down to zero, by its `shrink` at most.

        It takes one input after the other, where `sweep` is a single triangular solve.
        """

        def at(j: Array, weight: Array) -> Array:
            moved = weight[j] + (self.B[j] - self.A[j] @ weight) / self.A[j, j]
            return weight.at[j].set(jnp.sign(moved) * jax.nn.relu(jnp.abs(moved) - shrink[j]))

        return jax.lax.fori_loop(0, len(weight), at, weight)

    def solve(self) -> Float[Array, "in out"]:
        """Return A^-1 B."""
        return jax.scipy.linalg.solve(self.A, self.B, assume_a="pos")


def above_rounding(square: Float[Array, "in in"]) -> Float[Array, ""]:
    """The least that has to be added to the diagonal of a^T a so that it can be solved with as it is stored."""
    return 10 * jnp.finfo(square.dtype).eps * jnp.trace(square)


class LeastSquaresRule(CodeRule):
    """A rule whose hidden layers jump to the weights that fit their codes, while the output layer descends.

    Args:
        ridge: weight of ||W - W_old||^2 in a layer's problem.
        output_rate: step size of the output layer.
    """

    ridge: float = eqx.field(default=1e-3, kw_only=True)
    output_rate: float = eqx.field(default=0.1, kw_only=True)
    mu: float = eqx.field(default=0.1, kw_only=True)
    code_rate: float = eqx.field(default=0.05, kw_only=True)

    def __check_init__(self):
        """Refuse rates that are not positive."""
        positive("ridge", self.ridge)
        positive("output_rate", self.output_rate)

    def accept(self, model: PyTree) -> PyTree:
        """Return `model` if the codes of its hidden layers are linear in the weights.

        Raises:
            TypeError: they are not; the message says what to pass instead.
        """
        model = super().accept(model)
        *hidden, _ = links(model)
        normalised = any(isinstance(site, Norm) for link in hidden for site in sites(link.stages))
        if normalised or not all(isinstance(link.stages[-1], Dense | Conv | Elman) for link in hidden):
            raise TypeError(
                f"{type(self).__name__} solves for the weights of hidden layers that are dense, convolutional or Elman "
                "layers with nothing normalised below or in them, and this chain has others; pass "
                "ap.nets.mlp(784, 100, 10, key=key), or choose AlternatingMinimization"
            )
        return model

    def moments(self, model: Chain, x: Code, codes: Sequence[Code]) -> list[Moments]:
        """Return the moments of each hidden layer, for this batch."""
        *hidden, _ = read(model)
        *below, _ = beneath(hidden, x, codes)
        return [_moments(link, h, code) for link, h, code in zip(hidden, below, codes, strict=True)]

    def weight_update(self, model: Chain, batch: Batch, codes: Sequence[Code], solutions: Sequence[Array]) -> PyTree:
        """Return old - new of every parameter.

        Args:
            model: the network.
            batch: examples.
            codes: the moved codes.
            solutions: the new weights of each hidden layer, the bias in the last row.
        """
        hidden = [
            update
            for link, new in zip(read(model), solutions, strict=False)  # the output has none
            for update in link.split(link.weights - new)
        ]
        gradient = sites(eqx.filter_grad(self.objective)(model, batch, codes, 1.0))[len(hidden) :]
        output = [jax.tree.map(lambda g: self.output_rate * g, (site.weight, site.bias)) for site in gradient]
        return assemble(model, [*hidden, *output])


def hidden_weights(model: Chain) -> list[Array]:
    """The weights of each hidden layer, with the bias, if there is one, as a last row."""
    *hidden, _ = read(model)
    return [link.weights for link in hidden]


def _moments(link: Link, below: Code, code: Code) -> Moments:
    a, c = link.inputs(below, code), code.reshape(-1, code.shape[-1])
    return Moments(a.T @ a / len(code), a.T @ c / len(code))


def read(model: Chain) -> tuple[Link, ...]:
    """The chain as links: one for each code, and the output."""
    first, *above = links(model)
    if not _is_elman(first.stages[0]):
        return (Link(first), *map(Link, above))
    # A link starts with the nonlinearity of the code below, which in an Elman layer is the layer's own.
    reader = Series((Activate(first.stages[0].activation), *above[0].stages))
    return (Unrolled(first), Link(reader), *map(Link, above[1:]))


def encode(model: Chain, x: Code) -> tuple[list[Code], Array]:
    """Return the codes and the output of a forward pass."""
    *hidden, output = read(model)
    codes: list[Array] = []
    below = x
    for link in hidden:
        codes.append(link.encode(below))
        below = link.end(codes[-1])
    return codes, output.encode(below)


def beneath(hidden: Sequence[Link], x: Code, codes: Sequence[Code]) -> list[Code]:
    """What each link reads, the output too: x, and the ends of the codes."""
    return [x, *(link.end(code) for link, code in zip(hidden, codes, strict=True))]


def shift(codes: Sequence[Code], moved: Sequence[Code]) -> Float[Array, ""]:
    """The root mean square of how far codes moved, over all elements."""
    squares = [jnp.sum((new - old) ** 2) for old, new in zip(codes, moved, strict=True)]
    return jnp.sqrt(sum(squares, start=jnp.zeros(())) / max(sum(code.size for code in codes), 1))


def _tie(descent: Descent, link: Link, code: Code) -> Cost:
    """The cost of a code below a link whose own code has been found."""
    return lambda below: descent.squares(link.encode(below) - code)


def _is_elman(node: object) -> TypeGuard[Elman]:
    return isinstance(node, Elman)
