"""Layers that learn on devices of their own, as alternating minimisation allows.

    codes          = encode and move, with all weights                          first device
    W_l, state_l   = optimizer(grad of layer l's own problem, at W_l)           device l, all layers at once

Given the codes, a layer's problem holds no other layer's weights. So nothing passes between the devices but
codes on the way out and weights on the way back, and the result is that of one layer after the other.

Source: Choromanska et al. 2019, updateWeights.
"""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key, PyTree

from ..contract import Batch, Credit, Learner
from ..losses import Loss
from ..nets import Chain, links
from ._refusals import answer_shape, check_optimizer, check_targets


@runtime_checkable
class CodeRule(Protocol):
    """A rule whose layers learn apart from each other once codes are known, as `AlternatingMinimization`'s do."""

    loss: Loss

    def init(self, model: PyTree, *, key: Key[Array, ""]) -> Learner:
        """Return the learner to start from, as every rule does."""
        ...

    def move_codes(self, learner: Learner, batch: Batch) -> tuple[list[Array], Credit]:
        """Return the codes, and the credit without the layers' updates."""
        ...

    def weight_problems(self, model: Chain, batch: Batch, codes: list[Array]) -> Float[Array, ""]:
        """Return the sum of what every layer minimises by itself."""
        ...


class LayerParallelState(eqx.Module):
    """What changes from step to step.

    Args:
        weights: each layer's arrays, laid out as the model with None in the place of all else, on its device.
        opt_states: each layer's optimizer state, on its device.
        memory: the rule's memory, on the first device.
    """

    weights: tuple[PyTree, ...]
    opt_states: tuple[optax.OptState, ...]
    memory: PyTree


class LayerParallel:
    """Alternating minimisation with each layer's weight update on a device of its own.

    Use it where layers are wide and there are several devices. Layers go to the devices in turn, so there may
    be fewer devices than layers. It gives the same learner as the usual loop of `rule.credit` and
    `optimizer.update`, for any optimizer that treats each array by itself, as SGD, Adam and RMSprop do; one
    that looks across arrays, such as clipping by the global norm, sees a single layer here.

        parallel = ap.training.LayerParallel(rule, rule.init(net, key=key), optax.adam(0.008))
        state = parallel.start
        for batch in batches:
            state, loss = parallel.step(state, batch)
        net = parallel.learner(state).model

    Args:
        rule: an `AlternatingMinimization`, or another rule with `move_codes` and `weight_problems`.
        learner: where to start, as `rule.init` returned it.
        optimizer: turns each layer's gradient into its step.
        devices: where layers are updated, the first also where codes are; default: `jax.devices()`.

    Attributes:
        devices: the device of each layer, first to last.
        start: the state before the first step.

    Raises:
        TypeError: the rule's layers do not learn apart from each other, `learner` is not one of this rule's, or
            `optimizer` does not take the arrays of one layer.
        ValueError: `devices` is empty.

    References:
        Choromanska et al. Beyond Backprop: Online Alternating Minimization with Auxiliary Variables. ICML, 2019.
    """

    def __init__(
        self,
        rule: CodeRule,
        learner: Learner,
        optimizer: optax.GradientTransformation,
        *,
        devices: Sequence[jax.Device] | None = None,  # pyright: ignore[reportInvalidTypeForm]
    ):
        if not isinstance(rule, CodeRule):
            raise TypeError(
                f"rule must be an AlternatingMinimization, whose layers learn apart from each other, not "
                f"{type(rule).__name__}; train any other rule with ap.fit"
            )
        if not isinstance(learner, Learner):
            raise TypeError(f"learner must be what rule.init(net, key=key) returns, not a {type(learner).__name__}")
        first = eqx.filter_eval_shape(lambda model: rule.init(model, key=jax.random.key(0)), learner.model)
        if jax.tree.structure(learner.memory) != jax.tree.structure(first.memory):
            raise TypeError(
                f"learner must be what the init of this {type(rule).__name__} returns, not another rule's: pass "
                "rule.init(net, key=key)"
            )
        check_optimizer("optimizer", optimizer)
        devices = jax.devices() if devices is None else devices
        if not devices:
            raise ValueError("devices is empty: pass at least one, such as jax.devices()")
        self.rule, self.optimizer = rule, optimizer
        parts = _by_layer(learner.model)
        weights = [eqx.filter(part, eqx.is_inexact_array) for part in parts]
        self._rest = [eqx.filter(part, eqx.is_inexact_array, inverse=True) for part in parts]
        self._static = eqx.filter(learner.model, eqx.is_inexact_array, inverse=True)
        self._shapes = eqx.filter_eval_shape(lambda model: model, learner.model)
        self._checked: set[tuple[tuple[int, ...], tuple[int, ...]]] = set()
        self.devices = [devices[l % len(devices)] for l in range(len(parts))]
        try:
            opt_states = [optimizer.init(own) for own in weights]
        except (TypeError, ValueError) as error:
            raise TypeError(
                "optimizer must take the arrays of one layer by themselves, as optax.adam(0.008) does: one that is "
                "divided by the parts of a learner does not fit"
            ) from error
        self.start = LayerParallelState(
            tuple(map(jax.device_put, weights, self.devices)),
            tuple(map(jax.device_put, opt_states, self.devices)),
            jax.device_put(learner.memory, self.devices[0]),
        )

    def step(self, state: LayerParallelState, batch: Batch) -> tuple[LayerParallelState, Float[Array, ""]]:
        """Return the state after one batch, and the batch's mean cost before it.

        It waits for no device, but for the labels of the first batch of a shape, which it looks at.

        Raises:
            ValueError: `batch.y` does not fit `batch.x`, the loss or the network's outputs.
            TypeError: `batch.x` does not fit the network.
        """
        shape = batch.x.shape, batch.y.shape
        if shape not in self._checked:
            check_targets(self.rule.loss, batch, answer_shape(self._shapes, batch.x)[-1])
            self._checked.add(shape)
        batch = jax.device_put(batch, self.devices[0])
        codes, credit = _move_codes(self.rule, self.learner(state), batch)
        known = [batch.x, *codes, batch.y]
        weights, opt_states = [], []
        for l, device in enumerate(self.devices):
            # Layer l leads from one of these to the next; of the others it needs to know no more than the shape.
            read = [jax.device_put(a, device) if i in (l, l + 1) else _shape(a) for i, a in enumerate(known)]
            own, opt_state = _update(
                self.rule, self.optimizer, state.weights[l], state.opt_states[l], self._rest[l], read
            )
            weights.append(own)
            opt_states.append(opt_state)
        return LayerParallelState(tuple(weights), tuple(opt_states), credit.memory), credit.loss

    def learner(self, state: LayerParallelState) -> Learner:
        """Return the learner of a state, all of it on the first device."""
        weights = jax.device_put(state.weights, self.devices[0])
        return Learner(eqx.combine(*weights, self._static), memory=state.memory)


