import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from anyprop.energies import BacktrackingFlow, Dynamics, GradientFlow, Hopfield
from anyprop.nets import mlp

CURVATURE = jnp.asarray([1.0, 30.0])
WELL = Dynamics(lambda s: jnp.asarray([0.5, 2.0]) - CURVATURE * s, lambda s: s)
REST = np.array([0.5, 2.0 / 30])


@pytest.mark.parametrize("tolerance", [0.0, 1e-12])
def test_short_enough_steps_are_those_of_gradient_flow(x64, key, tolerance):
    model = Hopfield(mlp(4, 7, 6, 3, activation="hard-sigmoid", output="hard-sigmoid", key=key))
    x = jax.random.uniform(key, (5, 4))
    one, other = (model.settle(x, relaxation=way(9, 0.2, tolerance)) for way in (BacktrackingFlow, GradientFlow))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), one.state, other.state)
    np.testing.assert_array_equal(one.steps, other.steps)


def test_a_step_too_long_is_halved_until_the_state_settles(x64):
    """A gradient flow needs less than 2 / 30 here; 1.0 is halved four times, on the way to it or before."""
    starts = jnp.asarray([[0.0, 0.0], [0.5, 1.0], [3.0, 2.0 / 30]])
    assert not np.all(np.isfinite(GradientFlow(300, 1.0)(WELL, starts).state))
    ends = BacktrackingFlow(600, 1.0, 1e-9)(WELL, starts)
    assert ends.converged.all()
    np.testing.assert_allclose(ends.state, np.tile(REST, (3, 1)), atol=2e-9)


def test_no_step_in_a_quadratic_well_raises_the_energy(x64, key):
    starts = jax.random.normal(key, (6, 2))

    @jax.jit
    def energies(start):
        ends = [BacktrackingFlow(steps, 1.0)(WELL, start).state for steps in range(1, 12)]
        return jnp.stack([jnp.sum(CURVATURE * (s - REST) ** 2, axis=1) / 2 for s in (start, *ends)])

    found = energies(starts)
    assert np.all(np.diff(found, axis=0) <= 0)
    # Four steps are only tried. The fifth, of 1 / 16, takes the fast unit past its rest, to 14 / 16 of its distance.
    np.testing.assert_array_equal(found[4], found[0])
    assert np.all(found[5] < found[0])


def test_a_step_of_exactly_twice_the_distance_is_cut(x64):
    """It would go to and fro for ever between two states of one energy."""
    ends = BacktrackingFlow(2, 2.0)(Dynamics(jnp.negative, lambda s: s), jnp.ones((1, 1)))
    np.testing.assert_array_equal(ends.state, [[0.0]])


def test_a_step_to_no_number_is_cut(x64):
    ends = BacktrackingFlow(1100, 1e300, 1e-9)(Dynamics(lambda s: -(s**3) - s, lambda s: s), jnp.ones((1, 1)))
    assert ends.converged.all()
    np.testing.assert_allclose(ends.state, 0.0, atol=1e-9)


def test_what_becomes_of_an_example_does_not_depend_on_the_others(x64):
    starts = jnp.asarray([[0.5, 2.0 / 30], [0.4, 0.0], [0.0, 5.0]])
    flow = BacktrackingFlow(500, 0.5, 1e-6)
    together = flow(WELL, starts)
    assert together.converged.all()
    assert together.steps[0] == 0
    assert len(set(together.steps.tolist())) == 3
    for i in range(3):
        alone = flow(WELL, starts[i : i + 1])
        np.testing.assert_array_equal(alone.state[0], together.state[i])
        assert alone.steps[0] == together.steps[i]


def test_out_of_steps_it_says_so(x64):
    ends = BacktrackingFlow(5, 0.5, 1e-6)(WELL, jnp.asarray([REST, [0.0, 0.0]]))
    assert ends.converged.tolist() == [True, False]
    assert ends.steps.tolist() == [0, 5]
    np.testing.assert_allclose(ends.residual, jnp.max(jnp.abs(WELL.velocity(ends.state)), axis=1))


def test_derivatives_are_those_of_the_state_at_rest(x64, key):
    chain = mlp(4, 5, 6, activation="tanh", output="hard-sigmoid", key=key)
    x = jax.random.normal(key, (3, 4))

    @eqx.filter_jit
    def slope(relaxation):
        return jax.grad(lambda x: jnp.sum(Hopfield(chain, relaxation=relaxation)(x) ** 2))(x)

    np.testing.assert_allclose(slope(BacktrackingFlow(800, 4.0)), slope(GradientFlow(600)), atol=1e-8)


def test_complex_states_are_refused():
    with pytest.raises(TypeError, match="GradientFlow"):
        BacktrackingFlow()(WELL, jnp.ones((1, 2), complex))


@pytest.mark.parametrize("bad", [{"steps": 0}, {"step_size": 0.0}, {"step_size": float("nan")}, {"tolerance": -1.0}])
def test_numbers_out_of_range_are_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        BacktrackingFlow(**bad)
