"""A net with ten Bernoulli-logistic units: all its 2^10 states, without the library's wiring."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from anyprop import Batch, nets
from anyprop.losses import SquaredError

FIRST, LAST = 6, 4
STATES = np.array(list(itertools.product((0.0, 1.0), repeat=FIRST + LAST)))
FORCING = [1 - STATES[:, :FIRST], 1 - STATES[:, FIRST:]]
"""Uniform noise that forces each state: u = 0 fires a unit, u = 1 silences it."""


@eqx.filter_jit
def ten_units(key):
    model = nets.mlp(3, FIRST, LAST, 2, activation="sigmoid", key=key)
    return jax.tree.map(lambda w: 1.5 * w + 0.1, model)


def example(key):
    return Batch(jax.random.normal(key, (1, 3)), jnp.array([[0.7, -0.4]]))


def repeated(batch, times):
    return jax.tree.map(lambda leaf: jnp.repeat(leaf, times, axis=0), batch)


def state_probabilities(model, x):
    """P(h) of every state for one input."""

    def log_probability(h, a):
        return jnp.sum(h * jax.nn.log_sigmoid(a) + (1 - h) * jax.nn.log_sigmoid(-a), axis=-1)

    h_1, h_2 = jnp.asarray(STATES[:, :FIRST]), jnp.asarray(STATES[:, FIRST:])
    a_1, a_2 = model.stages[0].drive(x), model.stages[1].drive(h_1)
    return jnp.exp(log_probability(h_1, a_1) + log_probability(h_2, a_2))


def state_costs(model, y):
    """C(h) of every state for one target."""
    return SquaredError()(model.stages[2](jnp.asarray(STATES[:, FIRST:])), jnp.tile(y, (len(STATES), 1)))


@eqx.filter_jit
def exact_gradient_of_expected_cost(model, batch):
    gradient = eqx.filter_grad(lambda m: state_probabilities(m, batch.x) @ state_costs(m, batch.y))(model)
    return ravel_pytree(gradient)[0]


@eqx.filter_jit
def moments(rule, learner, batch):
    """Mean over all states of the rule's update for one example, and the variance of each of its elements."""

    def update(*noise):
        return ravel_pytree(rule.estimate(learner, batch, [n[None] for n in noise]).grads[0])[0]

    updates = jax.vmap(update)(*map(jnp.asarray, FORCING))
    p = state_probabilities(learner.model, batch.x)
    mean = p @ updates
    return mean, p @ (updates - mean) ** 2
