import equinox as eqx
import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from anyprop.energies import (
    Convergent,
    Energy,
    GradientFlow,
    Hopfield,
    Initialized,
    ReadOut,
    Resistive,
    SoftClamps,
    influence_gradient,
    objective,
    rest,
)
from anyprop.nets import Dense, mlp

FLOW = GradientFlow(2000, 0.2, 1e-14)


class Eight(Energy):
    """Eight tanh units, all to all: two of them the input, two the output."""

    weight: jax.Array
    bias: jax.Array
    relaxation: GradientFlow = eqx.field(default_factory=GradientFlow)

    def energy(self, state, x):
        s = jnp.concatenate([x, state], axis=1)
        r = jnp.tanh(s)
        coupling = jnp.sum((r @ jnp.triu(self.weight, 1)) * r, axis=1)
        return 0.5 * jnp.sum(s**2, axis=1) - coupling - r @ self.bias

    def start(self, x):
        return jnp.zeros((len(x), 6))

    def output(self, state):
        return state[:, 4:]


def setting():
    keys = jax.random.split(jax.random.key(0), 4)
    model = SoftClamps(Eight(0.3 * jax.random.normal(keys[0], (8, 8)), 0.3 * jax.random.normal(keys[1], (8,))))
    return model, model.world(jax.random.normal(keys[2], (3, 2)), jax.random.normal(keys[3], (3, 2)))


def flat(tree):
    return jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(tree)])


PAIRS = [((2.0, 0.7), (0.4, 1.3)), ((5.0, 0.0), (0.0, 1.0)), ((0.5, 1.5), (1.0, -1.0)), ((1.0, 1.0), (1.0, 0.0))]


ESTIMATES = [("one-sided", 2e-4), ("one-sided", 1e-4), ("centred", 2e-2), ("centred", 1e-2), ("centred", 1e-4)]


@eqx.filter_jit
def errors(beta, direction):
    """The relative errors of the estimates; the exact gradient is that of the implicit function theorem."""
    model, world = setting()
    system = model.start(world), world, FLOW
    exact = flat(eqx.filter_grad(lambda m: jnp.mean(objective(SoftClamps.total, m, beta, direction, *system)))(model))
    found = {
        (variant, xi): flat(
            influence_gradient(SoftClamps.total, model, beta, direction, *system, xi=xi, variant=variant)
        )
        for variant, xi in ESTIMATES
    }
    return {name: jnp.linalg.norm(estimate - exact) / jnp.linalg.norm(exact) for name, estimate in found.items()}


@pytest.mark.parametrize(("beta", "direction"), PAIRS)
def test_the_difference_tends_to_the_gradient_for_any_influence_and_direction(x64, beta, direction):
    error = errors(jnp.asarray(beta), jnp.asarray(direction))
    assert 1e-5 < error["one-sided", 1e-4] < 1e-2
    assert 1.9 < error["one-sided", 2e-4] / error["one-sided", 1e-4] < 2.1
    assert error["centred", 1e-4] < 1.4e-6
    assert 3.8 < error["centred", 2e-2] / error["centred", 1e-2] < 4.2


def test_a_convergent_system_settles_from_its_own_start_in_its_own_way(x64, key):
    """At 0, where sigmoids start, the slope of their energy is not finite."""
    model = SoftClamps(Convergent(mlp(2, 3, 2, activation="sigmoid", output="sigmoid", key=key)))
    world = model.world(jnp.ones((1, 2)), jnp.full((1, 2), 0.9))
    start, ways = model.start(world), (FLOW, model.project, SoftClamps.velocity)
    beta, direction = jnp.asarray([5.0, 2.0]), jnp.asarray([0.0, 1.0])

    @eqx.filter_jit
    def found(model, beta, direction):
        end = rest(SoftClamps.total, model, beta, start, world, *ways)
        slope = jax.grad(lambda state: jnp.sum(model.total(beta, state, world)))(end.state)
        system = beta, direction, start, world, *ways
        exact = eqx.filter_grad(lambda m: jnp.mean(objective(SoftClamps.total, m, *system)))(model)
        return end.residual, slope, influence_gradient(SoftClamps.total, model, *system, xi=1e-4), exact

    residual, slope, estimate, exact = found(model, beta, direction)
    assert residual < 1e-12
    np.testing.assert_allclose(flat(slope), 0.0, atol=1e-9)
    np.testing.assert_allclose(flat(estimate), flat(exact), rtol=1e-5, atol=1e-8)
    with pytest.raises(RuntimeError, match=r"slope of total .*velocity=SoftClamps\.velocity"):
        rest(SoftClamps.total, model, beta, start, world, *ways[:2])


def well(theta, beta, state, world):
    """F = s^2 / 2 - theta s + beta (s - world)^2 / 2, at rest at (theta + beta world) / (1 + beta)."""
    return 0.5 * state**2 - theta * state + 0.5 * beta * (state - world) ** 2


def of_well(total=well, xi=0.1, direction=1.0, **settings):
    beta, direction = jnp.asarray(0.5), jnp.asarray(direction)
    flow = GradientFlow(300, 0.3, 1e-13)
    return influence_gradient(total, jnp.asarray(2.0), beta, direction, jnp.zeros(1), -1.0, flow, xi=xi, **settings)


