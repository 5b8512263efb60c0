import equinox as eqx
import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from anyprop.contract import Batch
from anyprop.energies import Energy, GradientFlow, Hopfield, Initialized
from anyprop.nets import Chain, Dense, convnet, mlp
from anyprop.rules.equilibrium import EquilibriumPropagation, InitializedEquilibriumPropagation

UP, DOWN = 1, 3
"""Seeds with which beta has a positive and a negative sign, in double precision."""


class Spring(Energy):
    """An energy without layers."""

    stiffness: jax.Array
    relaxation: GradientFlow = GradientFlow()

    def energy(self, state, x):
        return 0.5 * jnp.sum(state**2 - state * (x @ self.stiffness), axis=1)

    def start(self, x):
        return x @ self.stiffness

    def output(self, state):
        return state


def net(key, *sizes, units="hard-sigmoid"):
    return mlp(*(sizes or (4, 6, 5, 3)), activation=units, output=units, key=key)


def examples(key, count=6):
    return Batch(jax.random.uniform(key, (count, 4)), jnp.arange(count) % 3)


@eqx.filter_jit
def credit(rule, learner, batch, seed=UP):
    return rule.credit(learner, batch, key=jax.random.key(seed))


@pytest.mark.parametrize("network", ["hopfield", "convergent"])
def test_untethered_and_settled_it_is_equilibrium_propagation(x64, key, network):
    settled = {"free_steps": 400, "nudged_steps": 400, "network": network}
    rule = InitializedEquilibriumPropagation(tether=0.0, **settled)
    plain = EquilibriumPropagation(0.5, "one-sided", **settled)
    chain, batch = net(key, units="tanh"), examples(key)
    got = credit(rule, rule.init(chain, key=key), batch)
    expected = credit(plain, plain.init(chain, key=key), batch)
    np.testing.assert_allclose(got.loss, expected.loss, rtol=1e-9)
    jax.tree.map(
        lambda one, other: np.testing.assert_allclose(one, other, atol=1e-9), got.grads[0].network, expected.grads[0]
    )


@pytest.mark.parametrize(("seed", "sign"), [(UP, 1), (DOWN, -1)])
def test_an_update_is_that_of_its_equations(x64, key, seed, sign):
    rule = InitializedEquilibriumPropagation(0.4, 3, tether=0.2, leak=0.1, free_steps=4, step_size=0.3)
    learner, batch = rule.init(net(key, 4, 6, 3), key=key), examples(key)
    learner = eqx.tree_at(lambda learner: learner.model.forward, learner, net(jax.random.key(9), 4, 6, 3))
    (w1, _), (w2, _) = ((np.asarray(s.weight), s.bias) for s in learner.model.network.chain.stages)
    (v1, _), (v2, _) = ((np.asarray(s.weight), s.bias) for s in learner.model.forward.stages)
    x, y = np.asarray(batch.x), np.eye(3)[np.asarray(batch.y)]
    a1 = x @ v1
    f1 = np.clip(a1, 0, 1) + 0.1 * a1
    a2 = f1 @ v2
    f2 = np.clip(a2, 0, 1) + 0.1 * a2

    def run(s1, s2, steps, beta):
        for _ in range(steps):
            d1 = x @ w1 + s2 @ w2.T - s1 - 0.4 * (s1 - f1)
            d2 = s1 @ w2 - s2 - 0.4 * (s2 - f2) + beta * (y - s2)
            s1, s2 = np.clip(s1 + 0.3 * d1, 0, 1), np.clip(s2 + 0.3 * d2, 0, 1)
        return s1, s2

    start = np.clip(f1, 0, 1), np.clip(f2, 0, 1)
    n1, n2 = run(*start, 4, 0.0)
    p1, p2 = run(n1, n2, 3, sign * 0.4)
    found = credit(rule, learner, batch, seed)
    network, forward = found.grads[0].network.chain.stages, found.grads[0].forward.stages
    np.testing.assert_allclose(network[0].weight, -(x.T @ (p1 - n1)) / (6 * sign * 0.4), atol=1e-12)
    np.testing.assert_allclose(network[1].weight, -(p1.T @ p2 - n1.T @ n2) / (6 * sign * 0.4), atol=1e-12)
    slope1, slope2 = ((a1 > 0) & (a1 < 1)) + 0.1, ((a2 > 0) & (a2 < 1)) + 0.1
    np.testing.assert_allclose(forward[0].weight, x.T @ (2 * (f1 - n1) * slope1) / 6, atol=1e-12)
    np.testing.assert_allclose(forward[1].weight, f1.T @ (2 * (f2 - n2) * slope2) / 6, atol=1e-12)
    np.testing.assert_allclose(found.output, n2, atol=1e-12)
    moved = sum(np.sum((n - f) ** 2) for n, f in zip((n1, n2), start, strict=True))
    distance = np.sqrt(moved / (np.sum(n1**2) + np.sum(n2**2)))
    np.testing.assert_allclose(found.metrics["free_distance"], distance, rtol=1e-9)
    np.testing.assert_allclose(eqx.filter_jit(learner.model)(batch.x), found.output, rtol=1e-9)


