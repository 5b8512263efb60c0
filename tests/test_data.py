"""What `load` returns, and how raw examples become what a net takes."""

import hashlib
import struct

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import anyprop
from anyprop import data as ap_data
from anyprop.data import Data, Split, Transform, load


@pytest.fixture(scope="module")
def mnist() -> Data:
    return load("mnist")


def colour(n=40, size=8, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 256, (n, size, size, 3), dtype=np.uint8)
    return x, (np.arange(n) % 4).astype(np.int64)


def arrays(n=40, features=5):
    rng = np.random.default_rng(1)
    x = rng.normal(3.0, 2.0, (n, features))
    return x, np.arange(n) % 3


# --- MNIST, from the package -----------------------------------------------------------------------

# Of the original files, uncompressed.
IDX_SHA256 = {
    "train-images": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "test-images": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "test-labels": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}


@pytest.mark.parametrize("split", ["train", "test"])
def test_packaged_mnist_is_the_original_bit_for_bit(mnist, split):
    x, y = mnist.split(split).x, mnist.split(split).y
    images = struct.pack(">4I", 0x803, len(x), 28, 28) + x.tobytes()
    labels = struct.pack(">2I", 0x801, len(y)) + y.astype(np.uint8).tobytes()
    assert hashlib.sha256(images).hexdigest() == IDX_SHA256[f"{split}-images"]
    assert hashlib.sha256(labels).hexdigest() == IDX_SHA256[f"{split}-labels"]


def test_mnist_is_what_its_listing_says(mnist):
    (listing,) = (row for row in ap_data.available() if row.name == "mnist")
    assert mnist.shape == listing.shape == (28, 28, 1)
    assert mnist.classes == listing.classes == 10
    assert len(mnist.train) + len(mnist.test) == listing.examples
    assert listing.status == "in the package"
    assert mnist.validation is None
    assert mnist.train.x.dtype == np.uint8
    assert mnist.train.y.dtype == np.int32


def test_validation_holds_out_the_last_training_examples(mnist):
    held = load("mnist", validation=10_000, train_size=1_000)
    assert [len(held.split(name)) for name in ("train", "validation", "test")] == [1_000, 10_000, 10_000]
    np.testing.assert_array_equal(held.validation.x, mnist.train.x[50_000:])
    np.testing.assert_array_equal(held.validation.y, mnist.train.y[50_000:])
    np.testing.assert_array_equal(held.train.y, mnist.train.y[:1_000])


# --- transform and shapes --------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(28, 28, 1), (784,), (28, 28), (784, 1)])
def test_one_image_in_every_shape(mnist, shape):
    raw = mnist.train.x[:3]
    shaped = mnist.shaped(shape)
    assert shaped.shape == (28, 28, 1)
    out = eqx.filter_jit(shaped.transform)(raw)
    assert out.shape == (3, *shape)
    assert out.dtype == jnp.float32
    np.testing.assert_allclose(out.reshape(3, -1), raw.reshape(3, -1) / np.float32(255), rtol=1e-6)
    assert out.max() <= 1


def test_shaped_refuses_sizes_that_do_not_fit(mnist):
    with pytest.raises(ValueError, match=r"sizes that do not fit.*\(28, 28, 1\).*\(100,\).*784"):
        mnist.shaped((100,))
    with pytest.raises(ValueError, match="sizes that do not fit"):
        mnist.shaped((-28, -28))


def test_shaped_refuses_to_scramble_colours():
    data = load({"train": colour()})
    with pytest.raises(ValueError, match="channels first"):
        data.shaped((3, 8, 8))
    assert data.shaped((192,)).transform(data.train.x).shape == (40, 192)


def test_standardise_takes_one_number_for_grey_images(mnist):
    data = load("mnist", standardise=True, validation=10_000, train_size=5_000)
    values = mnist.train.x[:5_000] / 255
    assert data.transform.mean.shape == ()
    np.testing.assert_allclose(data.transform.mean, values.mean(), rtol=1e-5)
    np.testing.assert_allclose(data.transform.std, values.std(), rtol=1e-5)


def test_standardise_takes_one_number_for_a_channel():
    x, y = colour(3000)  # more rows than are averaged at once
    x[..., 2] //= 4
    data = load({"train": (x, y), "test": colour(seed=1)}, standardise=True)
    assert data.transform.mean.shape == (3,)
    out = np.asarray(data.transform(data.train.x))
    np.testing.assert_allclose(out.mean((0, 1, 2)), 0, atol=1e-4)
    np.testing.assert_allclose(out.std((0, 1, 2)), 1, atol=1e-4)


