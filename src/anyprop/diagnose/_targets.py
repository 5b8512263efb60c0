"""Targets: whether they improve a network, and which way they pull it.

With F = f_l'(h_{l-1}) and G = g_l'(h_l), the target that difference target propagation sends down is reached by
layer l up to

    f_l(t_{l-1}) - t_l = -(I - F G) (t_l - h_l) + o(|t_l - h_l|).

So it is nearer to t_l than h_l is, to first order, wherever the largest eigenvalue of (I - F G)^T (I - F G) is
below one (Lee et al. 2015). Above one, most small displacements may still improve: the condition is sufficient.
"""

from collections.abc import Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from .._checks import count, positive
from ..contract import Batch, Learner, Rule
from ..nets import Chain, Series, affines, layers
from ..rules.targets._rule import LayerTargets
from ._layers import angle

Layers = dict[str, Float[Array, ""]]
Activity = Float[Array, "batch ..."]


class InverseCondition(eqx.Module):
    """The largest eigenvalue of (I - F G)^T (I - F G), one number an inverted layer.

    Args:
        mean: the mean over examples.
        largest: the largest over examples; below 1, every example's target improves on its activity, to
            first order.
    """

    mean: Layers
    largest: Layers


class ImprovedTargets(eqx.Module):
    """The fraction of examples whose targets are better than their activities, one number a layer.

    Args:
        reached: of an inverted layer l, where f_l(t_{l-1}) lies nearer to t_l than h_l does.
        cheaper: of a hidden layer l, where the cost falls when t_l takes the place of h_l.
    """

    reached: Layers
    cheaper: Layers


class TargetAngles(eqx.Module):
    """The angle in degrees between t_l - h_l and a reference, one number a hidden layer, the mean over examples.

    Examples without a displacement are left out; NaN where none has one.

    Args:
        backprop: to the displacement -dC/dh_l.
        gauss_newton: to the displacement of the last hidden layer, brought down through the pseudo-inverses of
            the layers' Jacobians.
    """

    backprop: Layers
    gauss_newton: Layers


class _Targets(NamedTuple):
    """What a rule proposes for a batch.

    Args:
        names: of the hidden layers 1 ... L-1.
        forward: f_1 ... f_L.
        inverses: g_2 ... g_{L-1}.
        h: h_0 ... h_{L-1}.
        targets: t_1 ... t_{L-1}.
    """

    names: Sequence[str]
    forward: Sequence[Series]
    inverses: Sequence[Series]
    h: Sequence[Activity]
    targets: Sequence[Activity]


def inverse_condition(
    rule: Rule, learner: Learner, batch: Batch, *, key: Key[Array, ""], iterations: int = 50
) -> InverseCondition:
    """Measure how nearly each inverse undoes its layer, where the activities lie.

    By power iteration with products of the Jacobians and vectors, so no matrix is formed: an iteration costs
    about two training steps of the layer and its inverse. It can be jitted, and vmapped over seeds.

    Of a layer with a sign or a step, whose Jacobian is zero, the number is 1 whatever the inverse, and says nothing.
    Of `StochasticTargetPropagation` it is that of the mean-field network, not of one that samples.

    Args:
        rule: a rule of layer targets, such as `DifferenceTargetPropagation`.
        learner: what it trains.
        batch: examples, at whose activities the Jacobians are taken.
        key: random key for the first vectors.
        iterations: steps of the power iteration. The result comes from below, faster the further the largest
            eigenvalue lies above the next.

    Returns:
        Numbers for each layer between the first hidden one and the output, by position and kind: `"2 Dense"`.

    Raises:
        TypeError: the rule has no layer targets.
        ValueError: `iterations` is not a positive integer.
    """
    count("iterations", iterations)
    names, forward, inverses, h, _ = _propose(rule, learner, batch)
    keys = jax.random.split(key, max(len(inverses), 1))
    found = {
        name: _largest_eigenvalue(f, g, below, above, k, iterations)
        for name, f, g, below, above, k in zip(names[1:], forward[1:], inverses, h[1:], h[2:], keys, strict=False)
    }
    return InverseCondition(
        {name: values.mean() for name, values in found.items()},
        {name: values.max() for name, values in found.items()},
    )


def improved_targets(rule: Rule, learner: Learner, batch: Batch) -> ImprovedTargets:
    """Measure on how many examples the targets are worth reaching for, by trying them.

    Double precision tells small displacements better: differences of the size of rounding errors are noise.
    It can be jitted, and vmapped over seeds.

    `StochasticTargetPropagation` is judged by its mean-field targets, not by the sampled ones that it trains on.

    Args:
        rule: a rule of layer targets, such as `DifferenceTargetPropagation`.
        learner: what it trains.
        batch: examples.

    Returns:
        Fractions from 0 to 1, by position and kind of the layer: `"2 Dense"`.

    Raises:
        TypeError: the rule has no layer targets.
    """
    names, forward, _, h, targets = _propose(rule, learner, batch)
    hidden = h[1:]
    reached = {
        name: jnp.mean(_norms(f(below) - target) < _norms(above - target))
        for name, f, below, above, target in zip(names[1:], forward[1:], targets, hidden[1:], targets[1:], strict=False)
    }

    def cheaper(layer: int, target: Activity) -> Bool[Array, " batch"]:
        rest = Series(tuple(forward[layer:]))
        return rule.loss(rest(target), batch.y) < rule.loss(rest(h[layer]), batch.y)

    by_cost = {name: jnp.mean(cheaper(i, t)) for i, (name, t) in enumerate(zip(names, targets, strict=True), start=1)}
    return ImprovedTargets(reached, by_cost)