def test_a_pass_through_layers_that_are_autoencoders_is_at_rest(x64, key):
    """One unit a layer: s_1 = 2 w x, s_2 = v s_1, and from above comes v s_2 = v^2 s_1 = w x where v^2 = 1/2."""
    chain = Chain([Dense(1, 1, activation="hard-sigmoid", key=key) for _ in range(2)])
    weights = [jnp.asarray([[0.4]]), jnp.asarray([[0.5**0.5]])]
    chain = eqx.tree_at(lambda c: [site.weight for site in c.stages], chain, weights)
    rule = InitializedEquilibriumPropagation(forward="shared", free_steps=50)
    batch = Batch(jnp.asarray([[0.3], [0.8], [1.0]]), jnp.zeros((3, 1)))
    learner = rule.init(chain, key=key)
    found = credit(rule, learner, batch)
    disagreement = eqx.filter_jit(lambda model: model.disagreement(batch.x))
    np.testing.assert_allclose(found.metrics["free_distance"], 0.0, atol=1e-12)
    np.testing.assert_allclose(disagreement(learner.model), 0.0, atol=1e-24)
    np.testing.assert_allclose(found.output, 0.8 * 0.5**0.5 * batch.x, rtol=1e-9)
    other = eqx.tree_at(lambda m: m.network.chain.stages[1].weight, learner.model, jnp.asarray([[0.9]]))
    np.testing.assert_allclose(disagreement(other), 0.5 * ((0.81 * 2 - 1) * 0.4 * batch.x[:, 0]) ** 2)


@eqx.filter_jit
def learn(rule, batch):
    """How far the forward pass is from the rest, and the steps to it: at the start of learning, and at its end."""
    key = jax.random.key(0)
    arrays, static = eqx.partition(rule.init(net(key), key=key), eqx.is_array)

    def step(arrays, key):
        learner = eqx.combine(arrays, static)
        found = rule.credit(learner, batch, key=key)
        learner = learner.apply(jax.tree.map(lambda g: -0.1 * g, found.grads), found.memory)
        return eqx.filter(learner, eqx.is_array), jnp.stack([found.metrics[f"free_{m}"] for m in ("distance", "steps")])

    seen = jax.lax.scan(step, arrays, jax.random.split(key, 300))[1]
    return seen[0], seen[-20:].mean(0)


def test_where_nothing_is_active_nothing_has_moved(key):
    silent = jax.tree.map(lambda w: -jnp.abs(w) - 0.1, net(key, 4, 6, 3))
    rule, batch = InitializedEquilibriumPropagation(0.5, 1, leak=0.0, free_steps=1), examples(key)
    assert credit(rule, rule.init(silent, key=key), batch).metrics["free_distance"] == 0


UNTETHERED = {"free_steps": 100, "tolerance": 1e-3, "tether": 0.0}


