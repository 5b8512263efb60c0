import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from anyprop.contract import Batch, exact_gradient
from anyprop.energies import BacktrackingFlow, Feedforward
from anyprop.losses import SquaredError
from anyprop.nets import Activate, Chain, Dense, Flatten, Norm, Residual, convnet, mlp
from anyprop.rules.equilibrium import EquilibriumPropagation


def images(key):
    return convnet(input_shape=(4, 4, 1), channels=(2,), classes=3, activation="tanh", key=key)


def residual(key):
    first, inner, last = jax.random.split(key, 3)
    block = Residual([Dense(5, 5, key=inner), Norm(5)], activation="tanh")
    return Chain([Dense(4, 5, activation="tanh", key=first), block, Dense(5, 3, activation="sigmoid", key=last)])


def perturbed(model, x, size=0.3):
    state = model.start(x)
    keys = jax.random.split(jax.random.key(1), len(state))
    return [s + size * jax.random.normal(k, s.shape) for s, k in zip(state, keys, strict=True)]


def test_the_energy_is_that_of_its_equation(x64, key):
    chain = mlp(4, 5, 6, 3, activation="tanh", output="sigmoid", key=key)
    model = Feedforward(chain, variances=(0.5, 2.0, 3.0))
    x = jax.random.normal(key, (7, 4))
    s = eqx.filter_jit(perturbed)(model, x)
    (w1, b1), (w2, b2), (w3, b3) = ((np.asarray(site.weight), np.asarray(site.bias)) for site in chain.stages)
    s1, s2, s3 = (np.asarray(k) for k in s)
    c3 = 1 / (1 + np.exp(-np.tanh(s2) @ w3 - b3))
    errors = [s1 - np.asarray(x) @ w1 - b1, s2 - np.tanh(s1) @ w2 - b2, s3 - c3]
    expected = sum(np.sum(e**2, 1) / (2 * sigma) for e, sigma in zip(errors, (0.5, 2.0, 3.0), strict=True))
    energy = eqx.filter_jit(model.energy)
    np.testing.assert_allclose(energy(s, x), expected, rtol=1e-12)
    np.testing.assert_allclose(energy(s[:-1], x), expected - np.sum(errors[-1] ** 2, 1) / 6, rtol=1e-12)
    up, down = -errors[1] / 2, (errors[2] * c3 * (1 - c3)) @ w3.T / 3
    velocity = eqx.filter_jit(lambda s: model.dynamics(x).velocity(s)[1])(s)
    np.testing.assert_allclose(velocity, up + (1 - np.tanh(s2) ** 2) * down, atol=1e-12)


@pytest.mark.parametrize("build", [images, residual])
def test_it_rests_at_the_chains_forward_pass_without_a_step(x64, key, build):
    chain = build(key)
    model = Feedforward(chain)
    x = jax.random.normal(key, (2, *chain.input_shape))

    @jax.jit
    def rest(x):
        rest = model.settle(x)
        elsewhere = model.energy(perturbed(model, x), x)
        return rest, model(x), chain(x), model.energy(rest.state, x), model.dynamics(x).velocity(rest.state), elsewhere

    rest, answer, output, energy, velocity, elsewhere = rest(x)
    np.testing.assert_allclose(answer, output, rtol=1e-12)
    np.testing.assert_allclose(model.output(rest.state), output, rtol=1e-12)
    assert model.output_shape == chain.output_shape == answer.shape[1:]
    assert rest.steps.tolist() == [0, 0]
    assert rest.converged.all()
    np.testing.assert_allclose(energy, 0.0, atol=1e-24)
    for slope in velocity:
        np.testing.assert_allclose(slope, 0.0, atol=1e-12)
    assert np.all(elsewhere > 0)


def test_equilibrium_propagation_on_it_tends_to_backprop(x64, key):
    chain = mlp(4, 5, 6, 3, activation="tanh", key=key)
    batch = Batch(jax.random.normal(key, (6, 4)), jnp.arange(6) % 3)
    rule = EquilibriumPropagation(1e-4, nudged_steps=400, step_size=0.2)
    learner = rule.init(Feedforward(chain), key=key)
    credit = eqx.filter_jit(rule.credit)(learner, batch, key=key)
    assert credit.metrics["free_steps"] == 0
    gradient = eqx.filter_jit(exact_gradient)(SquaredError(), chain, batch)[2]
    for got, expected in zip(jax.tree.leaves(credit.grads), jax.tree.leaves(gradient), strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-5 * jnp.abs(expected).max())


def test_variances_are_one_for_all_or_one_for_each_and_above_zero(key):
    chain = images(key)
    assert Feedforward(chain, variances=2.0).sigma == (2.0, 2.0)
    with pytest.raises(ValueError, match="3 numbers for 2 layers"):
        Feedforward(chain, variances=(1.0, 2.0, 3.0))
    with pytest.raises(ValueError, match="variances"):
        Feedforward(chain, variances=(1.0, 0.0))


def test_what_no_error_passes_is_refused(key):
    with pytest.raises(TypeError, match="'tanh'"):
        Feedforward(mlp(4, 5, 3, activation="sign", key=key))
    with pytest.raises(TypeError, match="'tanh'"):
        Feedforward(Chain([Dense(4, 5, key=key), Activate("step"), Dense(5, 3, key=key)]))
    with pytest.raises(TypeError, match="at least one dense"):
        Feedforward(Chain([Flatten()], input_shape=(2, 2)))
    assert Feedforward(mlp(4, 3, key=key)).relaxation == BacktrackingFlow(20, 0.1)