def test_standardise_takes_one_number_for_a_feature_of_the_training_split_only():
    x, y = arrays()
    x[:, 2] = 7.0  # never changes: must not be divided by zero
    data = load({"train": (x, y), "test": (x + 100, y)}, standardise=True)
    out = np.asarray(data.transform(data.train.x))
    np.testing.assert_allclose(out.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(out.std(0), [1, 1, 0, 1, 1], atol=1e-5)


def test_nothing_is_float64_even_where_jax_may_use_it():
    x, y = arrays()
    with jax.enable_x64(True):
        data = load({"train": (x, y)}, standardise=True)
        assert data.train.x.dtype == np.float32
        assert data.transform(data.train.x).dtype == jnp.float32
        assert data.one_hot(data.train.y).dtype == jnp.float32
        assert load({"train": (x, x)}).train.y.dtype == np.float32


def test_one_hot():
    data = load({"train": arrays()})
    np.testing.assert_array_equal(data.one_hot(np.array([2, 0])), [[0, 0, 1], [1, 0, 0]])
    x, _ = arrays()
    targets = load({"train": (x, x)})
    assert targets.classes is None
    with pytest.raises(ValueError, match="float targets"):
        targets.one_hot(np.array([0]))


@pytest.mark.parametrize("standardise", [False, True])
def test_reconstruct_asks_for_the_examples_themselves(standardise):
    data = load({"train": colour(), "test": colour(seed=1)}, standardise=standardise, validation=8, reconstruct=True)
    assert data.classes is None
    for name, examples in (("train", 32), ("validation", 8), ("test", 40)):
        split = data.split(name)
        assert split.x.dtype == np.uint8  # no second copy of the images as floats
        assert split.y.shape == (examples, 8 * 8 * 3)
        np.testing.assert_allclose(split.y, data.shaped((192,)).transform(split.x), rtol=1e-6, atol=1e-7)


def test_reconstruct_and_augmentation_contradict_each_other():
    with pytest.raises(ValueError, match=r"reconstruct=True .* augmentation=\(\)"):
        load({"train": colour()}, augmentation=("flip",), reconstruct=True)


def test_rows_with_a_single_one_are_labels():
    x, y = arrays()
    rows = np.eye(4)[y]  # of a class that is nowhere, there is a column
    labels, one_hot = (load({"train": (x, answers), "test": (x, answers)}) for answers in (y, rows))
    assert one_hot.classes == 4
    np.testing.assert_array_equal(one_hot.train.y, rows)
    np.testing.assert_array_equal(one_hot.one_hot(one_hot.train.y), rows)
    np.testing.assert_array_equal(one_hot.one_hot(y), rows)
    net = anyprop.nets.mlp(5, 4, key=jax.random.key(0))
    records = [
        anyprop.fit(anyprop.Backprop(), net, data, epochs=1, batch_size=10, alignment=False, progress=False).records[-1]
        for data in (labels, one_hot)
    ]
    assert records[1]["test_error"] == records[0]["test_error"]
    assert records[1]["train_error"] == records[0]["train_error"] > 0


@pytest.mark.parametrize(
    "answers",
    [
        np.eye(3)[[0, 1, 2, 0]] * [[1.0], [1.0], [1.0], [0.5]],
        np.array([[0, 1.0], [0, 0], [1, 1], [1, 0]]),
        np.array([[-1.0, 1], [1, -1], [1, -1], [1, -1]]),
        np.array([[2.0, -1], [1, 0], [1, 0], [1, 0]]),
        np.ones((4, 1)),
    ],
)
def test_other_rows_are_targets(answers):
    x = np.zeros((4, 5))
    assert load({"train": (x, answers)}).classes is None
    assert load({"train": (x, np.eye(answers.shape[1])[[0] * 4]), "test": (x, answers)}).classes is None


def test_splits_by_name(mnist):
    assert mnist.split("test") is mnist.test
    with pytest.raises(ValueError, match=r"no split 'validation', only 'train', 'test'.*validation="):
        mnist.split("validation")
    with pytest.raises(ValueError, match="tset"):
        mnist.split("tset")


def test_arrays_are_read_only_and_the_callers_stay_writable():
    x, y = colour()
    data = load({"train": (x, y)})
    with pytest.raises(ValueError, match="read-only"):
        data.train.x[0] = 0
    x[0] = 0


# --- augmentation ----------------------------------------------------------------------------------


def test_no_augmentation_is_the_identity(mnist):
    x = mnist.train.x[:4]
    np.testing.assert_array_equal(mnist.augment(x, key=jax.random.key(0)), x)


def test_flip_mirrors_about_half_of_the_images():
    x, y = colour(200)
    data = load({"train": (x, y)}, augmentation=("flip",))
    out = np.asarray(jax.jit(data.augment)(x, key=jax.random.key(0)))
    same = (out == x).all((1, 2, 3))
    mirrored = (out == x[:, :, ::-1]).all((1, 2, 3))
    assert (same | mirrored).all()
    assert 60 < mirrored.sum() < 140


def test_crop_is_a_window_of_the_padded_image():
    x, y = colour(200)
    data = load({"train": (x, y)}, augmentation=("crop",))
    out = np.asarray(jax.jit(data.augment)(x, key=jax.random.key(0)))
    assert out.dtype == np.uint8
    padded = np.pad(x, ((0, 0), (4, 4), (4, 4), (0, 0)))
    corners = set()
    for image, window in zip(padded, out, strict=True):
        at = [(i, j) for i in range(9) for j in range(9) if (image[i : i + 8, j : j + 8] == window).all()]
        assert at
        corners.add(at[0])
    assert {i for i, _ in corners} == set(range(9)) == {j for _, j in corners}
    again = jax.jit(data.augment)(x, key=jax.random.key(0))
    np.testing.assert_array_equal(out, again)
    assert (out != np.asarray(data.augment(x, key=jax.random.key(1)))).any()


def test_augmentation_is_refused_where_it_means_nothing():
    with pytest.raises(ValueError, match=r"height, width, channels.*\(5,\)"):
        load({"train": arrays()}, augmentation=("flip",))
    with pytest.raises(ValueError, match=r"flop.*flip"):
        load({"train": colour()}, augmentation=("flop",))
    with pytest.raises(ValueError, match=r"pass \('flip',\)"):
        load({"train": colour()}, augmentation="flip")


# --- fingerprint -----------------------------------------------------------------------------------


def test_fingerprint_tells_data_apart(mnist):
    x, y = colour()
    changed = x.copy()
    changed[3, 2, 1, 0] ^= 1
    relabelled = y.copy()
    relabelled[0] = 3
    base = load({"train": (x, y)})
    others = [
        load({"train": (changed, y)}),
        load({"train": (x, relabelled)}),
        load({"train": (x, y), "test": (x, y)}),
        load({"train": (x, y), "validation": (x, y)}),
        load({"train": (x, y)}, standardise=True),
        load({"train": (x, y)}, augmentation=("flip",)),
        load({"train": (x, y)}, train_size=39),
        base.shaped((192,)),
        mnist,
    ]
    prints = [data.fingerprint() for data in (base, *others)]
    assert len(set(prints)) == len(prints)
    assert load({"train": (x.copy(), y.copy())}).fingerprint() == base.fingerprint()


# --- a user's own data -----------------------------------------------------------------------------


def batches(x, y, size=7):
    for i in range(0, len(x), size):
        yield x[i : i + size], list(y[i : i + size])


@pytest.mark.parametrize("form", ["tuple", "mapping", "batches", "npz", "folder"])
def test_the_same_arrays_in_every_form(form, tmp_path):
    x, y = arrays()
    named = {"x_train": x, "y_train": y, "x_test": x[:9], "y_test": y[:9]}
    if form == "npz":
        np.savez(tmp_path / "mine.npz", **named)
        source = tmp_path / "mine.npz"
    elif form == "folder":
        for name, array in named.items():
            np.save(tmp_path / f"{name}.npy", array)
        np.save(tmp_path / "unrelated.npy", np.array([{}]))  # a pickle, and none of our business
        source = str(tmp_path)
    else:
        source = {
            "tuple": (x, y, jnp.asarray(x[:9]), jnp.asarray(y[:9])),
            "mapping": {"train": (x, y), "test": [x[:9], y[:9]]},
            "batches": batches(x, y),
        }[form]
    data = load(source, validation=10)
    np.testing.assert_array_equal(data.train.x, x[:30].astype(np.float32))
    np.testing.assert_array_equal(data.validation.y, y[30:])
    assert (data.test is None) == (form == "batches")
    assert data.classes == 3
    assert data.shape == (5,)
    np.testing.assert_array_equal(data.transform(data.train.x), data.train.x)


def test_npz_may_bring_its_own_validation_split(tmp_path):
    x, y = arrays()
    path = tmp_path / "mine.npz"
    np.savez(path, x_train=x, y_train=y, x_test=x, y_test=y, x_validation=x[:5], y_validation=y[:5])
    assert len(load(path).validation) == 5
    with pytest.raises(ValueError, match="validation split of 5"):
        load(path, validation=3)


X, Y = arrays()
NAN = np.where(np.arange(40)[:, None] == 7, np.nan, X)
BAD = {
    "NaN": ({"train": (NAN, Y)}, "x_train .*NaN.*example 7"),
    "infinite": ({"train": (X, Y), "test": (np.full_like(X, np.inf), Y)}, "x_test .*infinite"),
    "beyond float32": ({"train": (X * 1e300, Y)}, "x_train .*too large"),
    "NaN target": ({"train": (X, NAN)}, "y_train .*NaN"),
    "float labels": ({"train": (X, Y.astype(float))}, "y_train .*integers"),
    "negative label": ({"train": (X, Y - 1)}, "y_train .*negative label -1"),
    "label out of range": ({"train": (X, Y), "test": (X, Y + 1)}, "y_test .*label 3, out of range for 3"),
    "one-hot integers": ({"train": (X, np.eye(3, dtype=int)[Y])}, "y_train holds integers"),
    "lengths": ({"train": (X, Y[:-1])}, "x_train holds 40 examples and y_train 39"),
    "empty": ({"train": (X, Y), "validation": (X[:0], Y[:0])}, "x_validation is empty"),
    "no batch axis": ({"train": (X[:, 0], Y)}, r"x_train has shape \(40,\)"),
    "complex": ({"train": (X + 1j, Y)}, "x_train holds complex"),
    "strings": ({"train": (X.astype(str), Y)}, "x_train holds <U"),
    "objects": ({"train": (X.astype(object), Y)}, "x_train holds object"),
    "shapes differ": ({"train": (X, Y), "test": (X[:, :4], Y)}, r"x_test .*\(4,\).*\(5,\)"),
    "types differ": ({"train": (X, Y), "test": (X.astype(np.uint8), Y)}, "x_test .*uint8"),
    "answers differ": ({"train": (X, Y), "test": (X, X)}, "y_test .*float32"),
    "unknown split": ({"train": (X, Y), "dev": (X, Y)}, "dev"),
    "no training split": ({"test": (X, Y)}, "'train'"),
    "no pair": ({"train": X}, "not a pair"),
    "one array": (X, "ndarray"),
    "no batches": (iter([]), "no batches"),
    "batches differ": ([(X, Y), (X[:, :4], Y)], "batch 1"),
    "misspelt": ("fashion-mnits", "fashion-mnist"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named(case):
    source, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        load(source)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"validation": 40}, "validation=40 must be below .*40"),
        ({"validation": 0}, "validation"),
        ({"validation": -1}, "validation"),
        ({"train_size": 0}, "train_size"),
        ({"train_size": 31, "validation": 10}, "train_size=31 .*30"),
    ],
)
def test_bad_sizes_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        load({"train": (X, Y)}, **arguments)