def test_forward_weights_learn_to_foresee_the_rest_and_save_steps(key):
    (distance, steps), (distance_after, steps_after) = learn(
        InitializedEquilibriumPropagation(**UNTETHERED), examples(key)
    )
    assert distance_after < 0.5 * distance
    assert steps_after < 0.8 * steps


def test_autoencoders_bring_the_shared_forward_pass_near_the_rest_and_save_steps(key):
    without, within = (
        learn(InitializedEquilibriumPropagation(forward="shared", autoencoder=weight, **UNTETHERED), examples(key))[1]
        for weight in (0.0, 3.0)
    )
    assert within[0] < 0.5 * without[0]
    assert within[1] < 0.8 * without[1]


def test_convolutions_and_pooling_have_their_place(key):
    rule = InitializedEquilibriumPropagation(forward="shared", autoencoder=1.0, free_steps=2, nudged_steps=1)
    chain = convnet(input_shape=(4, 4, 1), channels=(2,), classes=3, activation="hard-sigmoid", key=key)
    batch = Batch(jax.random.uniform(key, (2, 4, 4, 1)), jnp.arange(2))
    found = credit(rule, eqx.filter_jit(rule.init)(chain, key=key), batch)
    assert all(np.any(leaf != 0) for leaf in jax.tree.leaves(found.grads))


@pytest.mark.parametrize(
    ("bad", "match"),
    [
        ({"beta": 0.0}, "beta"),
        ({"nudged_steps": 0}, "nudged_steps"),
        ({"forward": "none"}, "forward"),
        ({"tether": -0.1}, "tether"),
        ({"leak": -0.1}, "leak"),
        ({"autoencoder": -0.1}, "autoencoder"),
        ({"free_steps": 0}, "free_steps"),
        ({"autoencoder": 0.5}, "autoencoder=0.5 is for .* pass forward='shared'"),
        ({"forward": "shared", "leak": 0.5}, "leak=0.5 is for .* pass forward='own'"),
    ],
)
def test_numbers_out_of_range_are_refused(bad, match):
    with pytest.raises((ValueError, TypeError), match=match):
        InitializedEquilibriumPropagation(**bad)


def test_models_without_layers_are_refused(key):
    with pytest.raises(
        TypeError, match=r"a Spring; pass a chain, an energies\.Hopfield .* or choose EquilibriumPropagation"
    ):
        InitializedEquilibriumPropagation().init(Spring(jnp.ones((3, 2))), key=key)


def test_a_trained_model_keeps_its_weights_and_gets_the_rules_settings(key):
    chain = net(key)
    trained = InitializedEquilibriumPropagation().init(Hopfield(chain), key=key).model
    again = InitializedEquilibriumPropagation(free_steps=7, tether=0.3).init(trained, key=jax.random.key(9)).model
    flow = GradientFlow(7)
    assert eqx.tree_equal(again, Initialized(trained.network, trained.forward, tether=0.3, relaxation=flow))
    shared = InitializedEquilibriumPropagation(forward="shared")
    assert shared.init(trained, key=key).model.forward is None
    for own in ({"tether": 0.7}, {"leak": 0.3}):
        other, (name, value) = Initialized(trained.network, trained.forward, **own), *own.items()
        with pytest.raises(ValueError, match=f"model has {name}={value}.* pass {name}={value}"):
            InitializedEquilibriumPropagation().init(other, key=key)
        assert InitializedEquilibriumPropagation(**own).init(other, key=key)
    assert shared.init(other, key=key)  # to which the leak is nothing


def test_energies_that_cannot_start_from_a_forward_pass_are_refused(key, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # users run without the type checker
    for bad in ("tether", "leak"):
        with pytest.raises(ValueError, match=f"{bad} must be"):
            Initialized(Hopfield(net(key)), **{bad: -1})
    with pytest.raises(TypeError, match=r"network must be .*, not Chain; .*energies\.Hopfield\(chain\)"):
        Initialized(net(key))
