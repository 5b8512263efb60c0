import re

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from anyprop.energies import (
    BacktrackingFlow,
    Convergent,
    Dynamics,
    FixedPoint,
    GradientFlow,
    Hopfield,
    Initialized,
    Sweeps,
)
from anyprop.losses import SquaredError
from anyprop.nets import Chain, Conv, Dense, Flatten, Pool, mlp


def network(key, *sizes, units="hard-sigmoid", **settings):
    return Hopfield(mlp(*sizes, activation=units, output=units, key=key), relaxation=GradientFlow(**settings))


def well(project=lambda state: jnp.clip(state, 0.0, 1.0)):
    """A quadratic well of curvature 1, its minimum at (0.5, 2) for every example; states in [0, 1]."""
    return Dynamics(lambda state: jnp.asarray([0.5, 2.0]) - state, project)


def test_the_energy_falls_at_every_step(x64, key):
    model = network(key, 4, 7, 6, 3, steps=1, step_size=0.3)
    x = jax.random.uniform(key, (5, 4))

    def step(state, _):
        return model.settle(x, state).state, model.energy(state, x)

    _, energies = jax.lax.scan(step, model.start(x), length=30)
    assert np.all(np.diff(energies, axis=0) <= 0)
    assert np.all(energies[-1] < energies[0] - 0.01)


def test_steps_are_those_of_projected_gradient_flow(x64):
    ends = GradientFlow(steps=4, step_size=0.25)(well(), jnp.zeros((1, 2)))
    np.testing.assert_allclose(ends.state, [[0.5 * (1 - 0.75**4), 1.0]], rtol=1e-12)
    # In the fourth step the first unit is the one that moves: the second is held back by its range, and so at rest.
    np.testing.assert_allclose(ends.residual, [0.5 * 0.75**3], rtol=1e-12)
    assert ends.steps.tolist() == [4]
    assert not ends.converged[0]


@pytest.mark.parametrize("tolerance", [0.0, 1e-9])
def test_it_says_how_fast_each_layer_moved_last(x64, key, tolerance):
    model = network(key, 4, 7, 6, 3, steps=4, step_size=0.3, tolerance=tolerance)
    x = jax.random.uniform(key, (5, 4))
    ends = model.settle(x)
    before = network(key, 4, 7, 6, 3, steps=3, step_size=0.3).settle(x)
    expected = [np.abs(now - then).max(1) / 0.3 for now, then in zip(ends.state, before.state, strict=True)]
    np.testing.assert_allclose(ends.speeds, expected, rtol=1e-9)
    np.testing.assert_array_equal(ends.residual, np.max(ends.speeds, axis=0))


def test_to_a_tolerance_each_example_stops_by_itself_and_says_when(x64):
    flow = GradientFlow(steps=100, step_size=0.5, tolerance=1e-6)
    starts = jnp.asarray([[0.5, 1.0], [0.4, 0.0], [0.0, 0.0]])
    together = flow(well(), starts)
    assert together.converged.all()
    assert np.all(together.residual <= 1e-6)
    # The speed before step t is 2^-(t-1) times that at the start, 0.1 and 0.5.
    expected = [1, *(1 + int(np.ceil(np.log2(speed / 1e-6))) for speed in (0.1, 0.5))]
    assert together.steps.tolist() == expected
    for i in range(3):
        alone = flow(well(), starts[i : i + 1])
        np.testing.assert_array_equal(alone.state[0], together.state[i])
        assert alone.steps[0] == together.steps[i]


def test_out_of_steps_it_says_so(x64):
    ends = GradientFlow(steps=5, tolerance=1e-6)(well(), jnp.asarray([[0.5, 1.0], [0.0, 0.0]]))
    assert ends.converged.tolist() == [True, False]
    assert ends.steps.tolist() == [1, 5]


@pytest.mark.parametrize("way", [GradientFlow, BacktrackingFlow])
def test_steps_are_counted_beyond_what_half_precision_tells_apart(way):
    """In bfloat16 256 + 1 is 256, so a count in the state's own numbers never came to its end."""
    step_size = 0.5 if way is GradientFlow else 2.0**-100
    ends = way(300, step_size, 1e-3)(Dynamics(lambda s: -4 * s, lambda s: s), jnp.ones((2, 3), jnp.bfloat16))
    assert ends.steps.tolist() == [300, 300]
    assert not ends.converged.any()


