import re

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from anyprop.contract import Batch, DataInfo, exact_gradient
from anyprop.energies import Convergent, Energy, GradientFlow, Hopfield, ReadOut
from anyprop.nets import Dense, elman, mlp
from anyprop.rules.equilibrium import EquilibriumPropagation

SETTLED = {"free_steps": 600, "nudged_steps": 600, "tolerance": 1e-14}


class Pair(Energy):
    """An energy of one's own: E = s^4 / 4 + s^2 / 2 - s (x . w), two units with a coupling, and a trained readout."""

    w: jax.Array
    coupling: jax.Array
    readout: jax.Array
    relaxation: GradientFlow = eqx.field(default_factory=GradientFlow)

    def energy(self, state, x):
        s = state["s"]
        return jnp.sum(s**4 / 4 + s**2 / 2 - s * (x @ self.w), axis=1) - self.coupling * s[:, 0] * s[:, 1]

    def start(self, x):
        return {"s": jnp.zeros((len(x), 2))}

    def output(self, state):
        return state["s"] * self.readout


def net(key, units="hard-sigmoid", output=None, sizes=(4, 5, 3)):
    return mlp(*sizes, activation=units, output=output or units, key=key)


def examples(key, outputs=3, count=6):
    return Batch(jax.random.uniform(key, (count, 4)), jnp.arange(count) % outputs, jnp.arange(count))


def inside(key):
    """Hard sigmoids that all rest well inside their range."""

    def centre(site):
        return eqx.tree_at(lambda s: (s.weight, s.bias), site, (0.2 * site.weight, jnp.full_like(site.bias, 0.5)))

    chain = net(key)
    return eqx.tree_at(lambda c: c.stages, chain, tuple(centre(site) for site in chain.stages))


def own(key):
    return Pair(jax.random.normal(key, (4, 2)), jnp.asarray(0.3), jnp.asarray([0.8, 1.2]))


def small(chain):
    return jax.tree.map(lambda w: 0.5 * w, chain)


def read_out(key):
    return ReadOut(Convergent(small(net(key, "sigmoid", sizes=(4, 5, 4)))), Dense(4, 3, key=key))


SYSTEMS = {
    "hard sigmoids": (inside, "squared-error", 3),
    "three layers": (lambda key: small(net(key, "tanh", sizes=(4, 5, 4, 3))), "squared-error", 3),
    "cross-entropy": (lambda key: small(net(key, "sigmoid", "identity")), "cross-entropy", 3),
    "a read-out outside": (read_out, "cross-entropy", 3),
    "an energy of one's own": (own, "squared-error", 2),
}


def flat(tree):
    return jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(tree)])


@eqx.filter_jit
def credit(rule, learner, batch, key=None):
    return rule.credit(learner, batch, key=jax.random.key(0) if key is None else key)


def update(rule, learner, batch, key=None):
    return flat(credit(rule, learner, batch, key).grads)


def setting(system):
    build, loss, outputs = SYSTEMS[system]
    learner = EquilibriumPropagation(**SETTLED, loss=loss).init(build(jax.random.key(0)), key=jax.random.key(0))
    return learner, examples(jax.random.key(1), outputs), loss


@pytest.mark.parametrize("system", SYSTEMS)
def test_the_update_tends_to_the_gradient_at_rest(x64, system):
    learner, batch, loss = setting(system)
    rules = {
        (variant, beta): EquilibriumPropagation(beta, variant, **SETTLED, loss=loss)
        for variant in ("one-sided", "centred")
        for beta in (0.02, 0.01)
    }
    gradient = flat(eqx.filter_jit(exact_gradient)(rules["centred", 0.01].loss, learner.model, batch)[2])
    updates = eqx.filter_jit(lambda learner: {name: update(rule, learner, batch) for name, rule in rules.items()})
    error = {name: jnp.linalg.norm(u - gradient) / jnp.linalg.norm(gradient) for name, u in updates(learner).items()}
    assert error["one-sided", 0.01] < 0.05
    assert 1.9 < error["one-sided", 0.02] / error["one-sided", 0.01] < 2.1
    assert error["centred", 0.01] < 0.001
    assert 3.8 < error["centred", 0.02] / error["centred", 0.01] < 4.2