def test_files_that_are_missing_or_broken(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.npz"):
        load(tmp_path / "nothing.npz")
    path = tmp_path / "mine.npz"
    np.savez(path, x_train=X, y_train=Y, x_test=X)
    with pytest.raises(FileNotFoundError, match="lacks y_test"):
        load(path)
    np.savez(path, x_train=X, y_train=Y, x_test=X, y_test=Y)
    whole = path.read_bytes()
    path.write_bytes(whole[:-200])
    with pytest.raises(ValueError, match=r"mine\.npz is not a whole"):
        load(path)
    altered = bytearray(whole)
    altered[400] ^= 1
    path.write_bytes(altered)
    with pytest.raises(ValueError, match=r"x_train in .*mine\.npz is not a whole"):
        load(path)
    np.save(tmp_path / "single.npy", X)
    with pytest.raises(ValueError, match="single array"):
        load(tmp_path / "single.npy")


def test_pickles_are_refused(tmp_path):
    path = tmp_path / "mine.npz"
    np.savez(path, x_train=X.astype(object), y_train=Y, x_test=X, y_test=Y)
    with pytest.raises(ValueError, match=r"x_train in .*plain array"):
        load(path)


def test_data_can_be_made_by_hand():
    split = Split(X.astype(np.float32), Y.astype(np.int32))
    data = Data(
        "mine",
        split,
        None,
        None,
        3,
        (5,),
        Transform(2.0, np.full(5, 1, np.float32), np.full(5, 2, np.float32), (5, 1)),
    )
    np.testing.assert_allclose(data.transform(split.x)[..., 0], (split.x * 2 - 1) / 2, rtol=1e-6)
    with pytest.raises((ValueError, TypeError), match="40"):  # TypeError: shapes are checked in tests
        Split(X.astype(np.float32), Y[:-1].astype(np.int32))
