"""Actor-critic reinforcement learning on a corridor, whose values and best policy are known."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from anyprop import Environment, Learner, TemporalDifferenceActorCritic, nets
from anyprop.rules import RULES

LEFT, RIGHT = -50.0, 50.0


class Corridor(eqx.Module):
    """`length` cells in a row; action 1 goes right, 0 left; beyond the right end it is over, with reward 1.

    With `wall` it cannot leave on the left, otherwise it ends there without a reward.
    """

    length: int
    start: int
    wall: bool = True

    def reset(self, key):
        del key
        return jnp.array(self.start)

    def observe(self, state):
        return jax.nn.one_hot(state, self.length)

    def step(self, state, action, key):
        del key
        state = state + 2 * action - 1
        state = jnp.maximum(state, 0) if self.wall else state
        won = state == self.length
        return state, won.astype(jnp.result_type(float)), won | (state < 0)


def tabular(length, key, *, logits=(0.0, 0.0)):
    """An actor and a critic with one weight a cell (and action), all zero but the actor's given logits."""
    actor = nets.mlp(length, 2, bias=False, init="zeros", key=key)
    actor = eqx.tree_at(lambda m: m.stages[0].weight, actor, jnp.tile(jnp.array(logits), (length, 1)))
    return Learner(actor, nets.mlp(length, 1, bias=False, init="zeros", key=key))


@eqx.filter_jit
def live(agent, learner, environment, key, episodes):
    """Several episodes: the last learner, the critic's values after each, what happened in each."""

    def advance(learner, key):
        learner, episode = agent.episode(learner, environment, key=key)
        return learner, (learner.feedback.stages[0].weight[:, 0], episode)

    learner, (values, seen) = jax.lax.scan(advance, learner, jax.random.split(key, episodes))
    return learner, values, seen


@pytest.mark.parametrize("trace", [0.0, 0.8])
@pytest.mark.usefixtures("x64")
def test_values_of_a_fixed_policy_are_its_discounted_returns(trace, key):
    agent = TemporalDifferenceActorCritic(actor_rate=0.0, critic_rate=0.5, discount=0.9, trace=trace, steps=8)
    learner, values, seen = live(agent, tabular(6, key, logits=(LEFT, RIGHT)), Corridor(6, 0), key, 200)
    np.testing.assert_allclose(values[-1], 0.9 ** np.arange(5, -1, -1), rtol=1e-8)
    assert jnp.all(seen.ended)
    assert jnp.all(seen.length == 6)
    assert jnp.all(seen.score == 1)
    assert jnp.all(seen.errors[:, 6:] == 0)
    assert jnp.all(learner.model.stages[0].weight == jnp.array([LEFT, RIGHT]))


@pytest.mark.usefixtures("x64")
def test_values_of_the_random_walk_are_its_chances_of_winning(key):
    agent = TemporalDifferenceActorCritic(actor_rate=0.0, critic_rate=0.05, discount=1.0, steps=100)
    _, values, _ = live(agent, tabular(5, key), Corridor(5, 2, wall=False), key, 4000)
    np.testing.assert_allclose(values[1000:].mean(0), np.arange(1, 6) / 6, atol=0.02)


@pytest.mark.usefixtures("x64")
def test_one_episode_is_the_equations_step_by_step(key):
    agent = TemporalDifferenceActorCritic(actor_rate=0.3, critic_rate=0.2, discount=0.9, trace=0.7, steps=12)
    environment = Corridor(4, 1)
    start, _, _ = live(agent, tabular(4, key), environment, key, 5)
    learner, seen = eqx.filter_jit(agent.episode)(start, environment, key=key)

    # The same keys give the same actions, so the episode can be replayed in NumPy.
    theta = np.array(start.model.stages[0].weight)
    w = np.array(start.feedback.stages[0].weight[:, 0])
    z_theta, z_w, s, t = np.zeros_like(theta), np.zeros_like(w), 1, 0
    for step_key in jax.random.split(jax.random.split(key)[1], 12):
        action = int(jax.random.categorical(jax.random.split(step_key)[0], jnp.asarray(theta[s])))
        following = max(s + 2 * action - 1, 0)
        over = following == 4
        delta = float(over) + 0.9 * (0 if over else w[following]) - w[s]
        pi = np.exp(theta[s]) / np.exp(theta[s]).sum()
        z_w, z_theta = 0.9 * 0.7 * z_w, 0.9 * 0.7 * z_theta
        z_w[s] += 1
        z_theta[s] += np.eye(2)[action] - pi
        w, theta = w + 0.2 * delta * z_w, theta + 0.3 * delta * z_theta
        assert seen.errors[t] == pytest.approx(delta, abs=1e-12)
        s, t = following, t + 1
        if over:
            break
    assert seen.length == t
    np.testing.assert_allclose(learner.model.stages[0].weight, theta, atol=1e-12)
    np.testing.assert_allclose(learner.feedback.stages[0].weight[:, 0], w, atol=1e-12)


@pytest.mark.parametrize("trace", [0.0, 0.9])
def test_the_policy_reaches_the_optimum(trace, key):
    agent = TemporalDifferenceActorCritic(actor_rate=0.5, critic_rate=0.3, discount=0.9, trace=trace, steps=60)
    learner, values, seen = live(agent, tabular(6, key), Corridor(6, 0), key, 400)
    preference = learner.model.stages[0].weight
    assert jnp.all(preference[:, 1] > preference[:, 0])
    assert seen.length[:20].mean() > 15
    assert seen.length[-50:].mean() < 6.5  # six steps are the least there can be
    np.testing.assert_allclose(values[-50:, 0].mean(), 0.9**5, atol=0.05)


def test_an_episode_cut_off_keeps_the_value_of_its_last_state(key):
    agent = TemporalDifferenceActorCritic(actor_rate=0.0, critic_rate=1.0, discount=1.0, steps=1)
    learner = tabular(3, key, logits=(LEFT, RIGHT))
    learner = eqx.tree_at(lambda l: l.feedback.stages[0].weight, learner, jnp.array([[0.0], [0.6], [0.0]]))
    learner, seen = agent.episode(learner, Corridor(3, 0), key=key)
    assert not seen.ended
    assert learner.feedback.stages[0].weight[0, 0] == pytest.approx(0.6)


def test_it_is_public_but_no_rule_for_batches():
    assert TemporalDifferenceActorCritic not in RULES.values()
    assert isinstance(Corridor(3, 0), Environment)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"actor_rate": -0.1}, "actor_rate must be a finite number, zero or above"),
        ({"critic_rate": float("nan")}, "critic_rate must be a finite number, zero or above"),
        ({"discount": 1.1}, "discount must lie between 0 and 1"),
        ({"trace": -0.1}, "trace must lie between 0 and 1"),
        ({"steps": 0}, "steps must be an integer of at least 1"),
    ],
)
def test_bad_hyperparameters_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        TemporalDifferenceActorCritic(**arguments)
