import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from anyprop.contract import Batch
from anyprop.energies import Energy, GradientFlow
from anyprop.nets import mlp
from anyprop.rules.equilibrium import ContinualEquilibriumPropagation, EquilibriumPropagation

PHASES = {"free_steps": 60, "nudged_steps": 9, "step_size": 0.3}


class ReadOut(Energy):
    """Units that are read out by weights of their own."""

    up: jax.Array
    out: jax.Array
    relaxation: GradientFlow = eqx.field(default_factory=GradientFlow)

    def energy(self, state, x):
        return jnp.sum(0.5 * state**2 - jnp.tanh(state) * (x @ self.up), axis=1)

    def start(self, x):
        return jnp.zeros((len(x), self.up.shape[1]))

    def output(self, state):
        return state @ self.out


def flat(tree):
    return jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def examples(key):
    return Batch(jax.random.normal(key, (5, 4)), jnp.arange(5) % 3)


def updates(rules, model, batch):
    learner = rules[0].init(model, key=jax.random.key(0))
    return eqx.filter_jit(
        lambda learner: [rule.credit(learner, batch, key=jax.random.key(0)).grads[0] for rule in rules]
    )(learner)


# The second of two nudged phases starts from a free state that the weights have left meanwhile: a gap over beta.
@pytest.mark.parametrize(("variant", "rate"), [("one-sided", 0.01), ("centred", 1e-4)])
@pytest.mark.parametrize("system", ["a chain", "a readout with weights of its own"])
def test_weights_that_wait_sum_up_to_the_difference_of_phases_and_others_miss_it_by_their_rate(
    x64, key, system, variant, rate
):
    net = mlp(4, 6, 3, activation="tanh", output="tanh", key=key)
    own = ReadOut(
        *(jax.random.normal(k, shape) for k, shape in zip(jax.random.split(key), [(4, 6), (6, 3)], strict=True))
    )
    two_phases = EquilibriumPropagation(0.3, variant, **PHASES)
    rates = (0.0, rate, 2 * rate)
    continual = [ContinualEquilibriumPropagation(0.3, rate, variant=variant, **PHASES) for rate in rates]
    found = updates([two_phases, *continual], net if system == "a chain" else own, examples(key))
    two, *found = map(flat, found)
    gap = [jnp.linalg.norm(update - two) / jnp.linalg.norm(two) for update in found]
    assert gap[0] < 1e-12
    assert 1e-4 < gap[1] < 0.1
    assert 1.8 < gap[2] / gap[1] < 2.2


def by_hand(chain, batch, rule):
    """The nudged phases in NumPy, with two layers of tanh units."""
    (w1, b1), (w2, b2) = ((np.array(site.weight), np.array(site.bias)) for site in chain.stages)
    before = [w1.copy(), b1.copy(), w2.copy(), b2.copy()]
    x, target = np.asarray(batch.x), np.eye(3)[np.asarray(batch.y)]

    def move(s1, s2, beta):
        r1, r2 = np.tanh(s1), np.tanh(s2)
        d1 = (1 - r1**2) * (x @ w1 + b1 + r2 @ w2.T) - s1
        d2 = (1 - r2**2) * (r1 @ w2 + b2 - beta * (r2 - target)) - s2
        return s1 + rule.step_size * d1, s2 + rule.step_size * d2

    s1, s2 = np.zeros((5, 6)), np.zeros((5, 3))
    for _ in range(rule.free_steps):
        s1, s2 = move(s1, s2, 0.0)
    free = s1, s2
    betas = [rule.beta, -rule.beta] if rule.variant == "centred" else [rule.beta]
    for beta in betas:
        s1, s2 = free
        for _ in range(rule.nudged_steps):
            t1, t2 = move(s1, s2, beta)
            (r1, r2), (q1, q2) = (np.tanh(s1), np.tanh(s2)), (np.tanh(t1), np.tanh(t2))
            up = r1.T @ (q2 - r2) if rule.update == "stdp" else q1.T @ q2 - r1.T @ r2
            change = [x.T @ (q1 - r1), (q1 - r1).sum(0), up, (q2 - r2).sum(0)]
            for weight, dw in zip((w1, b1, w2, b2), change, strict=True):
                weight += rule.rate / beta * dw / len(x) / len(betas)
            s1, s2 = t1, t2
    return [(old - new) / rule.rate for old, new in zip(before, (w1, b1, w2, b2), strict=True)]


@pytest.mark.parametrize("variant", ["one-sided", "centred"])
@pytest.mark.parametrize("update", ["symmetric", "stdp"])
def test_weights_move_at_every_step_as_the_published_loop_has_them(x64, key, update, variant):
    net, batch = mlp(4, 6, 3, activation="tanh", output="tanh", key=key), examples(key)
    rule = ContinualEquilibriumPropagation(0.4, 0.5, update, variant, **PHASES)
    (grads,) = updates([rule], net, batch)
    found = [part for site in grads.chain.stages for part in (site.weight, site.bias)]
    for got, expected in zip(found, by_hand(net, batch, rule), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-8, atol=1e-12)


def test_stdp_of_a_convergent_network_reads_its_states_as_rates(x64, key):
    net, batch = mlp(4, 6, 3, activation="sigmoid", output="sigmoid", key=key), examples(key)
    settings = {**PHASES, "network": "convergent", "relaxation": "fixed-point"}
    rules = [ContinualEquilibriumPropagation(0.3, 0.0, update, **settings) for update in ("symmetric", "stdp")]
    symmetric, stdp = (g.chain.stages for g in updates(rules, net, batch))
    # Below the first layer nothing moves, so both forms agree there; above it one of two terms is left out.
    np.testing.assert_allclose(stdp[0].weight, symmetric[0].weight, rtol=1e-9)
    np.testing.assert_allclose(stdp[1].bias, symmetric[1].bias, rtol=1e-9)
    assert not np.allclose(stdp[1].weight, symmetric[1].weight, rtol=1e-3)
    assert jnp.vdot(stdp[1].weight, symmetric[1].weight) > 0


def test_stdp_is_refused_where_there_are_no_layers(key):
    with pytest.raises(TypeError, match="pass a chain"):
        ContinualEquilibriumPropagation(update="stdp").init(ReadOut(jnp.ones((4, 2)), jnp.ones((2, 3))), key=key)


@pytest.mark.parametrize("bad", [{"beta": 0.0}, {"rate": -1.0}, {"nudged_steps": 0}])
def test_numbers_out_of_range_are_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        ContinualEquilibriumPropagation(**bad)
