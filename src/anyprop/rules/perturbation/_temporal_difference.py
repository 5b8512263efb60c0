"""Actor-critic reinforcement learning: credit passes between the steps of an episode.

    delta_t = r_t + gamma V(s_{t+1}) - V(s_t)          V = 0 after the last step
    z_w <- gamma lambda z_w + dV(s_t)/dw               w <- w + alpha_c delta_t z_w
    z_theta <- gamma lambda z_theta + dlog pi(a_t | s_t)/dtheta
                                                       theta <- theta + alpha_a delta_t z_theta

Source: Barto, Sutton and Anderson 1983; the notation is Sutton and Barto 2018. The actor's step has no factor
gamma^t, as in nearly all practice; with gamma = 1 there is no difference.

Exact limit: for a fixed policy, V with one weight a state converges to the expected discounted return.

This is not a supervised rule: it has no batch and no labels, only an environment. `ActorCritic` is the
reading of the same idea inside a network.
"""

from typing import NamedTuple, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from ..._checks import count, non_negative
from ...contract import Learner


@runtime_checkable
class Environment(Protocol):
    """A world in discrete time, as three pure functions; its state is any pytree of arrays."""

    def reset(self, key: Key[Array, ""]) -> PyTree:
        """Return the state that an episode begins in."""
        ...

    def observe(self, state: PyTree) -> Float[Array, "..."]:
        """Return what actor and critic see of a state."""
        ...

    def step(
        self, state: PyTree, action: Int[Array, ""], key: Key[Array, ""]
    ) -> tuple[PyTree, Float[Array, ""], Bool[Array, ""]]:
        """Return the next state, the reward, and whether the episode is over."""
        ...


class Episode(NamedTuple):
    """What happened in one episode.

    Args:
        score: the sum of all rewards, not discounted.
        length: number of steps taken.
        ended: whether the environment ended it, rather than the limit of steps.
        errors: delta_t of every step, zero after the end.
    """

    score: Float[Array, ""]
    length: Int[Array, ""]
    ended: Bool[Array, ""]
    errors: Float[Array, " steps"]


class TemporalDifferenceActorCritic(eqx.Module):
    """Actor-critic with temporal differences: the critic's surprise teaches both the critic and the actor.

    Use it to learn a policy from rewards, one step at a time, while it acts. Actor and critic are any
    batch-first models, such as chains: `Learner(model=actor, feedback=critic)`. The actor maps observations
    to the logits of the actions, the critic to one value. One call of `episode` is one episode in one
    `lax.scan`: jit it, scan it over keys, vmap it over learners.

    Args:
        actor_rate: alpha_a, the actor's step; 0 keeps the policy as it is.
        critic_rate: alpha_c, the critic's step.
        discount: gamma, between 0 and 1, both included.
        trace: lambda, the decay of the eligibility traces, between 0 (only the last step gets credit) and
            1 (all steps of the episode do), both included.
        steps: longest episode, in steps. An episode cut off here keeps the value of its last state.

    Raises:
        ValueError: a negative rate, `discount` or `trace` outside [0, 1], or `steps` below 1.

    References:
        Barto, Sutton & Anderson. Neuronlike adaptive elements that can solve difficult learning control
        problems. IEEE Transactions on Systems, Man, and Cybernetics, 1983.
        Sutton & Barto. Reinforcement learning: an introduction, section 13.5. MIT Press, 2018.
    """

    actor_rate: float = 0.1
    critic_rate: float = 0.1
    discount: float = 0.99
    trace: float = 0.0
    steps: int = eqx.field(default=100, static=True)

    def __check_init__(self):
        """Refuse rates, decays and limits out of range."""
        non_negative("actor_rate", self.actor_rate)
        non_negative("critic_rate", self.critic_rate)
        for name, value in (("discount", self.discount), ("trace", self.trace)):
            if not 0 <= value <= 1:
                raise ValueError(f"{name} must lie between 0 and 1, not {value!r}")
        count("steps", self.steps)

    def episode(self, learner: Learner, environment: Environment, *, key: Key[Array, ""]) -> tuple[Learner, Episode]:
        """Act and learn for one episode.

        Args:
            learner: the actor as its model, the critic as its feedback.
            environment: the world.
            key: random key of the actions and of the environment.

        Returns:
            The learner after the episode, and what happened in it.
        """
        arrays, rest = eqx.partition(learner, eqx.is_array)
        key_reset, key_steps = jax.random.split(key)

        def advance(carry: tuple, key: Array) -> tuple[tuple, tuple]:
            arrays, traces, state, over = carry
            learner = eqx.combine(arrays, rest)
            key_action, key_step = jax.random.split(key)

            seen = environment.observe(state)[None]
            action = jax.random.categorical(key_action, learner.model(seen)[0])
            next_state, reward, ends = environment.step(state, action, key_step)
            value, d_value = eqx.filter_value_and_grad(lambda critic: critic(seen)[0, 0])(learner.feedback)
            d_log_pi = eqx.filter_grad(lambda actor: jax.nn.log_softmax(actor(seen)[0])[action])(learner.model)

            next_value = jnp.where(ends, 0, learner.feedback(environment.observe(next_state)[None])[0, 0])
            delta = jnp.where(over, 0, reward + self.discount * next_value - value)
            traces = jax.tree.map(lambda z, d: self.discount * self.trace * z + d, traces, (d_log_pi, d_value))
            updates = tuple(
                jax.tree.map(lambda z, rate=rate: rate * delta * z, own)
                for rate, own in zip((self.actor_rate, self.critic_rate), traces, strict=True)
            )
            arrays = eqx.filter(learner.apply(updates, learner.memory), eqx.is_array)
            return (arrays, traces, next_state, over | ends), (jnp.where(over, 0, reward), ~over, delta)

        start = (
            arrays,
            jax.tree.map(jnp.zeros_like, learner.params),
            environment.reset(key_reset),
            jnp.array(False),
        )
        (arrays, _, _, ended), (rewards, acted, errors) = jax.lax.scan(
            advance, start, jax.random.split(key_steps, self.steps)
        )
        return eqx.combine(arrays, rest), Episode(jnp.sum(rewards), jnp.sum(acted), ended, errors)