@pytest.mark.parametrize("system", ["hard sigmoids", "an energy of one's own"])
def test_that_gradient_is_what_finite_differences_measure(x64, system):
    learner, batch, loss = setting(system)
    rule = EquilibriumPropagation(1e-4, **SETTLED, loss=loss)
    direction = jax.tree.map(lambda w: jax.random.normal(jax.random.key(2), w.shape), learner.params[0])

    @jax.jit
    def cost(length):
        moved = eqx.apply_updates(learner.model, jax.tree.map(lambda d: length * d, direction))
        return jnp.mean(rule.loss(moved(batch.x), batch.y))

    measured = (cost(1e-5) - cost(-1e-5)) / 2e-5
    np.testing.assert_allclose(jnp.vdot(update(rule, learner, batch), flat(direction)), measured, rtol=1e-6)


def test_two_batches_with_particles_are_those_of_the_published_loop(x64, key):
    rule = EquilibriumPropagation(0.5, "one-sided", free_steps=7, nudged_steps=4, step_size=0.3, particles=True)
    chain = net(key)
    batch = examples(key)
    learner = rule.init(chain, data=info(), key=key)
    (w1, b1), (w2, b2) = ((np.asarray(site.weight), np.asarray(site.bias)) for site in chain.stages)
    x, target, beta = np.asarray(batch.x), np.eye(3)[np.asarray(batch.y)], 0.5

    def run(s1, s2, steps, beta):
        for _ in range(steps):
            d1 = x @ w1 + b1 + s2 @ w2.T - s1
            d2 = s1 @ w2 + b2 - s2 + beta * (target - s2)
            s1, s2 = np.clip(s1 + 0.3 * d1, 0, 1), np.clip(s2 + 0.3 * d2, 0, 1)
        return s1, s2

    f1, f2 = np.zeros((6, 5)), np.zeros((6, 3))
    for _ in range(2):
        f1, f2 = run(f1, f2, 7, 0.0)
        n1, n2 = run(f1, f2, 4, beta)
        first, second = -(x.T @ n1 - x.T @ f1) / (6 * beta), -(n1.T @ n2 - f1.T @ f2) / (6 * beta)
        found = credit(rule, learner, batch)
        learner = eqx.tree_at(lambda learner: learner.memory, learner, found.memory)
        sites = found.grads[0].chain.stages
        np.testing.assert_allclose(sites[0].weight, first, atol=1e-12)
        np.testing.assert_allclose(sites[1].weight, second, atol=1e-12)
        np.testing.assert_allclose(sites[0].bias, -(n1 - f1).mean(0) / beta, atol=1e-12)
        np.testing.assert_allclose(sites[1].bias, -(n2 - f2).mean(0) / beta, atol=1e-12)
        np.testing.assert_allclose(found.output, f2, atol=1e-12)


def test_a_random_sign_gives_the_centred_update_in_the_mean_of_its_two_values(x64, key):
    batch, chain = examples(key), net(key, "tanh")
    learner = EquilibriumPropagation().init(chain, key=key)
    random = EquilibriumPropagation(0.3, "random-sign")
    drawn = [credit(random, learner, batch, jax.random.key(seed)) for seed in range(8)]
    up = credit(EquilibriumPropagation(0.3, "one-sided"), learner, batch)
    down = next(found for found in drawn if not np.allclose(flat(found.grads), flat(up.grads)))
    for found in drawn:
        assert any(np.allclose(flat(found.grads), flat(sign.grads)) for sign in (up, down))
    centred = credit(EquilibriumPropagation(0.3, "centred"), learner, batch)
    mean = (flat(up.grads) + flat(down.grads)) / 2
    np.testing.assert_allclose(flat(centred.grads), mean, rtol=1e-9, atol=1e-12)
    worse = max(up.metrics["nudged_residual"], down.metrics["nudged_residual"])
    np.testing.assert_allclose(centred.metrics["nudged_residual"], worse, rtol=1e-9)


def test_particles_of_the_batch_alone_move_and_save_steps(x64, key):
    rule = EquilibriumPropagation(free_steps=200, tolerance=1e-8, particles=True)
    learner = rule.init(net(key), data=info(), key=key)
    whole = examples(key)
    batch = Batch(whole.x[2:4], whole.y[2:4], whole.index[2:4])
    first = credit(rule, learner, batch)
    for before, after in zip(learner.memory, first.memory, strict=True):
        np.testing.assert_array_equal(np.delete(before, [2, 3], 0), np.delete(after, [2, 3], 0))
        assert np.all(np.any(after[2:4] != before[2:4], axis=1))
    np.testing.assert_array_equal(first.memory[-1][2:4], first.output)  # the free state, not the nudged one
    second = credit(rule, eqx.tree_at(lambda learner: learner.memory, learner, first.memory), batch)
    assert second.metrics["free_steps"] == 1 < first.metrics["free_steps"]


