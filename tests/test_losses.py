import jax
import jax.numpy as jnp
import numpy as np
import pytest

from anyprop import losses


@pytest.mark.parametrize("name", sorted(losses.LOSSES))
@pytest.mark.parametrize("labels", [True, False])
def test_error_is_the_derivative(name, labels, x64):
    key = jax.random.key(0)
    loss = losses.as_loss(name)
    output = jax.random.normal(key, (4, 3))
    y = jnp.array([0, 2, 1, 1]) if labels else jax.nn.softmax(jax.random.normal(jax.random.key(1), (4, 3)))
    gradient = jax.grad(lambda o: jnp.sum(loss(o, y)))(output)
    np.testing.assert_allclose(loss.error(output, y), gradient, rtol=1e-12)


def test_values_by_hand():
    output, y = jnp.array([[0.0, 2.0]]), jnp.array([1])
    np.testing.assert_allclose(losses.SquaredError()(output, y), [0.5 * (0 + 1)])
    np.testing.assert_allclose(losses.CrossEntropy()(output, y), [np.log(1 + np.exp(-2))], rtol=1e-6)
    np.testing.assert_allclose(losses.BinaryCrossEntropy()(output, y), [np.log(2) + np.log(1 + np.exp(-2))], rtol=1e-6)


def test_wrong_counts_labels_and_targets():
    output = jnp.array([[0.0, 2.0], [3.0, 1.0]])
    np.testing.assert_array_equal(losses.wrong(output, jnp.array([1, 1])), [False, True])
    np.testing.assert_array_equal(losses.wrong(output, jnp.array([[0.0, 1.0], [0.0, 1.0]])), [False, True])


@pytest.mark.parametrize(
    ("y", "match"),
    [
        (np.array([0, 10]), "labels from 0 to 10"),
        (np.array([-1, 3]), "labels must lie"),
        (np.zeros((2, 4), np.float32), "width 4"),
        (np.array(["a", "b"]), "integer labels or float targets"),
    ],
)
def test_targets_that_do_not_fit_are_refused(y, match):
    with pytest.raises(ValueError, match=match):
        losses.CrossEntropy().check(y, 10)


def test_unknown_loss_names_the_nearest():
    with pytest.raises(ValueError, match="squared-error"):
        losses.as_loss("square-error")
