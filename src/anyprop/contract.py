"""The contract between a rule, a network and an optimizer: the page that everybody reads first.

Every credit-assignment method answers one question: given a network, a batch and a loss, which way
should each weight move? Here the answer always has the same form:

    learner = rule.init(model, key=key)
    opt_state = optimizer.init(learner.params)
    credit = rule.credit(learner, batch, key=key)
    updates, opt_state = optimizer.update(credit.grads, opt_state, learner.params)
    learner = learner.apply(updates, credit.memory)

`credit` is a pure function: it can be jitted, vmapped, scanned and sharded, and everything random in
it comes from `key`. `credit.grads` point *up* the cost, as a gradient does, so any Optax optimizer
descends with them. A rule whose own step is a solution rather than a direction returns `old - new`,
which `optax.sgd(1.0)` applies exactly.
"""

import abc
import dataclasses
import enum
from collections.abc import Mapping
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, PyTree, Shaped

from .losses import CrossEntropy, Loss, as_loss
from .nets import Chain, Elman, affines, sites


class Batch(eqx.Module):
    """Examples to learn from.

    Args:
        x: inputs, the examples on the first axis.
        y: integer labels, shape (batch,), or targets of the output's shape.
        index: which examples of the data set these are; only rules that keep something for each
            example need it.
    """

    x: Shaped[Array, "batch ..."]
    y: Shaped[Array, "batch ..."]
    index: Int[Array, " batch"] | None = None


class Learner(eqx.Module):
    """All that changes while a network learns.

    Args:
        model: what predicts: a callable from a batch of inputs to a batch of outputs.
        feedback: what the rule learns besides, and the optimizer moves: feedback weights, critics.
        memory: what the rule remembers and no optimizer moves: baselines, fixed random weights.
    """

    model: PyTree
    feedback: PyTree = None
    memory: PyTree = None

    @property
    def params(self) -> PyTree:
        """The floating-point arrays of (model, feedback): what an optimizer moves."""
        return eqx.filter((self.model, self.feedback), eqx.is_inexact_array)

    def apply(self, updates: PyTree, memory: PyTree) -> "Learner":
        """Return the learner after an optimizer's updates, with the memory that the rule returned."""
        model, feedback = eqx.apply_updates((self.model, self.feedback), updates)
        return Learner(model, feedback, memory)


class Credit(eqx.Module):
    """What a rule found out about one batch.

    Args:
        loss: mean cost of the batch, before the update.
        output: the prediction that the cost was measured on, so that metrics cost no second pass.
        grads: how each parameter should move, shaped like `Learner.params`; descent subtracts it.
        memory: the rule's new memory.
        metrics: what the rule can tell about itself, by name.
    """

    loss: Float[Array, ""]
    output: Float[Array, "batch ..."]
    grads: PyTree
    memory: PyTree = None
    metrics: Mapping[str, Array] = eqx.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class DataInfo:
    """What a rule may know about the data before training.

    Args:
        examples: number of training examples; `Batch.index` counts below it.
        x: shape and type of one input, without the batch axis.
        y: shape and type of one label or target, without the batch axis.
        low: the least number in the training inputs, where it is known.
        high: the greatest one.
        y_low: the least number in the training targets, where there are targets and it is known.
        y_high: the greatest one.
    """

    examples: int
    x: jax.ShapeDtypeStruct
    y: jax.ShapeDtypeStruct
    low: float | None = None
    high: float | None = None
    y_low: float | None = None
    y_high: float | None = None


class Needs(enum.StrEnum):
    """What a rule needs of a model, from least to most."""

    CALLABLE = "any callable"
    DIFFERENTIABLE = "a differentiable model"
    CHAIN = "a chain"
    ELMAN = "an Elman network"
    SPIKING = "a spiking network"
    READING = "a chain, or one read as an energy"
    ENERGY = "an energy, or a chain read as one"
    BOLTZMANN = "a Boltzmann machine, or a chain read as one"


@dataclasses.dataclass(frozen=True)
class Card:
    """What a reader chooses a rule by.

    Args:
        name: the method's name in the literature.
        family: the family of methods it belongs to.
        needs: what it needs of a model.
        source: BibTeX keys of its sources, first the main one.
        dossier: its numbers in the catalogue of systems, such as `("S20",)`.
        local: whether a weight's update uses only activity and errors of the units it joins, plus
            scalars that are broadcast.
        weight_transport: whether the error travels down through the forward weights.
        phases: forward or backward passes over the network for one update.
        derivatives: whether it needs the derivatives of the activations.
        limit: the case in which its update is known exactly.
        whole_step: whether its update is old - new, a step as it should be taken, which `optax.sgd(1.0)` applies.
    """

    name: str
    family: str
    needs: Needs
    source: tuple[str, ...]
    dossier: tuple[str, ...]
    local: bool
    weight_transport: bool
    phases: int
    derivatives: bool
    limit: str
    whole_step: bool = False