def target_angles(rule: Rule, learner: Learner, batch: Batch, *, damping: float = 1e-4) -> TargetAngles:
    """Measure whether targets pull like gradients or like Gauss-Newton steps.

    The Jacobian J of every layer above the first hidden one is formed, for each example: batch times the
    product of the widths numbers, and a linear system of the layer's width to solve. That suits layers of some
    hundred units. Under `jax.jit`, a caller that returns the angles to backprop alone pays nothing for it.

    Below a layer with a sign or a step, through which no derivative passes, both angles are NaN. Of
    `StochasticTargetPropagation` they are those of its mean-field targets, not of the sampled ones that it trains on.

    Args:
        rule: a rule of layer targets, such as `DifferenceTargetPropagation`.
        learner: what it trains.
        batch: examples.
        damping: added to the eigenvalues of J J^T in the pseudo-inverse J^T (J J^T + damping I)^{-1}, above 0.

    Returns:
        Angles for each hidden layer, by position and kind: `"2 Dense"`. At the last one the angle to Gauss-Newton
        is to its own displacement, and so zero; that to backprop is zero too, but where no gradient makes the
        target there, as in `SimplifiedTargetPropagation`.

    Raises:
        TypeError: the rule has no layer targets.
        ValueError: `damping` is not a number above 0.
    """
    positive("damping", damping)
    names, forward, _, h, targets = _propose(rule, learner, batch)
    hidden = h[1:]
    if not hidden:
        return TargetAngles({}, {})
    gradient = jax.grad(lambda above: rule.loss(forward[-1](above), batch.y).sum())(hidden[-1])
    gradients, newton = [gradient], [targets[-1] - hidden[-1]]
    for f, below in zip(reversed(forward[1:-1]), reversed(hidden[:-1]), strict=True):
        gradients.insert(0, jax.vjp(f, below)[1](gradients[0])[0])
        newton.insert(0, _pulled(f, below, newton[0], damping))
    moves = [target - above for target, above in zip(targets, hidden, strict=True)]
    return TargetAngles(
        {name: _mean_angle(move, -g) for name, move, g in zip(names, moves, gradients, strict=True)},
        {name: _mean_angle(move, n) for name, move, n in zip(names, moves, newton, strict=True)},
    )


def _propose(rule: Rule, learner: Learner, batch: Batch) -> _Targets:
    """Return what the rule proposes for the batch; refuse a rule that proposes nothing."""
    if not isinstance(rule, LayerTargets):
        raise TypeError(
            f"{type(rule).__name__} sends no targets down through inverses; pass TargetPropagation, "
            "DifferenceTargetPropagation or another rule whose inverses lead from layer to layer"
        )
    first = eqx.filter_eval_shape(lambda model: rule.init(model, key=jax.random.key(0)), learner.model)
    inverses, expected = rule.inverses_of(learner), len(rule.inverses_of(first))
    if not isinstance(inverses, Sequence) or len(inverses) != expected:
        raise TypeError(
            f"learner has not the {expected} inverses of {type(rule).__name__}: pass rule.init(model, key=key), or "
            "what was trained from it"
        )
    h, _, _, targets = rule.propose(learner, batch)
    names = _layer_names(learner.model)[:-1]
    return _Targets(names, layers(learner.model), inverses, h[:-1], targets)


def _layer_names(model: Chain) -> list[str]:
    """Name the layers of a chain by position and by the kind of the stage with weights: `1 Conv`, `2 Residual`."""
    kinds = [next(type(stage).__name__ for stage in f.stages if affines(stage)) for f in layers(model)]
    return [f"{position} {kind}" for position, kind in enumerate(kinds, start=1)]


def _largest_eigenvalue(
    f: Series, g: Series, below: Activity, above: Activity, key: Key[Array, ""], iterations: int
) -> Float[Array, " batch"]:
    """The largest eigenvalue of (I - F G)^T (I - F G) for each example, by power iteration."""
    forth, back = jax.linearize(f, below)[1], jax.linearize(g, above)[1]

    def missed(v: Activity) -> Activity:
        return v - forth(back(v))

    transposed = jax.linear_transpose(missed, above)

    def step(_: object, v: Activity) -> Activity:
        return _unit(transposed(missed(v))[0])

    v = _unit(jax.random.normal(key, above.shape, above.dtype))
    return _norms(missed(jax.lax.fori_loop(0, iterations, step, v))) ** 2


def _pulled(f: Series, below: Activity, above: Activity, damping: float) -> Activity:
    """J^T (J J^T + damping I)^{-1} times a displacement above, J the layer's Jacobian for each example."""

    def pull(h: Array, displacement: Array) -> Array:
        jacobian = jax.jacobian(lambda h: f(h[None]).ravel())(h).reshape(displacement.size, h.size)
        gram = jacobian @ jacobian.T + damping * jnp.eye(displacement.size)
        return (jacobian.T @ jnp.linalg.solve(gram, displacement.ravel())).reshape(h.shape)

    return jax.vmap(pull)(below, above)


def _norms(v: Activity) -> Float[Array, " batch"]:
    """The length of each example's vector."""
    return jnp.linalg.norm(v.reshape(len(v), -1), axis=1)


def _unit(v: Activity) -> Activity:
    """Each example's vector at length one; zero stays zero, as an exact inverse leaves it."""
    size = _norms(v).reshape(-1, *[1] * (v.ndim - 1))
    return v / jnp.where(size > 0, size, 1.0)


def _mean_angle(u: Activity, v: Activity) -> Float[Array, ""]:
    """The mean over examples of the angle between their vectors, where neither is zero."""
    return jnp.nanmean(jax.vmap(angle)(u.reshape(len(u), -1), v.reshape(len(v), -1)))