@eqx.filter_jit
def _move_codes(rule: CodeRule, learner: Learner, batch: Batch) -> tuple[list[Array], Credit]:
    return rule.move_codes(learner, batch)


@eqx.filter_jit
def _update(
    rule: CodeRule,
    optimizer: optax.GradientTransformation,
    own: PyTree,
    opt_state: optax.OptState,
    rest: PyTree,
    read: list[Array | jax.ShapeDtypeStruct],
) -> tuple[PyTree, optax.OptState]:
    """Return a layer's weights and optimizer state after its step.

    Its gradient is that of the sum of all layers' problems. Whatever does not matter to it is only a shape
    here, computed with as zeros, and XLA computes none of it.
    """
    x, *codes, y = _zeros(read)

    def problems(own: PyTree) -> Array:
        return rule.weight_problems(_zeros(eqx.combine(own, rest)), Batch(x, y), codes)

    updates, opt_state = optimizer.update(eqx.filter_grad(problems)(own), opt_state, own)
    return eqx.apply_updates(own, updates), opt_state


def _by_layer(model: Chain) -> list[Chain]:
    """The model once for each of its links, with shapes in the place of all other links' arrays."""
    leaves, treedef = jax.tree.flatten(model)
    numbered = links(treedef.unflatten(range(len(leaves))))

    def part(own: Sequence[int]) -> Chain:
        return treedef.unflatten(
            _shape(leaf) if eqx.is_inexact_array(leaf) and i not in own else leaf for i, leaf in enumerate(leaves)
        )

    return [part(jax.tree.leaves(link)) for link in numbered]


def _shape(array: Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(array.shape, array.dtype)


def _zeros(tree: PyTree) -> PyTree:
    """Zeros in the place of shapes."""

    def fill(leaf: Any) -> Any:
        return jnp.zeros(leaf.shape, leaf.dtype) if isinstance(leaf, jax.ShapeDtypeStruct) else leaf

    return jax.tree.map(fill, tree)
