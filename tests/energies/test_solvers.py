import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from anyprop.energies import Dynamics, Flow, GradientFlow, Hopfield, Root, Settled
from anyprop.energies import _solvers as solvers
from anyprop.nets import mlp

SOLVERS = {"Root": Root, "Flow": Flow}


@pytest.mark.parametrize("name", SOLVERS)
def test_the_rest_and_its_derivatives_are_those_of_a_long_gradient_flow(x64, key, name):
    """One layer of smooth units and one of bounded ones, some of which rest at an end of their range."""
    chain = jax.tree.map(lambda w: 0.8 * w, mlp(4, 5, 6, activation="tanh", output="hard-sigmoid", key=key))
    x = jax.random.normal(key, (3, 4))

    @eqx.filter_jit
    def rest(x, relaxation):
        def cost(x):
            ends = Hopfield(chain).settle(x, relaxation=relaxation)
            return jnp.sum(ends.state[-1] ** 2), ends

        (_, ends), slope = jax.value_and_grad(cost, has_aux=True)(x)
        return ends, slope

    found, slope = rest(x, SOLVERS[name](tolerance=1e-9))
    expected, expected_slope = rest(x, GradientFlow(600))
    assert found.converged.all()
    assert np.all(found.residual <= 1e-9)
    assert 1 <= found.steps[0] < (20 if name == "Root" else 1000)
    assert np.any(expected.state[-1] == 0.0)
    for one, other in zip(found.state, expected.state, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-8)
    np.testing.assert_allclose(slope, expected_slope, atol=1e-8)


@pytest.mark.parametrize("name", SOLVERS)
def test_out_of_steps_each_example_says_how_it_stands(x64, name):
    wells = Dynamics(lambda s: -(s**3), lambda s: s)
    first = {"first": GradientFlow(1, 1e-9)} if name == "Root" else {}
    ends = SOLVERS[name](2, 1e-6, **first)(wells, jnp.asarray([[1.0, 0.5], [0.0, 0.0]]))
    assert isinstance(ends, Settled)
    assert ends.converged.tolist() == [False, True]
    assert ends.residual[1] == 0.0
    np.testing.assert_allclose(ends.residual, np.max(np.abs(ends.state) ** 3, axis=1), rtol=1e-12)
    assert ends.steps.tolist() == [2, 2]


def test_newtons_method_is_exact_in_one_step_on_a_quadratic_energy(x64, key):
    a = jax.random.normal(key, (4, 4))
    matrix, right = a @ a.T + jnp.eye(4), jnp.arange(4.0)
    linear = Dynamics(lambda s: right - s @ matrix, lambda s: s)
    ends = Root(1, 1e-9, first=GradientFlow(1, 0.01))(linear, jnp.zeros((2, 4)))
    np.testing.assert_allclose(ends.state, np.tile(np.linalg.solve(matrix, right), (2, 1)), atol=1e-9)


def test_it_says_how_to_get_a_library_that_is_missing(monkeypatch):
    def missing(name):
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(solvers.importlib, "import_module", missing)
    for relaxation, name in ((Root(), "optimistix"), (Flow(), "diffrax")):
        with pytest.raises(ImportError, match=rf"{name}.*anyprop\[solvers\]"):
            relaxation(Dynamics(jnp.negative, lambda s: s), jnp.ones((1, 2)))


@pytest.mark.parametrize("kind", [Root, Flow])
@pytest.mark.parametrize("bad", [{"steps": 0}, {"tolerance": 0.0}, {"tolerance": -1.0}])
def test_numbers_out_of_range_are_refused(kind, bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        kind(**bad)