def test_of_a_quadratic_well_every_variant_gives_its_closed_form(x64):
    def secant(high, low):  # dF/dtheta = -s
        ends = [(2.0 - (0.5 + xi)) / (1.5 + xi) for xi in (high, low)]
        return -(ends[0] - ends[1]) / (high - low)

    @jax.jit
    def found(keys):
        drawn = jax.vmap(lambda key: of_well(variant="random-sign", key=key))(keys)
        return of_well(variant="one-sided"), of_well(variant="centred"), drawn.min(), drawn.max()

    up, down = secant(0.1, 0.0), secant(-0.1, 0.0)
    expected = [up, secant(0.1, -0.1), min(up, down), max(up, down)]
    np.testing.assert_allclose(found(jax.random.split(jax.random.key(0), 6)), expected, rtol=1e-9)


def test_stiff_springs_hold_the_input_and_loose_ones_let_it_go_where_the_system_would_have_it(x64):
    model, world = setting()

    @eqx.filter_jit
    def held(stiffness, step_size):
        flow = GradientFlow(2000, step_size)
        return rest(SoftClamps.total, model, jnp.asarray([stiffness, 0.0]), model.start(world), world, flow).state[0]

    ends = {1e6: held(1e6, 1e-6), 0.0: held(0.0, 0.2)}
    np.testing.assert_allclose(ends[1e6], world[0], atol=1e-5)
    np.testing.assert_allclose(ends[0.0][0], ends[0.0][1], atol=1e-9)


@pytest.mark.parametrize("view", [Hopfield, Convergent])
def test_units_of_bounded_range_stay_in_it(x64, key, view):
    model = SoftClamps(view(mlp(2, 3, 2, activation="hard-sigmoid", output="hard-sigmoid", key=key)))
    world = model.world(jnp.ones((1, 2)), jnp.ones((1, 2)))
    beta = jnp.asarray([1.0, 50.0])
    flow = GradientFlow(2000, 0.02)
    settle = eqx.filter_jit(rest)
    _, s = settle(SoftClamps.total, model, beta, model.start(world), world, flow, model.project).state
    assert all(jnp.all((a >= 0) & (a <= 1)) for a in s)
    np.testing.assert_allclose(s[-1], 1.0, atol=0.05)


@pytest.mark.parametrize(
    ("bad", "match"),
    [
        ({"xi": 0.0}, "xi must be"),
        ({"direction": 0.0}, "direction is zero"),
        ({"direction": [1.0, 0.0]}, "direction has shape"),
        ({"variant": "random-sign"}, "key is missing"),
    ],
)
def test_nudges_that_are_none_are_refused(bad, match):
    with pytest.raises(ValueError, match=match):
        of_well(**bad)


def test_influences_may_be_integers(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # users run without the type checker
    cost = objective(well, 2.0, 0, 1, jnp.full(1, 2.0), -1.0, GradientFlow(1))
    np.testing.assert_allclose(cost, 4.5)


def test_a_slope_that_is_not_finite_is_reported():
    def cliff(theta, beta, state, world):
        return well(theta, beta, state, world) + jnp.sqrt(jnp.abs(state))

    with pytest.raises(RuntimeError, match="slope of total"):
        of_well(cliff)


def test_targets_out_of_reach_are_refused(key):
    model = SoftClamps(Hopfield(mlp(2, 3, 2, activation="hard-sigmoid", output="hard-sigmoid", key=key)))
    model.world(jnp.ones((1, 2)), jnp.asarray([[0.0, 1.0]]))
    with pytest.raises(RuntimeError, match="y_bar lies outside"):
        model.world(jnp.ones((1, 2)), jnp.asarray([[0.0, 1.1]]))
    with pytest.raises(ValueError, match="y_bar has shape"):
        model.world(jnp.ones((1, 2)), jnp.zeros((1, 3)))
    with pytest.raises(TypeError, match="energy"):
        SoftClamps(mlp(2, 3, 2, key=key))


@pytest.mark.parametrize("read", [Convergent, lambda chain: Initialized(Convergent(chain))])
@pytest.mark.parametrize(
    ("units", "low", "high"),
    [("tanh", -1, 1), ("sigmoid", 0, 1), ("half-hard-sigmoid", 0, 1), ("relu", 0, 1e9), ("identity", -1e9, 1e9)],
)
def test_the_range_of_rates_is_that_of_their_activation(key, read, units, low, high):
    model, x = SoftClamps(read(mlp(2, 3, 2, activation="tanh", output=units, key=key))), jnp.ones((1, 2))
    model.world(x, jnp.asarray([[low, high]], float))
    for beyond in [1.1 * low - 0.1] * (low > -1e9) + [1.1 * high] * (high < 1e9):
        with pytest.raises(RuntimeError, match="y_bar lies outside"):
            model.world(x, jnp.asarray([[0.5, beyond]]))


def test_outputs_that_sum_over_units_reach_as_far_as_all_of_them_together(key):
    readout = eqx.tree_at(lambda r: r.weight, Dense(2, 1, key=key), jnp.asarray([[2.0], [-3.0]]))
    chain, x = mlp(2, 2, activation="hard-sigmoid", output="hard-sigmoid", key=key), jnp.ones((1, 2))
    for system in (Hopfield(chain), Convergent(chain)):
        model = SoftClamps(ReadOut(system, readout))
        for y in (-3.0, 2.0):
            model.world(x, jnp.asarray([[y]]))
            with pytest.raises(RuntimeError, match="y_bar lies outside"):
                model.world(x, jnp.asarray([[1.1 * y]]))
    SoftClamps(Resistive(2, 1, paired=True, key=key)).world(x, jnp.asarray([[-5.0]]))