def test_a_diverging_state_never_counts_as_settled(x64):
    ends = GradientFlow(steps=50, step_size=1e300, tolerance=1.0)(well(lambda s: s), jnp.zeros((1, 2)))
    assert not ends.converged[0]


def test_a_tolerance_never_takes_more_steps_and_a_warm_start_takes_fewer(x64, key):
    model = network(key, 4, 7, 3, steps=80, tolerance=1e-5)
    x = jax.random.uniform(key, (5, 4))
    cold = model.settle(x)
    warm = model.settle(x + 0.001, cold.state)
    assert cold.converged.all()
    assert np.all(cold.steps < 80)
    assert np.all(warm.steps < cold.steps)


@pytest.mark.parametrize("tolerance", [0.0, 1e-12])
def test_derivatives_are_those_of_the_state_at_rest(x64, key, tolerance):
    model = network(key, 4, 7, 3, units="tanh", steps=400, tolerance=tolerance)
    x, direction = jax.random.normal(key, (2, 3, 4))

    def answer(x):
        return jnp.sum(model(x) ** 2)

    pulled = jnp.vdot(jax.grad(answer)(x), direction)
    _, pushed = jax.jvp(answer, (x,), (direction,))
    measured = (answer(x + 1e-5 * direction) - answer(x - 1e-5 * direction)) / 2e-5
    np.testing.assert_allclose(pulled, measured, rtol=1e-7)
    np.testing.assert_allclose(pushed, measured, rtol=1e-7)


def convolutional(key):
    """A Hopfield network with two convolutions, the second of more channels than a banded product takes."""
    first, second, last = jax.random.split(key, 3)
    units = {"activation": "hard-sigmoid"}
    stages = [Conv(1, 32, 3, key=first, **units), Conv(32, 8, 3, key=second, **units), Flatten()]
    return Hopfield(
        Chain([*stages, Dense(200, 2, key=last, **units)], input_shape=(5, 5, 1)), relaxation=GradientFlow(20)
    )


# In a step: products up to each layer but the first, and down from it; a convolution makes one for each row of
# its kernel.
@pytest.mark.parametrize(
    ("build", "shape", "products", "inside_loop"),
    [
        (lambda key: network(key, 37, 11, 3, steps=20), (37,), 3, 2),
        (convolutional, (5, 5, 1), 1 + 2 * 3 + 2, 2 * 3 + 2),
    ],
    ids=["dense", "convolutional"],
)
def test_the_input_is_multiplied_once_a_phase_and_not_once_a_step(build, shape, products, inside_loop, key):
    model = build(key)
    arrays, static = eqx.partition(model, eqx.is_array)
    settle = jax.jit(lambda arrays, x: eqx.combine(arrays, static).settle(x).state)
    text = settle.lower(arrays, jnp.ones((5, *shape))).compile().as_text()
    # Each computation of the program: its name, and what stands in its braces.
    parts = dict(re.findall(r"^(?:ENTRY )?%([\w.-]+) .*?\{\n(.*?)^\}", text, flags=re.MULTILINE | re.DOTALL))
    bodies = re.findall(r"while\(.*?body=%([\w.-]+)", text)

    def inside(name):
        return parts[name] + "".join(inside(callee) for callee in re.findall(r"calls=%([\w.-]+)", parts[name]))

    assert len(bodies) == 1
    assert inside(bodies[0]).count(" dot(") == inside_loop
    assert text.count(" dot(") == products
    assert "convolution(" not in text


@pytest.mark.parametrize("bad", [{"steps": 0}, {"step_size": 0.0}, {"step_size": float("nan")}, {"tolerance": -1.0}])
def test_numbers_out_of_range_are_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        GradientFlow(**bad)


@pytest.mark.parametrize("units", ["hard-sigmoid", "tanh", "sigmoid", "steep-sigmoid", "half-hard-sigmoid"])
def test_all_ways_of_settling_end_at_the_same_rest_where_the_energy_is_stationary(x64, key, units):
    chain = mlp(4, 7, 6, 3, activation=units, output=units, key=key)
    x = jax.random.uniform(key, (5, 4))
    flow, jumps, sweeps = (
        Convergent(chain, relaxation=way).settle(x) for way in (GradientFlow(2000), FixedPoint(2000), Sweeps(500))
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-9), jumps.state, flow.state)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-9), sweeps.state, flow.state)
    assert jumps.residual.max() < 1e-9
    slopes = jax.grad(lambda state: jnp.sum(Convergent(chain).energy(state, x)))(flow.state)
    for s, slope in zip(flow.state, slopes, strict=True):
        inside = (s > -1 if units == "tanh" else s > 1e-9) & (s < 1 - 1e-9)
        np.testing.assert_allclose(jnp.where(inside, slope, 0.0), 0.0, atol=1e-7)


