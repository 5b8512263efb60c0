"""Networks by name: the ones that papers and reproductions use."""

import math
from collections.abc import Iterable

import jax
from jaxtyping import Array, Key

from .._checks import choose, count
from ._activations import Activation
from ._chain import Chain, Elman, Residual
from ._convolution import Conv
from ._initialisers import Initialiser
from ._stage import POOLINGS, Activate, Dense, Flatten, GlobalMean, Norm, Pool, _activation


def mlp(
    *sizes: int | str,
    activation: str | Activation = "tanh",
    output: str | Activation = "identity",
    bias: bool = True,
    init: str | Initialiser = "glorot-normal",
    key: Key[Array, ""],
) -> Chain:
    """A multi-layer perceptron, `mlp(784, 500, 10, key=key)`.

    Args:
        sizes: units of each layer, input and output included; at least two. The name of an activation after a hidden
            layer, as in `mlp(784, 500, "sign", 500, 10, key=key)`, is a stage of its own (`Activate`): how the
            layer is heard by the next.
        activation: nonlinearity of the hidden layers.
        output: nonlinearity of the last layer. Keep the identity with `CrossEntropy` and
            `BinaryCrossEntropy`, which take logits.
        bias: whether layers have biases.
        init: initialiser of the weights.
        key: random key for the weights.

    Raises:
        ValueError: fewer than two sizes, a size that is not a positive integer, or a name that is unknown or not
            between two layers.
    """
    units = [size for size in sizes if not isinstance(size, str)]
    if len(units) < 2:
        raise ValueError(f"sizes={sizes} must name the input and the output at least, such as mlp(784, 10)")
    _count_all(sizes=units)
    if isinstance(sizes[0], str) or isinstance(sizes[1], str) or isinstance(sizes[-1], str):
        raise ValueError(f"sizes={sizes} has a name where no hidden layer is; pass it between two, as 500, 'sign', 500")
    output = _activation(output, "output")
    depth = len(units) - 1
    layers = iter(
        Dense(n, m, activation=output if i == depth - 1 else activation, bias=bias, init=init, key=k)
        for i, (n, m, k) in enumerate(zip(units, units[1:], jax.random.split(key, depth), strict=False))
    )
    return Chain(
        [Activate(_activation(size, "sizes")) if isinstance(size, str) else next(layers) for size in sizes[1:]]
    )


def _count_all(**rows: Iterable[int]) -> None:
    """Refuse a size that is no positive integer, by the name of its row."""
    for argument, row in rows.items():
        for size in row:
            count(argument, size)


def lenet5(
    *,
    activation: str | Activation = "tanh",
    pool: str = "mean",
    init: str | Initialiser = "glorot-normal",
    key: Key[Array, ""],
) -> Chain:
    """LeNet-5 for 28 x 28 grey images (LeCun et al. 1998): two convolutions, two hidden dense layers.

    Args:
        activation: nonlinearity of the hidden layers.
        pool: `"mean"` as in 1998, or `"max"`.
        init: initialiser of the weights.
        key: random key for the weights.

    Raises:
        ValueError: a name is unknown.
    """
    choose("pool", pool, POOLINGS)
    k = jax.random.split(key, 5)
    f = {"activation": activation, "init": init}
    return Chain(
        [
            Conv(1, 6, 5, **f, key=k[0]),
            Pool(pool, 2),
            Conv(6, 16, 5, padding="VALID", **f, key=k[1]),
            Pool(pool, 2),
            Flatten(),
            Dense(400, 120, **f, key=k[2]),
            Dense(120, 84, **f, key=k[3]),
            Dense(84, 10, init=init, key=k[4]),
        ],
        input_shape=(28, 28, 1),
    )


