import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import optax
import pytest

from anyprop.training import in_turns


def test_feedback_and_network_move_in_turns():
    params = ({"w": jnp.ones(2)}, {"v": jnp.ones(3)})
    optimizer = in_turns(optax.sgd(0.1, momentum=0.9), optax.sgd(0.01), steps=2)
    state, moved = optimizer.init(params), []
    for _ in range(6):
        updates, state = optimizer.update(params, state, params)
        moved.append([bool(leaf.any()) for leaf in jax.tree.leaves(updates)])
    assert moved == [[False, True]] * 2 + [[True, False]] * 2 + [[False, True]] * 2
    updates, _ = optimizer.update(params, state, params)
    # Its momentum after the third step of its own: what it waited for counts for nothing.
    np.testing.assert_allclose(updates[0]["w"], -0.1 * (1 + 0.9 + 0.9**2), rtol=1e-6)


@pytest.mark.parametrize("name", ["model", "feedback"])
def test_what_is_no_optimizer_is_refused(name, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # users run without the type checker
    with pytest.raises(TypeError, match=f"{name} must be one of Optax"):
        in_turns(**{"model": optax.sgd(0.1), "feedback": optax.sgd(0.1), name: "adam"}, steps=2)


def test_a_turn_without_steps_is_refused():
    with pytest.raises(ValueError, match="steps must be an integer of at least 1"):
        in_turns(optax.sgd(0.1), optax.sgd(0.1), steps=0)