def test_a_convergent_network_of_hard_sigmoids_rests_where_the_hopfield_network_does(x64, key):
    chain = mlp(4, 7, 3, activation="hard-sigmoid", output="hard-sigmoid", key=key)
    x = jax.random.uniform(key, (5, 4))
    np.testing.assert_allclose(Convergent(chain)(x), Hopfield(chain, relaxation=GradientFlow(400))(x), atol=1e-9)
    np.testing.assert_allclose(Hopfield(chain, relaxation=Sweeps(60))(x), Convergent(chain)(x), atol=1e-9)


def pooled(kind, key):
    """A convolution whose rates are pooled, with weights strong enough for the pooling to matter."""
    convolution, dense = (
        Conv(1, 3, 3, activation="hard-sigmoid", key=key),
        Dense(12, 3, activation="hard-sigmoid", key=key),
    )
    chain = Chain([convolution, Pool(kind, 2), Flatten(), dense], input_shape=(4, 4, 1))
    return jax.tree.map(lambda w: 3 * w, chain)


@pytest.mark.parametrize("system", ["smooth", "half-hard", "mean"])
def test_no_sweep_raises_the_energy(x64, key, system):
    if system == "mean":
        model = Hopfield(pooled("mean", key), relaxation=Sweeps(1))
    else:
        units, view = ("sigmoid", Convergent) if system == "smooth" else ("half-hard-sigmoid", Hopfield)
        model = view(mlp(4, 7, 6, 3, activation=units, output=units, key=key), relaxation=Sweeps(1))
    x = jax.random.uniform(key, (5, *model.input_shape))

    def sweep(state, _):
        return model.settle(x, state).state, model.energy(state, x)

    _, energies = jax.lax.scan(sweep, [s + 0.9 for s in model.start(x)], length=8)
    assert np.all(np.diff(energies, axis=0) <= 1e-12)
    assert np.all(energies[-1] < energies[0] - 0.01)


@pytest.mark.parametrize("kind", ["max", "softmax"])
def test_sweeps_through_a_maximum_may_not_come_to_rest_and_say_so(x64, key, kind):
    ends = Hopfield(pooled(kind, key)).settle(jax.random.uniform(key, (20, 4, 4, 1)), relaxation=Sweeps(200, 1e-6))
    assert not ends.converged.all()
    assert ends.residual.max() > 0.1


@pytest.mark.parametrize("beta", [-2.0, 0.5, 2.0])
def test_no_sweep_raises_the_energy_of_a_nudged_and_tethered_hopfield_network(x64, key, beta):
    chain = mlp(4, 7, 6, 3, activation="hard-sigmoid", output="hard-sigmoid", key=key)
    model = Initialized(Hopfield(chain), tether=1.5)
    x, y = jax.random.uniform(key, (5, 4)), jax.random.uniform(jax.random.key(1), (5, 3))

    def nudge(state):
        return beta * SquaredError()(model.output(state), y)

    def sweep(state, _):
        return model.settle(x, state, nudge=nudge, relaxation=Sweeps(1)).state, model.energy(state, x) + nudge(state)

    _, energies = jax.lax.scan(sweep, [jnp.full_like(s, 0.9) for s in model.start(x)], length=8)
    assert np.all(np.diff(energies, axis=0) <= 1e-12)
    assert np.all(energies[-1] < energies[0] - 0.01)
    if beta > 0:
        ends = [model.settle(x, nudge=nudge, relaxation=way).state for way in (Sweeps(60), GradientFlow(2000, 0.2))]
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-9), *ends)


def test_units_without_a_closed_form_are_refused_by_name(key):
    model = network(key, 4, 7, 3, units="tanh")
    with pytest.raises(TypeError, match="read the chain as"):
        model.settle(jnp.ones((1, 4)), relaxation=FixedPoint())
