import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

from anyprop.nets import (
    Activate,
    Chain,
    Conv,
    Dense,
    Elman,
    Flatten,
    Norm,
    Pool,
    Reshape,
    Residual,
    Upsample,
    has_hard_units,
    layers,
    lenet5,
    links,
    mlp,
)


def kinds(series):
    return [[type(stage).__name__ for stage in part.stages] for part in series]


def compose(series, x):
    for part in series:
        x = part(x)
    return x


def image_net(key):
    k = jax.random.split(key, 3)
    return Chain(
        [
            Conv(1, 2, 3, key=k[0]),
            Norm(2, activation="relu"),
            Pool("mean", 2),
            Flatten(),
            Dense(18, 5, activation="tanh", key=k[1]),
            Activate("sign"),
            Dense(5, 3, activation="sigmoid", key=k[2]),
        ],
        input_shape=(6, 6, 1),
    )


def test_layers_are_cut_behind_the_nonlinearity(key):
    assert kinds(layers(image_net(key))) == [["Conv", "Norm", "Pool"], ["Flatten", "Dense"], ["Activate", "Dense"]]


def test_links_are_cut_before_the_nonlinearity(key):
    assert kinds(links(image_net(key))) == [
        ["Conv", "Norm"],
        ["Activate", "Pool", "Flatten", "Dense"],
        ["Activate", "Activate", "Dense", "Activate"],
    ]


@pytest.mark.parametrize("cut", [layers, links])
@pytest.mark.parametrize("build", [image_net, lambda key: lenet5(key=key), lambda key: mlp(36, 4, 2, key=key)])
def test_both_compute_what_the_chain_computes(cut, build, key):
    model = build(key)
    x = jax.random.normal(key, (2, *model.input_shape))
    assert jnp.allclose(compose(cut(model), x), model(x), rtol=1e-6)


def test_a_cost_of_one_layer_moves_that_layer_only(key):
    model = mlp(4, 3, 3, 2, key=key)
    h = jax.random.normal(key, (5, 3))
    gradient = eqx.filter_grad(lambda model: jnp.sum(layers(model)[1](h) ** 2))(model)
    moved = [bool(jnp.any(stage.weight)) for stage in gradient.stages]
    assert moved == [False, True, False]


def test_signs_and_steps_are_found_wherever_they_are(key):
    assert has_hard_units(image_net(key))
    assert has_hard_units([Residual([Dense(2, 2, key=key)], activation="step")])
    assert has_hard_units(Residual([Dense(2, 2, key=key)], shortcut=[Activate("step")]))
    assert has_hard_units(Elman(2, 2, activation="sign", key=key))
    assert not has_hard_units(Elman(2, 2, activation="hard-sigmoid", key=key))
    assert not has_hard_units(lambda x: x)


def test_reshape_and_upsample():
    h = jnp.arange(8.0).reshape(2, 4)
    image = Reshape((2, 2, 1))(h)
    assert image.shape == (2, 2, 2, 1)
    large = Upsample(3, 4)(image)
    assert large[0, :, :, 0].tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3]]