class Rule(eqx.Module):
    """A credit-assignment rule: hyper-parameters only, nothing that training changes.

    A new rule gives its `card`, its `credit`, and an `init` where it keeps anything besides the model.

    Args:
        loss: the cost, by name or as a `Loss`.
    """

    loss: Loss = eqx.field(default_factory=CrossEntropy, converter=as_loss, kw_only=True)

    card: ClassVar[Card]

    def init(self, model: PyTree, *, data: DataInfo | None = None, key: Key[Array, ""]) -> Learner:
        """Return the learner that `credit` starts from.

        Args:
            model: the network to train, of the kind that `card.needs` names.
            data: what may be known of the data; only rules that keep something an example need it.
            key: random key for feedback weights and the like.

        Raises:
            TypeError: the rule cannot train this kind of model; the message says what to pass instead.
        """
        del data, key
        return Learner(self.accept(model))

    @property
    def whole_step(self) -> bool:
        """Whether the update is old - new, as the card says, unless a hyper-parameter decides."""
        return self.card.whole_step

    @abc.abstractmethod
    def credit(self, learner: Learner, batch: Batch, *, key: Key[Array, ""]) -> Credit:
        """Return which way each parameter should move, and what it cost to find out.

        Args:
            learner: as `init` or `Learner.apply` returned it.
            batch: examples to learn from.
            key: everything random in the rule comes from it.
        """

    def feedback_weights(self, learner: Learner) -> list[Float[Array, "..."]] | None:
        """The weights that carry errors down, one for each of `nets.affines_above_first(model)`, or None."""
        del learner
        return None

    def complaint(self, metrics: Mapping[str, float]) -> str | None:
        """What is wrong with how an epoch went, in words for the user; None if nothing is. Training says it once.

        Args:
            metrics: those of `Credit`, each the mean over the epoch's batches; or of the very first step, where its
                loss is not finite, with numbers that need not be.
        """
        del metrics
        return None

    def accept(self, model: PyTree) -> PyTree:
        """Return `model` if this rule can train it.

        Raises:
            TypeError: it cannot; the message says what to pass instead.
        """
        name, needs = type(self).__name__, self.card.needs
        if not callable(model):
            raise TypeError(
                f"model must be callable on a batch of inputs to be trained by {name}, not {type(model).__name__}"
            )
        if needs is not Needs.CALLABLE and not isinstance(model, eqx.Module):
            raise TypeError(
                f"{name} needs {needs}, but model is a {type(model).__name__}; pass an equinox.Module such as "
                "ap.nets.mlp(784, 100, 10, key=key), or choose WeightPerturbation, which trains any callable"
            )
        if needs in (Needs.CHAIN, Needs.ELMAN) and not isinstance(model, Chain):
            raise TypeError(
                f"{name} needs {needs}, but model is a {type(model).__name__}; build one with ap.nets, convert an "
                "equinox.nn.Sequential with ap.nets.from_equinox, or choose Backprop, ForwardGradient or "
                "WeightPerturbation"
            )
        if needs is Needs.CHAIN and not affines(model):
            raise TypeError(f"{name} needs a chain with at least one dense or convolutional layer")
        elman = isinstance(model, Chain) and isinstance(model.stages[0], Elman) and len(sites(model)) == 3
        if needs is Needs.ELMAN and not elman:
            raise TypeError(f"{name} needs an Elman layer and a dense one; pass ap.nets.elman(28, 100, 10, key=key)")
        if not jax.tree.leaves(eqx.filter(model, eqx.is_inexact_array)):
            raise TypeError(f"model has no floating-point arrays, so {name} has nothing to train")
        return model


def exact_gradient(loss: Loss, model: PyTree, batch: Batch) -> tuple[Float[Array, ""], Array, PyTree]:
    """The batch's mean cost, the output, and the exact gradient of the cost with respect to the model."""

    def cost(model: PyTree) -> tuple[Array, Array]:
        output = model(batch.x)
        return jnp.mean(loss(output, batch.y)), output

    (value, output), gradient = eqx.filter_value_and_grad(cost, has_aux=True)(model)
    return value, output, gradient


def hyperparameters(rule: Rule) -> dict[str, Any]:
    """The rule's hyper-parameters by name, in numbers and words: what a settings file records.

    The loss is told by its class name, any other object as the call that makes it.
    """

    def told(value: Any) -> Any:
        if isinstance(value, Loss):
            return type(value).__name__
        return _call(value) if isinstance(value, eqx.Module) else value

    return {field.name: told(getattr(rule, field.name)) for field in dataclasses.fields(rule)}


def _call(value: Any) -> str:
    """The call that makes a value, with all of its arguments."""
    if not isinstance(value, eqx.Module):
        return repr(value)
    arguments = (f"{field.name}={_call(getattr(value, field.name))}" for field in dataclasses.fields(value))
    return f"{type(value).__name__}({', '.join(arguments)})"