def convnet(
    *,
    input_shape: tuple[int, int, int] = (32, 32, 3),
    channels: tuple[int, ...] = (32, 64, 64),
    classes: int = 10,
    activation: str | Activation = "relu",
    init: str | Initialiser = "he-normal",
    key: Key[Array, ""],
) -> Chain:
    """A small convolutional net: 3 x 3 convolutions, each followed by 2 x 2 max pooling, then one dense layer.

    Args:
        input_shape: height, width and channels of an image.
        channels: channels of each convolution.
        classes: number of outputs.
        activation: nonlinearity of the convolutions.
        init: initialiser of the weights.
        key: random key for the weights.

    Raises:
        ValueError: a size is not a positive integer, or the image is too small for that many poolings.
    """
    _count_all(input_shape=input_shape, channels=channels, classes=[classes])
    height, width, incoming = input_shape
    stages = []
    keys = jax.random.split(key, len(channels) + 1)
    for outgoing, k in zip(channels, keys, strict=False):
        stages += [Conv(incoming, outgoing, 3, activation=activation, init=init, key=k), Pool("max", 2)]
        height, width, incoming = height // 2, width // 2, outgoing
    if not (height and width):
        raise ValueError(f"input_shape={input_shape} is too small for {len(channels)} poolings; pass fewer channels")
    stages += [Flatten(), Dense(height * width * incoming, classes, init=init, key=keys[-1])]
    return Chain(stages, input_shape=input_shape)


def resnet20(
    *,
    input_shape: tuple[int, int, int] = (32, 32, 3),
    classes: int = 10,
    width: int = 16,
    key: Key[Array, ""],
) -> Chain:
    """ResNet-20 for small images (He et al. 2016): nine residual blocks of two 3 x 3 convolutions.

    Group normalisation stands where the paper has batch normalisation (see `Norm` for why), in as many groups out of
    1, 2, 4 and 8 as the channels can be cut into, and a strided 1 x 1 convolution on the skip where the shape changes.

    Args:
        input_shape: height, width and channels of an image.
        classes: number of outputs.
        width: channels of the first third; the second and last third have two and four times as many.
        key: random key for the weights.

    Raises:
        ValueError: a size is not a positive integer.
    """
    _count_all(input_shape=input_shape, classes=[classes], width=[width])
    keys = iter(jax.random.split(key, 32))

    def conv(n: int, m: int, size: int = 3, stride: int = 1) -> Conv:
        return Conv(n, m, size, stride=stride, bias=False, init="he-normal", key=next(keys))

    def norm(n: int, activation: str = "identity") -> Norm:
        return Norm(n, groups=math.gcd(8, n), activation=activation)

    def block(n: int, m: int, stride: int) -> Residual:
        body = [conv(n, m, stride=stride), norm(m, "relu"), conv(m, m), norm(m)]
        shortcut = [] if n == m else [conv(n, m, size=1, stride=stride), norm(m)]
        return Residual(body, shortcut=shortcut, activation="relu")

    stages = [conv(input_shape[-1], width), norm(width, "relu")]
    channels = width
    for third in range(3):
        for position in range(3):
            outgoing = width * 2**third
            stages.append(block(channels, outgoing, stride=2 if third and not position else 1))
            channels = outgoing
    stages += [GlobalMean(), Dense(channels, classes, key=next(keys))]
    return Chain(stages, input_shape=input_shape)


def elman(
    features: int = 28,
    units: int = 128,
    classes: int = 10,
    *,
    steps: int = 28,
    activation: str | Activation = "tanh",
    sequence: bool = False,
    key: Key[Array, ""],
) -> Chain:
    """An Elman network that reads a sequence and answers at its end, such as the 28 rows of an MNIST image.

    Args:
        features: features of one time step.
        units: recurrent units.
        classes: outputs.
        steps: length of the sequences, needed only to size the input.
        activation: nonlinearity of the recurrent units.
        sequence: answer at every step, (batch, steps, classes), instead of the last one.
        key: random key for the weights.

    Raises:
        ValueError: a size is not a positive integer.
    """
    _count_all(features=[features], units=[units], classes=[classes], steps=[steps])
    key_recurrent, key_output = jax.random.split(key)
    return Chain(
        [
            Elman(features, units, activation=activation, sequence=sequence, key=key_recurrent),
            Dense(units, classes, key=key_output),
        ],
        input_shape=(steps, features),
    )
