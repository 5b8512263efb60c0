import equinox as eqx
import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

import anyprop
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
    ("name", "outputs"), [("hinge", [0.4, 0.6]), ("squared-error", [0.4, 0.6]), ("binary-cross-entropy", [-0.1, 0.1])]
)
def test_one_output_tells_label_1_from_label_0(name, outputs):
    loss, output = losses.as_loss(name), jnp.array(outputs)[:, None]
    for y in (jnp.array([0, 1]), jnp.array([[0.0], [1.0]])):
        np.testing.assert_array_equal(losses.wrong(output, y, loss.threshold), [False, False])
        np.testing.assert_array_equal(losses.wrong(output, 1 - y, loss.threshold), [True, True])
        assert jnp.all(loss(output, y) < loss(output, 1 - y))
    loss.check(np.array([0, 1]), 1)
    with pytest.raises(ValueError, match=r"labels must lie in 0 \.\. 1"):
        loss.check(np.array([0, 2]), 1)


@pytest.mark.parametrize(
    ("y", "first"),
    [(np.array([0, 1]), "binary-cross-entropy"), (np.array([[0.3], [2.0]], np.float32), "squared-error")],
)
def test_the_softmax_of_one_output_is_refused(y, first):
    with pytest.raises(ValueError, match=f"pass loss='{first}'"):
        losses.CrossEntropy().check(y, 1)


REGRESSION = 3 * np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
SHARES = np.exp(REGRESSION) / np.exp(REGRESSION).sum(1, keepdims=True)


@pytest.mark.parametrize(
    ("name", "y", "match"),
    [
        ("binary-cross-entropy", REGRESSION, r"^y has targets from -.* to .*, .* pass loss='squared-error'"),
        ("binary-cross-entropy", 255 * SHARES, "^y has targets from .* scale them to 0 .. 1"),
        ("binary-cross-entropy", np.where(SHARES > 0.5, np.nan, SHARES), "^y has targets"),
        ("cross-entropy", REGRESSION, r"^y has targets from -.* to .*, .* pass loss='squared-error'"),
        ("cross-entropy", REGRESSION > 0, "^y must be integer labels"),
        (
            "cross-entropy",
            (REGRESSION > 0).astype(np.float32),
            r"^y has a row of targets that sums to .* rows that sum to 1",
        ),
        ("cross-entropy", 0.9 * SHARES, r"^y has a row of targets that sums to 0\.9, .* rows that sum to 1"),
    ],
)
def test_targets_that_are_no_probabilities_are_refused(name, y, match):
    with pytest.raises(ValueError, match=match):
        losses.as_loss(name).check(y, 3)
    losses.SquaredError().check(np.asarray(y, np.float32), 3)


@pytest.mark.parametrize("name", ["binary-cross-entropy", "cross-entropy"])
@pytest.mark.parametrize("y", [SHARES, SHARES.astype(np.float16), np.eye(3), SHARES[:0], SHARES[:, None]])
def test_targets_that_are_probabilities_are_taken(name, y):
    losses.as_loss(name).check(y, 3)


@pytest.mark.parametrize("name", ["binary-cross-entropy", "cross-entropy"])
def test_fit_refuses_targets_that_are_no_probabilities(name, key, monkeypatch):
    data = anyprop.data.load({"train": (REGRESSION, SHARES), "test": (REGRESSION, REGRESSION)})
    monkeypatch.setattr(anyprop.training._fit, "Program", None)  # what compiles
    with pytest.raises(ValueError, match=r"^y has targets"):
        anyprop.fit(anyprop.Backprop(loss=name), anyprop.nets.mlp(3, 3, key=key), data, epochs=1, batch_size=5)


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


@pytest.mark.parametrize(
    "name",
    ["backprop", "direct-feedback-alignment", "reinforce", "simplified-target-propagation", "equilibrium-propagation"],
)
def test_targets_of_another_shape_are_refused_in_a_loop_of_ones_own(name, key, monkeypatch):
    rule = anyprop.rules.find(name)()
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # users run without the type checker
    learner = rule.init(anyprop.nets.mlp(4, 5, 5, 3, activation="sigmoid", output="hard-sigmoid", key=key), key=key)
    y = np.arange(6) % 3
    for wrong in (y[:, None], y[:5], y.astype(np.float32), np.zeros((6, 2), np.float32), np.eye(3, dtype=bool)[y]):
        batch = anyprop.Batch(jnp.zeros((6, 4)), jnp.asarray(wrong))
        with pytest.raises(ValueError, match=r"^y must be integer labels of shape \(6,\) or float .* \(6, 3\).*, not "):
            eqx.filter_eval_shape(rule.credit, learner, batch, key=key)


def test_unknown_loss_names_the_nearest():
    with pytest.raises(ValueError, match="squared-error"):
        losses.as_loss("square-error")
