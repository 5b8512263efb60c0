import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from anyprop.energies import BacktrackingFlow, Convergent, GradientFlow, Hopfield, Langevin, Noisy, continuation
from anyprop.energies._relaxation import Dynamics
from anyprop.losses import CrossEntropy
from anyprop.nets import Chain, Conv, Dense, Flatten, Pool, mlp

Z = np.asarray([[0.3 + 0.2j, -0.1 + 0.4j, 0.5 - 0.1j]])
A, B = np.asarray([[0.2, -1.0], [0.7, 0.3], [0.4, 0.9]]), np.asarray([0.1, -0.4])


@pytest.mark.parametrize(
    ("f", "by_hand"),
    [
        (jax.nn.sigmoid, lambda z: 1 / (1 + np.exp(-z))),
        (lambda x: jnp.tanh(x @ A + B) ** 2, lambda z: np.tanh(z @ A + B) ** 2),
        (jax.grad(lambda x: jnp.sum(jnp.sinh(x @ A))), lambda z: np.cosh(z @ A) @ A.T),
        (jax.nn.softmax, lambda z: np.exp(z) / np.exp(z).sum(1, keepdims=True)),
        (jax.grad(lambda x: jnp.sum(CrossEntropy()(x, jnp.asarray([1])))), None),
        (jax.jit(lambda x: jnp.concatenate([x, x[:, :1] * jnp.ones(1)], 1).T), lambda z: np.c_[z, z[:, :1]].T),
    ],
)
def test_a_continued_function_is_its_own_formula_at_complex_numbers(x64, f, by_hand):
    expected = (np.exp(Z) / np.exp(Z).sum(1, keepdims=True) - [[0, 1, 0]]) if by_hand is None else by_hand(Z)
    np.testing.assert_allclose(continuation(f)(jnp.asarray(Z)), expected, rtol=1e-12)
    np.testing.assert_allclose(continuation(f)(jnp.asarray(Z.real)), f(jnp.asarray(Z.real)), rtol=1e-12)


def test_trees_closures_and_derivatives_with_respect_to_what_is_closed_over(x64):
    @jax.jit
    def slope(w):
        def real_part(w):
            return jnp.real(continuation(lambda p: {"out": jnp.exp(w * p["a"]) + p["b"]})({"a": 2j, "b": 1.0})["out"])

        return jax.value_and_grad(real_part)(w)

    np.testing.assert_allclose(slope(0.3), [np.cos(0.6) + 1, -2 * np.sin(0.6)], rtol=1e-12)


@pytest.mark.parametrize("pool", ["mean", "softmax"])
def test_a_convolutional_network_moves_in_the_complex_plane_as_its_taylor_series_says(x64, key, pool):
    stages = [Conv(1, 2, 3, activation="tanh", key=key), Pool(pool, 2), Flatten(), Dense(8, 3, key=key)]
    model = Hopfield(Chain(stages, input_shape=(4, 4, 1)))
    x = jax.random.normal(key, (2, 4, 4, 1))
    state = jax.tree.map(lambda s: s + 0.1, model.start(x))
    velocity, up = model.dynamics(x).velocity, jax.tree.map(jnp.ones_like, state)

    @jax.jit
    def both():
        moved = continuation(velocity)(jax.tree.map(lambda s, u: s + 1e-5j * u, state, up))
        return jax.tree.map(jnp.imag, moved), jax.jvp(velocity, (state,), (up,))[1]

    for imaginary, derivative in zip(*both(), strict=True):
        np.testing.assert_allclose(imaginary / 1e-5, derivative, rtol=1e-8)


@pytest.mark.parametrize(
    ("f", "operation"),
    [
        (jax.nn.relu, "max"),
        (jnp.abs, "abs"),
        (lambda x: jnp.where(x > 0, x, x**2), "gt"),
        (lambda x: jnp.max(x, axis=1) * 2.0, "reduce_max"),
        (lambda x: {"a": x, "b": jnp.sign(x)}, "sign"),
    ],
)
def test_what_is_not_analytic_is_refused_by_name(f, operation):
    with pytest.raises(TypeError, match=f"^{operation} has no analytic"):
        continuation(f)(jnp.asarray(Z))


def test_a_value_that_is_not_used_is_no_obstacle(x64):
    continued = continuation(lambda x: (jnp.abs(x), x**2)[1])
    np.testing.assert_allclose(continued(jnp.asarray(Z)), Z**2, rtol=1e-12)
    chain = mlp(3, 4, 2, activation="sigmoid", output="sigmoid", key=jax.random.key(0))
    # The energy of sigmoids has logarithms with a case of their own at 0; the dynamics have none.
    state = [jnp.full((1, n), 0.5 + 0.1j) for n in (4, 2)]
    answer = Convergent(chain).dynamics(jnp.ones((1, 3))).answer
    assert all(jnp.all(jnp.isfinite(s)) for s in continuation(answer)(state))


WELL = Dynamics(lambda s: -s, lambda s: s)


@pytest.mark.parametrize("dtype", [float, complex])
def test_noise_of_every_step_adds_up_to_its_stationary_variance(x64, key, dtype):
    relaxation = Noisy(GradientFlow(60, 0.5), 0.1)
    ends = jax.jit(lambda key: relaxation(WELL, jnp.zeros((4000, 2), dtype), key=key))(key)
    assert ends.state.dtype == dtype
    np.testing.assert_allclose(jnp.mean(jnp.abs(ends.state) ** 2), 0.01 / (1 - 0.5**2), rtol=0.05)
    assert set(ends.steps.tolist()) == {60}
    assert not ends.converged.any()


def test_noise_keeps_to_the_range_and_needs_a_key(key):
    noisy = Noisy(GradientFlow(5), 10.0)
    bounded = WELL._replace(project=lambda s: jnp.clip(s, 0.0, 1.0))
    assert jnp.all(jnp.abs(noisy(bounded, jnp.zeros((9, 2)), key=key).state - 0.5) <= 0.5)
    with pytest.raises(ValueError, match="key is missing"):
        noisy(WELL, jnp.zeros((1, 2)))
    with pytest.raises(ValueError, match="noise"):
        Noisy(GradientFlow(5), 0.0)


@pytest.mark.parametrize("relaxation", [BacktrackingFlow, Langevin, lambda: Noisy(GradientFlow(5), 0.1)])
def test_noise_needs_a_step_to_follow(relaxation, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # users run without the type checker
    with pytest.raises(TypeError, match=r"repeats a step.*; pass GradientFlow"):
        Noisy(relaxation(), 0.1)
