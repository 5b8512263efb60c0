import equinox as eqx
import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from anyprop import nets

RAVEL = eqx.nn.Lambda(jnp.ravel)


def small_chain(key):
    """A chain with every kind of site: convolution, normalisation, residual block, dense."""
    k = jax.random.split(key, 5)
    block = nets.Residual(
        [nets.Conv(4, 6, 3, stride=2, key=k[1]), nets.Norm(6, groups=2, activation="relu")],
        shortcut=[nets.Conv(4, 6, 1, stride=2, key=k[2])],
        activation="tanh",
    )
    stages = [
        nets.Conv(1, 4, 3, activation="tanh", key=k[0]),
        nets.Pool("max", 2),
        block,
        nets.Flatten(),
        nets.Dense(24, 5, key=k[3]),
    ]
    return nets.Chain(stages, input_shape=(8, 8, 1))


def test_record_agrees_with_the_call_and_with_the_order_of_sites(key):
    net = small_chain(key)
    x = jax.random.normal(key, (3, 8, 8, 1))
    output, traces = net.record(x)
    np.testing.assert_allclose(output, net(x), rtol=1e-6)
    own = nets.sites(net)
    assert len(own) == len(traces) == 5
    for site, trace in zip(own, traces, strict=True):
        np.testing.assert_allclose(site.drive(trace.input), trace.drive, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(site.activation(trace.drive), trace.output, rtol=1e-6)


def test_local_updates_with_exact_errors_are_the_gradient(key):
    net = small_chain(key)
    x = jax.random.normal(key, (3, 8, 8, 1))

    class Nudge(nets.Wiring):
        by: jax.Array

        def __call__(self, site, h):
            a = site.drive(h) + self.by
            return a, site.activation(a)

    _, traces = net.record(x)
    nudges = [jnp.zeros_like(trace.drive) for trace in traces]
    errors = jax.grad(lambda by: jnp.sum(nets.wire(net, [Nudge(b) for b in by])(x) ** 2))(nudges)
    updates = [nets.local_update(s, t.input, e) for s, t, e in zip(nets.sites(net), traces, errors, strict=True)]
    exact = eqx.filter_grad(lambda net: jnp.sum(net(x) ** 2))(net)
    built = nets.assemble(net, updates)
    assert jax.tree.structure(built) == jax.tree.structure(exact)
    for ours, theirs in zip(jax.tree.leaves(built), jax.tree.leaves(exact), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_wire_and_unwire_leave_the_network_as_it_was(key):
    net = small_chain(key)
    wired = nets.wire(nets.wire(net, [None] * 5), [None] * 5)
    assert jax.tree.structure(wired) == jax.tree.structure(net)


def test_pooling_by_tiles_agrees_with_reduce_window(key):
    x = jax.random.normal(key, (2, 6, 6, 3))
    for kind in ("max", "mean"):
        tiled = nets.Pool(kind, 2)(x)
        windows = jnp.stack([x[:, i::2, j::2] for i in range(2) for j in range(2)])
        wanted = windows.max(0) if kind == "max" else windows.mean(0)
        np.testing.assert_allclose(tiled, wanted, rtol=1e-6)
        overlapping = nets.Pool(kind, 2, stride=1)(x)
        assert overlapping.shape == (2, 5, 5, 3)
        np.testing.assert_allclose(overlapping[:, ::2, ::2], wanted, rtol=1e-5)


def test_a_name_between_sizes_is_what_the_next_layer_hears(key):
    plain, signed = nets.mlp(3, 4, 5, 2, key=key), nets.mlp(3, 4, "sign", 5, 2, key=key)
    first, *rest = plain.stages
    x = jax.random.normal(key, (6, 3))
    np.testing.assert_array_equal(signed(x), nets.Chain([first, nets.Activate("sign"), *rest])(x))


def test_pooling_leaves_out_what_fills_no_window(key):
    x = jax.random.normal(key, (2, 7, 5, 3))
    for kind in ("max", "mean", "softmax"):
        pool = nets.Pool(kind, 2)
        np.testing.assert_array_equal(pool(x), pool(x[:, :6, :4]))


def test_softmax_pooling_lies_between_the_mean_and_the_maximum_and_tends_to_both(x64, key):
    x = jax.random.normal(key, (2, 6, 6, 3))
    mean, soft, most = (nets.Pool(kind, 2)(x) for kind in ("mean", "softmax", "max"))
    assert np.all((mean < soft) & (soft < most))
    for scale, kind in ((1e-6, "mean"), (1e6, "max")):
        np.testing.assert_allclose(nets.Pool("softmax", 2)(scale * x) / scale, nets.Pool(kind, 2)(x), atol=1e-5)


@pytest.mark.parametrize("padding", ["SAME", "VALID", 1, 3])
@pytest.mark.parametrize(("size", "channels"), [(3, 1), (5, 6), (2, 3), (1, 4)])
def test_small_convolutions_by_a_matrix_product_are_convolutions(padding, size, channels, x64, monkeypatch):
    layer = nets.Conv(channels, 4, size, padding=padding, key=jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (2, 7, 6, channels))
    assert layer.map.as_product(x.shape, layer.weight.shape) == (size % 2 == 1 or padding != "SAME")

    def value_and_gradients(layer, x):
        return layer(x), jax.grad(lambda layer, x: jnp.sum(jnp.sin(layer(x))), argnums=(0, 1))(layer, x)

    ours = value_and_gradients(layer, x)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert not layer.map.as_product(x.shape, layer.weight.shape)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(value_and_gradients(layer, x)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("padding", ["SAME", "VALID", 1])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [2, 5])
def test_convolutions_for_loops_are_convolutions(padding, stride, size, x64, monkeypatch):
    layer = nets.Conv(70, 4, size, stride=stride, padding=padding, key=jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (2, 9, 8, 70))

    def value_and_gradients(layer, x):
        def cost(layer, x):
            return jnp.sum(jnp.sin(nets.for_loops(layer)(x)))

        return nets.for_loops(layer)(x), jax.grad(cost, argnums=(0, 1))(layer, x)

    assert "conv_general" not in str(jax.make_jaxpr(lambda *args: value_and_gradients(*args))(layer, x))
    ours = value_and_gradients(layer, x)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert "conv_general" in str(jax.make_jaxpr(lambda *args: value_and_gradients(*args))(layer, x))
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(value_and_gradients(layer, x)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)


def test_norm_makes_each_example_zero_mean_and_unit_variance(key):
    x = 3.0 + 2.0 * jax.random.normal(key, (4, 5, 5, 8))
    out = nets.Norm(8, groups=2)(x).reshape(4, 25, 2, 4)
    np.testing.assert_allclose(out.mean((1, 3)), 0.0, atol=1e-5)
    np.testing.assert_allclose(out.var((1, 3)), 1.0, rtol=1e-3)


def test_elman_is_the_recursion_of_its_docstring(key):
    layer = nets.Elman(3, 4, key=key)
    x = jax.random.normal(key, (2, 5, 3))
    h = np.zeros((2, 4))
    for t in range(5):
        h = np.tanh(
            np.asarray(x[:, t] @ layer.input.weight + layer.input.bias) + h @ np.asarray(layer.recurrent.weight)
        )
    np.testing.assert_allclose(layer(x), h, rtol=1e-5)


@pytest.mark.parametrize(
    ("build", "shape"),
    [
        (lambda key: nets.mlp(12, 8, 5, key=key), (5,)),
        (lambda key: nets.lenet5(key=key), (10,)),
        (lambda key: nets.convnet(input_shape=(16, 16, 3), channels=(4, 8), key=key), (10,)),
        (lambda key: nets.resnet20(width=3, key=key), (10,)),
        (lambda key: nets.elman(7, 6, 3, steps=4, key=key), (3,)),
        (lambda key: nets.elman(7, 6, 3, steps=4, sequence=True, key=key), (4, 3)),
    ],
)
def test_builders_give_the_output_shape(build, shape, key):
    assert build(key).output_shape == shape


def test_resnet20_has_twenty_layers_of_weights(key):
    net = nets.resnet20(key=key)
    assert sum(s.weight.shape[:2] != (1, 1) for s in nets.affines(net)) == 20


def test_redraw_changes_every_weight_and_no_shape(key):
    net = small_chain(key)
    fresh = net.redraw(jax.random.key(7))
    assert jax.tree.structure(fresh) == jax.tree.structure(net)
    for old, new in zip(nets.affines(net), nets.affines(fresh), strict=True):
        assert old.weight.shape == new.weight.shape
        assert not np.allclose(old.weight, new.weight)


@pytest.mark.parametrize("name", sorted(nets.INITIALISERS))
def test_initialisers_take_dense_and_convolutional_shapes(name, key):
    for shape in ((6, 4), (3, 3, 6, 4)):
        assert nets.initialiser(name)(key, shape).shape == shape


def test_normal_by_fan_sum_has_its_variance(key):
    weight = nets.initialiser("normal-by-fan-sum")(key, (300, 200))
    np.testing.assert_allclose(weight.var(), 1 / 500, rtol=0.03)


@pytest.mark.parametrize("name", sorted(nets.ACTIVATIONS))
def test_activations_keep_shape_and_type(name):
    a = jnp.linspace(-2, 2, 9)
    assert nets.activation(name)(a).shape == a.shape
    assert nets.activation(name)(a).dtype == a.dtype


def test_hard_sigmoid_sign_and_step():
    a = jnp.array([-1.5, 0.0, 0.25, 1.5])
    np.testing.assert_array_equal(nets.activation("hard-sigmoid")(a), [0, 0, 0.25, 1])
    np.testing.assert_array_equal(nets.activation("sign")(a), [-1, -1, 1, 1])
    np.testing.assert_array_equal(nets.activation("step")(a), [0, 0, 1, 1])


def test_from_equinox_computes_the_same_function(key, x64):
    k = jax.random.split(jax.random.key(1), 4)
    theirs = eqx.nn.Sequential(
        [
            eqx.nn.Conv2d(2, 4, 3, stride=2, padding=1, key=k[0]),
            eqx.nn.Lambda(jax.nn.relu),
            eqx.nn.MaxPool2d(2, 1),
            eqx.nn.Sequential([eqx.nn.Lambda(jnp.ravel), eqx.nn.Identity()]),
            eqx.nn.Lambda(jnp.tanh),
            eqx.nn.Linear(4 * 3 * 3, 7, key=k[1]),
            eqx.nn.LayerNorm(7),
            eqx.nn.Lambda(jax.nn.softplus),
            eqx.nn.Linear(7, 3, use_bias=False, key=k[2]),
        ]
    )
    ours = nets.from_equinox(theirs, input_shape=(8, 8, 2))
    x = jax.random.normal(k[3], (5, 8, 8, 2))
    np.testing.assert_allclose(ours(x), jax.vmap(theirs)(x.transpose(0, 3, 1, 2)), atol=1e-6)
    assert nets.sites(ours)[0].activation is jax.nn.relu  # fused: one layer to every rule


def redrawn(model, key):
    """The model with random numbers for every weight: a fresh LayerNorm's ones are the same in any order."""
    leaves, treedef = jax.tree.flatten(eqx.filter(model, eqx.is_array))
    keys = jax.random.split(key, len(leaves))
    drawn = [a + 0.1 * jax.random.normal(k, a.shape, a.dtype) for k, a in zip(keys, leaves, strict=True)]
    return eqx.combine(treedef.unflatten(drawn), model)


@pytest.mark.parametrize(
    "make",
    [
        lambda k: [eqx.nn.Conv2d(2, 3, 3, key=k), RAVEL, eqx.nn.LayerNorm(12), eqx.nn.Linear(12, 5, key=k)],
        lambda k: [RAVEL, eqx.nn.LayerNorm(32), eqx.nn.Lambda(jnp.tanh), RAVEL, eqx.nn.Linear(32, 5, key=k)],
        lambda k: [RAVEL, eqx.nn.MLP(32, 5, 7, 2, final_activation=jnp.tanh, key=k)],
        lambda k: [eqx.nn.Conv2d(2, 1, 3, key=k), RAVEL],
        lambda k: [eqx.nn.Conv2d(2, 3, 4, key=k), eqx.nn.Lambda(jax.nn.sigmoid), RAVEL],
        lambda k: [eqx.nn.Conv2d(2, 3, 3, key=k), eqx.nn.Lambda(jnp.exp), eqx.nn.AvgPool2d(2, 1)],
    ],
)
def test_from_equinox_keeps_the_function_where_it_moves_the_channels(make, key, x64):
    theirs = redrawn(eqx.nn.Sequential(make(key)), key)
    ours = nets.from_equinox(theirs, input_shape=(4, 4, 2))
    x = jax.random.normal(key, (5, 4, 4, 2))
    wanted = jax.vmap(theirs)(x.transpose(0, 3, 1, 2))
    np.testing.assert_allclose(ours(x), wanted if wanted.ndim == 2 else wanted.transpose(0, 2, 3, 1), atol=1e-6)


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_from_equinox_reads_an_mlp_with_its_activations(depth, key, x64):
    plain, tanh = (eqx.nn.MLP(4, 2, 8, depth, key=key, **kwargs) for kwargs in ({}, {"final_activation": jnp.tanh}))
    x = jax.random.normal(key, (5, 4))
    for theirs in (plain, tanh):
        ours = nets.from_equinox(theirs, input_shape=(4,))
        np.testing.assert_allclose(ours(x), jax.vmap(theirs)(x), atol=1e-6)
    activations = [site.activation for site in nets.sites(nets.from_equinox(plain, input_shape=(4,)))]
    assert activations == [jax.nn.relu] * depth + [
        nets.activation("identity")
    ]  # known to the rules that ask for a linear output


class Doubled(eqx.nn.Linear):
    """A layer that computes something else than its class says."""

    def __call__(self, x, *, key=None):
        return 2 * super().__call__(x, key=key)


class Backwards(eqx.nn.Sequential):
    """A network that calls its layers in another order."""

    def __call__(self, x, state=None, *, key=None):
        for layer in reversed(self.layers):
            x = layer(x)
        return x


@pytest.mark.parametrize(
    "make",
    [
        lambda k: eqx.nn.Sequential([Doubled(4, 3, key=k)]),
        lambda k: Backwards([eqx.nn.Linear(4, 4, key=k), eqx.nn.Lambda(jnp.tanh)]),
        # Elementwise on a batch of activities, and another function on one example.
        lambda k: eqx.nn.Sequential([eqx.nn.Lambda(lambda h: h if h.ndim == 1 and h.size > 1 else -h)]),
    ],
)
def test_from_equinox_refuses_a_network_that_differs_from_its_chain(make, key):
    with pytest.raises(ValueError, match=r"differ on a random batch.*Stage of your own"):
        nets.from_equinox(make(key), input_shape=(4,))
    with pytest.raises(ValueError, match="differ on a random batch"):
        eqx.filter_jit(lambda k: nets.from_equinox(make(k), input_shape=(4,)))(key)


def test_from_equinox_reads_networks_under_a_transformation(key):
    def build(key):
        return nets.from_equinox(eqx.nn.MLP(4, 2, 8, 1, key=key), input_shape=(4,))

    keys = jax.random.split(key, 3)
    x = jax.random.normal(key, (5, 4))
    together = eqx.filter_jit(eqx.filter_vmap(lambda key: build(key)(x)))(keys)
    np.testing.assert_allclose(together, [build(k)(x) for k in keys], atol=1e-6)
    constant = eqx.nn.MLP(4, 2, 8, 1, key=key)  # its weights are known inside, the chain's are not
    inside = eqx.filter_jit(lambda x: nets.from_equinox(constant, input_shape=(4,))(x))(x)
    np.testing.assert_allclose(inside, jax.vmap(constant)(x), atol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_from_equinox_takes_rounding_for_no_difference(dtype, key):
    layers = [
        eqx.nn.Conv2d(2, 3, 3, dtype=dtype, key=key),
        RAVEL,
        eqx.nn.LayerNorm(12, dtype=dtype),
        eqx.nn.Linear(12, 5, dtype=dtype, key=key),
    ]
    assert nets.from_equinox(eqx.nn.Sequential(layers), input_shape=(4, 4, 2)).output_shape == (5,)


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda k: [eqx.nn.GRUCell(3, 4, key=k)], TypeError, "GRUCell has no counterpart"),
        (lambda k: [eqx.nn.Conv2d(1, 2, 3, dilation=2, key=k)], ValueError, "dilation"),
        (lambda k: [eqx.nn.Conv2d(1, 2, (3, 2), key=k)], ValueError, "not square"),
        (
            lambda k: [eqx.nn.Conv2d(1, 2, 3, padding=1, padding_mode="REFLECT", key=k)],
            ValueError,
            "Conv2d.padding_mode=REFLECT.*ZEROS",
        ),
        (lambda k: [eqx.nn.Conv2d(1, 2, 3, key=k), RAVEL], ValueError, "ravel.*Linear layer after it"),
        (lambda k: [eqx.nn.Conv2d(1, 2, 3, key=k), RAVEL, eqx.nn.LayerNorm(72)], ValueError, "ravel.*Linear layer"),
        (lambda k: [RAVEL, eqx.nn.LayerNorm(64, eps=1e-3)], ValueError, "LayerNorm.eps=0.001.*use 1e-05"),
        (lambda k: [eqx.nn.Linear(1, 3, key=k)], ValueError, r"Linear takes 1 numbers.*Lambda\(jnp.ravel\)"),
        (lambda k: [eqx.nn.Linear(8, 8, key=k)], ValueError, "Linear takes 8 numbers"),
        (lambda k: [RAVEL, eqx.nn.Linear(60, 3, key=k)], ValueError, "Linear takes 60 numbers.*in_features"),
        (lambda k: [RAVEL, eqx.nn.Linear(64, "scalar", key=k)], ValueError, "out_features=scalar.*use 1"),
        (lambda k: [RAVEL, eqx.nn.MLP(64, 2, 3, 2, scan=True, key=k)], ValueError, "MLP.scan=True.*use False"),
        (lambda k: [RAVEL, eqx.nn.MLP(64, 2, 3, 2, eqx.nn.PReLU(), key=k)], TypeError, "PReLU.*have no weights"),
        *(
            (lambda k, layers=layers: layers, TypeError, r"Lambda\(.*no counterpart.*elementwise.*Stage")
            for layers in (
                [eqx.nn.Lambda(jnp.sum)],
                [eqx.nn.Lambda(jax.nn.softmax)],
                [eqx.nn.Lambda(lambda h: h / jnp.sum(h**2))],
                [RAVEL, eqx.nn.Lambda(lambda h: h / jnp.sum(h**2))],
                # The identity for most activities.
                [RAVEL, eqx.nn.Lambda(lambda h: h / jnp.maximum(jnp.linalg.norm(h) / 50.0, 1.0))],
                [RAVEL, eqx.nn.Lambda(lambda h: h[::-1])],
                [eqx.nn.Lambda(lambda h: h.reshape(64, 1).reshape(1, 8, 8))],
            )
        ),
    ],
)
def test_from_equinox_refuses_what_it_cannot_say(make, error, match, key):
    with pytest.raises(error, match=match):
        nets.from_equinox(eqx.nn.Sequential(make(key)), input_shape=(8, 8, 1))


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda k: nets.mlp(784, key=k), "at least"),
        (lambda k: nets.mlp(784, 0, 10, key=k), "sizes must be"),
        (lambda k: nets.mlp(3, 4, 2, activation="tahn", key=k), "tanh"),
        (lambda k: nets.mlp(3, 4, "sing", 4, 2, key=k), "^sizes='sing'.* sign"),
        (lambda k: nets.mlp(3, 4, 2, output="sigmod", key=k), "^output='sigmod'.* sigmoid"),
        (lambda k: nets.mlp(3, "sign", 4, 2, key=k), "no hidden layer"),
        (lambda k: nets.mlp(3, 4, "sign", key=k), "no hidden layer"),
        (lambda k: nets.mlp(3, 2, init="glorot", key=k), "glorot-normal"),
        (lambda k: nets.Chain([]), "stages is empty"),
        (lambda k: nets.Chain([nets.Conv(1, 2, 3, key=k)]), "input_shape is missing"),
        (lambda k: nets.Chain([nets.Dense(3, 4, key=k), nets.Dense(5, 2, key=k)]), r"stages\[1\]"),
        (lambda k: nets.Norm(6, groups=4), "groups=4 must divide"),
        (lambda k: nets.Pool("median", 2), "^kind='median'"),
        (lambda k: nets.lenet5(pool="median", key=k), "^pool='median'"),
        (lambda k: nets.Pool("softmax", 2, stride=1), "stride=1"),
        (lambda k: nets.convnet(input_shape=(4, 4, 1), key=k), "too small"),
        (lambda k: nets.Conv(1, 2, 3, padding="foo", key=k), "^padding='foo'.* SAME"),
        (lambda k: nets.Elman(3, 4, recurrent_init="foo", key=k), "^recurrent_init='foo'"),
    ],
)
def test_bad_sizes_and_names_are_refused(make, match, key):
    with pytest.raises(ValueError, match=match):
        make(key)