def test_it_tells_whether_the_phases_settled(x64, key):
    batch = examples(key)
    for steps, converged in ((2, 0.0), (500, 1.0)):
        rule = EquilibriumPropagation(0.1, free_steps=steps, nudged_steps=steps, tolerance=1e-7)
        metrics = credit(rule, rule.init(net(key), key=key), batch).metrics
        for phase in ("free", "nudged"):
            assert metrics[f"{phase}_converged"] == converged
            assert (metrics[f"{phase}_residual"] <= 1e-7) == bool(converged)
            assert metrics[f"{phase}_steps"] <= steps


def test_an_energy_keeps_its_weights_and_gets_the_rules_free_phase(key):
    chain = net(key)
    rule = EquilibriumPropagation(free_steps=7, step_size=0.2, tolerance=0.01)
    for model in (chain, Hopfield(chain, relaxation=GradientFlow(3))):
        assert eqx.tree_equal(rule.init(model, key=key).model, Hopfield(chain, relaxation=GradientFlow(7, 0.2, 0.01)))


def info():
    return DataInfo(6, jax.ShapeDtypeStruct((4,), jnp.float32), jax.ShapeDtypeStruct((), jnp.int32))


@pytest.mark.parametrize(
    ("bad", "match"),
    [
        ({"beta": 0.0}, "beta"),
        ({"beta": -1.0}, "beta"),
        ({"free_steps": 0}, "free_steps"),
        ({"nudged_steps": 0}, "nudged_steps"),
        ({"step_size": 0.0}, "step_size"),
        ({"tolerance": -1.0}, "tolerance"),
    ],
)
def test_numbers_out_of_range_are_refused(bad, match):
    with pytest.raises(ValueError, match=match):
        EquilibriumPropagation(**bad)


def test_particles_need_to_know_the_examples(key):
    rule = EquilibriumPropagation(particles=True)
    with pytest.raises(ValueError, match="data is missing"):
        rule.init(net(key), key=key)
    learner, batch = rule.init(net(key), data=info(), key=key), examples(key)
    with pytest.raises(ValueError, match=r"batch\.index is missing"):
        rule.credit(learner, Batch(batch.x, batch.y), key=key)


@pytest.mark.parametrize(
    ("model", "match"),
    [
        (lambda x: x, r"needs an energy.*ap\.nets\.mlp"),
        (eqx.nn.Linear(4, 3, key=jax.random.key(0)), "model is a Linear; pass"),
        (Dense(4, 3, key=jax.random.key(0)), "model is a Dense; pass"),
        (elman(4, 5, 3, key=jax.random.key(0)), "no energy for a Elman"),
    ],
)
def test_models_of_the_wrong_kind_are_refused(model, match, key):
    with pytest.raises(TypeError, match=match):
        EquilibriumPropagation().init(model, key=key)


@pytest.mark.parametrize("system", [lambda key: Hopfield(net(key, "tanh")), own], ids=["hopfield", "own"])
def test_the_contrast_of_two_states_is_that_of_their_statistics(x64, key, system):
    model, x = system(key), jax.random.uniform(key, (6, 4))
    draws = (jax.tree.map(lambda s, k=k: jax.random.normal(k, s.shape), model.start(x)) for k in jax.random.split(key))
    one, other = draws
    apart = jax.tree.map(jnp.subtract, model.statistics(one, x), model.statistics(other, x))
    found = model.contrast(one, other, x)
    assert jax.tree.structure(found) == jax.tree.structure(apart)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(apart), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)


def test_weights_meet_the_states_of_both_phases_in_one_product(key):
    rule = EquilibriumPropagation()
    learner = rule.init(net(key, sizes=(37, 11, 3)), key=key)
    arrays, static = eqx.partition(learner, eqx.is_array)

    def credit(arrays, x):
        batch = Batch(x, jnp.zeros(5, int))
        return rule.credit(eqx.combine(arrays, static), batch, key=jax.random.key(0)).grads

    text = jax.jit(credit).lower(arrays, jnp.ones((5, 37))).compile().as_text()
    assert len(re.findall(r"f32\[37,11\]\S* dot\(", text)) == 1
