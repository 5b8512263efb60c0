import jax
import jax.numpy as jnp
import numpy as np
import pytest

from anyprop.energies import Dynamics, GradientFlow, Hopfield, Langevin
from anyprop.nets import mlp


def free(state):
    return state


def test_in_quadratic_wells_the_variance_is_that_of_the_discretised_dynamics(x64, key):
    curvature, centre = jnp.asarray([0.5, 1.0, 2.0]), jnp.asarray([1.0, -1.0, 0.0])
    wells = Dynamics(lambda s: -curvature * (s - centre), free)
    eps, temperature, systems = 0.4, 0.3, 20_000
    expected = temperature / (curvature * (1 - eps * curvature / 2))
    ends = Langevin(80, eps, temperature)(wells, jnp.tile(centre, (systems, 1)), key=key).state
    # The standard error of a variance is sqrt(2 / n) of it; four of them.
    np.testing.assert_allclose(ends.var(axis=0), expected, rtol=4 * np.sqrt(2 / systems))
    np.testing.assert_array_less(np.abs(ends.mean(axis=0) - centre), 4 * np.sqrt(expected / systems))
    assert np.all(np.abs(temperature / curvature / expected - 1) > 8 * np.sqrt(2 / systems))  # the test sees the bias


def test_samples_of_one_system_over_time_are_those_of_many(x64, key):
    well = Dynamics(lambda s: -s, free)
    samples = Langevin(10, 0.5, 2.0).sample(well, jnp.zeros((8, 1)), 2_000, key=key)
    assert samples.shape == (2_000, 8, 1)
    # Over ten steps the memory of a state fades to (1 - eps)^10, a thousandth: all samples count.
    np.testing.assert_allclose(samples.var(), 2.0 / 0.75, rtol=4 * np.sqrt(2 / samples.size))
    later = np.mean(samples[1:] * samples[:-1]) / samples.var()
    assert abs(later) < 4 / np.sqrt(samples.size)


def test_units_of_bounded_range_stay_there_and_fill_it(x64, key):
    """In [0, 1] without a force the density is uniform; a projected step puts some of it onto the ends."""
    box = Dynamics(jnp.zeros_like, lambda s: jnp.clip(s, 0.0, 1.0))
    end = Langevin(400, 0.001, 1.0)(box, jnp.full((4_000, 1), 0.5), key=key).state
    assert end.min() >= 0.0
    assert end.max() <= 1.0
    inside = end[(end > 0.1) & (end < 0.9)]
    counts, _ = np.histogram(inside, bins=8, range=(0.1, 0.9))
    np.testing.assert_array_less(np.abs(counts - inside.size / 8), 4 * np.sqrt(inside.size / 8))


def test_without_heat_it_is_gradient_flow(x64, key):
    model = Hopfield(mlp(4, 5, 3, activation="hard-sigmoid", output="hard-sigmoid", key=key))
    x = jax.random.uniform(key, (6, 4))
    cold = model.settle(x, relaxation=Langevin(20, 0.3, 0.0), key=key)
    still = model.settle(x, relaxation=GradientFlow(20, 0.3))
    for one, other in zip(cold.state, still.state, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-15)
    furthest = np.max(np.abs(np.concatenate(cold.state, axis=1)), axis=1)  # all units start at zero
    np.testing.assert_allclose(cold.residual, furthest / (20 * 0.3), rtol=1e-12)
    assert cold.steps.tolist() == [20] * 6
    assert not cold.converged.any()


def test_noise_is_independent_over_units_arrays_examples_and_steps(x64, key):
    state = [jnp.zeros((3, 4)), jnp.zeros((3, 4))]
    still = Dynamics(lambda s: jax.tree.map(jnp.zeros_like, s), free)
    steps = np.diff(Langevin(1, 0.5, 1.0).sample(still, state, 50, key=key), axis=1).ravel()
    assert len(np.unique(steps)) == steps.size
    np.testing.assert_allclose(steps.std(), 1.0, rtol=4 / np.sqrt(2 * steps.size))


def test_noise_needs_a_key(key):
    model = Hopfield(mlp(4, 3, output="hard-sigmoid", key=key), relaxation=Langevin())
    with pytest.raises(ValueError, match="key is missing"):
        model(jnp.ones((2, 4)))
    with pytest.raises(ValueError, match="key is missing"):
        Langevin().sample(model.dynamics(jnp.ones((2, 4))), model.start(jnp.ones((2, 4))), 3)


@pytest.mark.parametrize("bad", [{"steps": 0}, {"step_size": 0.0}, {"temperature": -1.0}])
def test_numbers_out_of_range_are_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        Langevin(**bad)