@pytest.mark.parametrize("value", [784, "784", (784, 0), (-1,), (28.0, 28)])
def test_what_is_no_shape_is_refused(value, key, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # users run without the type checker
    linear = eqx.nn.Sequential([eqx.nn.Linear(784, 2, key=key)])
    with pytest.raises(ValueError, match=r"^input_shape must be a tuple of sizes of at least 1"):
        nets.Chain([nets.Dense(784, 2, key=key)], input_shape=value)
    with pytest.raises(ValueError, match=r"^input_shape must be a tuple of sizes of at least 1"):
        nets.from_equinox(linear, input_shape=value)
    with pytest.raises(ValueError, match=r"^shape must be a tuple of sizes of at least 1"):
        nets.Reshape(value)


SIZES = {
    "Dense": (nets.Dense, {"fan_in": 4, "fan_out": 3}),
    "Conv": (nets.Conv, {"channels_in": 1, "channels_out": 2, "size": 3, "stride": 1}),
    "Norm": (nets.Norm, {"channels": 4, "groups": 2}),
    "Pool": (nets.Pool, {"kind": "max", "size": 2, "stride": 1}),
    "Upsample": (nets.Upsample, {"height": 2, "width": 2}),
    "Elman": (nets.Elman, {"fan_in": 3, "units": 4}),
    "elman": (nets.elman, {"features": 3, "units": 4, "classes": 2, "steps": 5}),
    "resnet20": (nets.resnet20, {"width": 4, "classes": 2}),
    "convnet": (nets.convnet, {"classes": 2}),
}


@pytest.mark.parametrize(
    ("name", "argument"),
    [(name, argument) for name, (_, good) in SIZES.items() for argument in good if argument != "kind"],
)
@pytest.mark.parametrize("value", [0, -3, 4.0])
def test_sizes_are_checked_by_name(name, argument, value, key, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # users run without the type checker
    make, good = SIZES[name]
    keyed = {} if name in ("Norm", "Pool", "Upsample") else {"key": key}
    with pytest.raises(ValueError, match=f"^{argument} must be an integer of at least 1, not {value}"):
        make(**good | {argument: value}, **keyed)


@pytest.mark.parametrize(
    ("make", "argument"),
    [
        (lambda k: nets.convnet(input_shape=(32, 0, 3), key=k), "input_shape"),
        (lambda k: nets.convnet(channels=(4, 0), key=k), "channels"),
        (lambda k: nets.resnet20(input_shape=(32, 32, -1), key=k), "input_shape"),
        (lambda k: nets.Conv(1, 2, 3, padding=-1, key=k), "padding"),
        (lambda k: nets.Conv(1, 2, 3, padding=1.5, key=k), "padding"),
    ],
)
def test_numbers_in_a_row_and_padding_are_checked_by_name(make, argument, key, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match=f"^{argument} must be an integer of at least [01], not "):
        make(key)


def test_sizes_may_be_integers_of_numpy_and_are_checked_under_transformations(key, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)

    def build(key):
        conv = nets.Conv(np.int64(1), np.int32(2), np.int8(3), stride=np.int64(2), padding=np.int64(1), key=key)
        return conv, nets.Norm(np.int64(4), groups=np.int64(2)), nets.Dense(np.int64(3), np.int64(2), key=key)

    keys = jax.random.split(key, 3)
    conv, norm, dense = eqx.filter_eval_shape(eqx.filter_vmap(build), keys)
    assert (conv.weight.shape, norm.weight.shape, dense.weight.shape) == ((3, 3, 3, 1, 2), (3, 4), (3, 3, 2))


@pytest.mark.parametrize("width", [1, 5])
def test_a_block_whose_body_and_shortcut_differ_is_refused(width, key):
    with pytest.raises(ValueError, match=rf"body returns .* \({width},\) and shortcut .* \(4,\);"):
        nets.Chain([nets.Residual([nets.Dense(4, width, key=key)])], input_shape=(4,))
    block = nets.Residual([nets.Dense(4, 4, key=key)], shortcut=[nets.Dense(4, width, key=key)])
    with pytest.raises(ValueError, match=rf"^body returns .* \(4,\) and shortcut .* \({width},\);"):
        jax.eval_shape(lambda h: block(h), jnp.zeros((2, 4)))


def test_record_of_a_recurrent_layer_says_what_to_choose(key):
    with pytest.raises(TypeError, match="choose Backprop"):
        nets.elman(3, 4, 2, steps=5, key=key).record(jnp.zeros((1, 5, 3)))
