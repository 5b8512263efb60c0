"""The networks that every feedback rule is tested on, and the angle between weights."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from anyprop.contract import Batch
from anyprop.nets import Chain, Conv, Dense, Elman, Flatten, GlobalMean, Norm, Pool, Residual, mlp


def drawn(key, shape):
    """An initialiser that compiles nothing: these nets are built many times."""
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    return jnp.asarray(rng.normal(size=shape) * np.prod(shape[:-1]) ** -0.5)


def dense(key):
    return mlp(6, 7, 5, 4, init=drawn, key=key)


def convolutional(key):
    k1, k2, k3, k4 = jax.random.split(key, 4)
    return Chain(
        [
            Conv(2, 3, 3, activation="tanh", init=drawn, key=k1),
            Pool("max", 2),
            Conv(3, 4, 3, padding="VALID", activation="sigmoid", init=drawn, key=k2),
            Flatten(),
            Dense(16, 5, activation="tanh", init=drawn, key=k3),
            Dense(5, 4, init=drawn, key=k4),
        ],
        input_shape=(8, 8, 2),
    )


def residual(key):
    k1, k2, k3, k4, k5 = jax.random.split(key, 5)
    block = Residual(
        [
            Conv(3, 6, 3, stride=2, init=drawn, key=k2),
            Norm(6, groups=2, activation="relu"),
            Conv(6, 6, 3, init=drawn, key=k3),
        ],
        shortcut=[Conv(3, 6, 1, stride=2, init=drawn, key=k4)],
        activation="tanh",
    )
    first = Conv(2, 3, 3, activation="tanh", init=drawn, key=k1)
    return Chain([first, block, GlobalMean(), Dense(6, 4, init=drawn, key=k5)], input_shape=(6, 6, 2))


def recurrent(key):
    k1, k2 = jax.random.split(key)
    layer = Elman(3, 6, init=drawn, recurrent_init=drawn, key=k1)
    return Chain([layer, Dense(6, 4, init=drawn, key=k2)], input_shape=(5, 3))


NETS = {"dense": dense, "convolutional": convolutional, "residual": residual, "recurrent": recurrent}


@pytest.fixture
def batch():
    """Return a function from a network to a random batch of five labelled examples."""

    def make(model, examples=5):
        x = jax.random.normal(jax.random.key(7), (examples, *model.input_shape))
        return Batch(x, jnp.arange(examples) % model.output_shape[-1])

    return make


@pytest.fixture(params=NETS)
def any_net(request):
    """Each kind of network, as a function of a key."""
    return NETS[request.param]


@pytest.fixture(params=["dense", "convolutional", "residual"])
def feedforward_net(request):
    """Each kind of network without recurrence, as a function of a key."""
    return NETS[request.param]


@pytest.fixture
def run():
    """Return a function that runs one compiled `credit` of a rule."""

    def compiled(rule, learner, data, key=None):
        return eqx.filter_jit(rule.credit)(learner, data, key=jax.random.key(5) if key is None else key)

    return compiled


@pytest.fixture
def angle():
    """Return a function from two arrays to the angle between them in degrees."""

    def between(a, b):
        a, b = np.ravel(a), np.ravel(b)
        return float(np.degrees(np.arccos(a @ b / np.linalg.norm(a) / np.linalg.norm(b))))

    return between


@pytest.fixture
def same():
    """Return a function that asserts that two trees are equal, to rounding."""

    def check(actual, expected, rtol=1e-12):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol), actual, expected)

    return check
