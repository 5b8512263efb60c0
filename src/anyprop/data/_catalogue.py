"""The data sets known by name. A new one is a row here and a function that reads its files."""

import dataclasses
from pathlib import Path

from .._checks import choose
from . import _source
from ._cifar import read_cifar10, read_cifar100
from ._higgs import parse, read_higgs
from ._idx import read_idx
from ._mnist import PACKAGED, SHA256, read_mnist
from ._source import Arrays, DataSet, FileReport, Place, Remote

_FASHION = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
_TORONTO = "https://www.cs.toronto.edu/~kriz/"
_CIFAR10 = (
    ("data_batch_1.bin", "5dd7e06a14cb22eb9f671a540d1b7c25"),
    ("data_batch_2.bin", "5ea93a67294ea407fff1d09f752e9692"),
    ("data_batch_3.bin", "942cd6a4bcdd0dd3c604fbe906cb4421"),
    ("data_batch_4.bin", "ae636b3ba5c66a11e91e8cb52e771fcb"),
    ("data_batch_5.bin", "53f37980c15c3d472c316c40844f3f0d"),
    ("test_batch.bin", "803d5f7f4d78ea53de84dbe85f74fb6d"),
)


def _read_fashion(files: tuple[Path, ...], seed: int) -> Arrays:
    del seed
    train_x, train_y, test_x, test_y = map(read_idx, files)
    return {"train": (train_x[..., None], train_y), "test": (test_x[..., None], test_y)}


DATASETS = {
    dataset.name: dataset
    for dataset in (
        DataSet(
            name="mnist",
            shape=(28, 28, 1),
            classes=10,
            examples=70_000,
            licence="CC BY-SA 3.0, Y. LeCun and C. Cortes",
            source_url="http://yann.lecun.com/exdb/mnist/",
            layouts=((Remote(PACKAGED.name, checksum=f"sha256:{SHA256}"),),),
            read=read_mnist,
            folder=PACKAGED.parent,
        ),
        DataSet(
            name="fashion-mnist",
            shape=(28, 28, 1),
            classes=10,
            examples=70_000,
            licence="MIT, Zalando SE",
            source_url="https://github.com/zalandoresearch/fashion-mnist",
            layouts=(
                tuple(
                    Remote(name, _FASHION + name, f"md5:{md5}")
                    for name, md5 in (
                        ("train-images-idx3-ubyte.gz", "8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
                        ("train-labels-idx1-ubyte.gz", "25c81989df183df01b3e8a0aad5dffbe"),
                        ("t10k-images-idx3-ubyte.gz", "bef4ecab320f06d8554ea6380940ec79"),
                        ("t10k-labels-idx1-ubyte.gz", "bb300cfdad3c16e7a12a480ee83cd310"),
                    )
                ),
            ),
            read=_read_fashion,
        ),
        DataSet(
            name="cifar10",
            shape=(32, 32, 3),
            classes=10,
            examples=60_000,
            licence="none stated; cite A. Krizhevsky (2009)",
            source_url="https://www.cs.toronto.edu/~kriz/cifar.html",
            layouts=(
                (
                    Remote(
                        "cifar-10-binary.tar.gz",
                        _TORONTO + "cifar-10-binary.tar.gz",
                        "md5:c32a1d4ab5d03f1284b67883e8d87530",
                    ),
                ),
                tuple(Remote(f"cifar-10-batches-bin/{name}", checksum=f"md5:{md5}") for name, md5 in _CIFAR10),
            ),
            read=read_cifar10,
        ),
        DataSet(
            name="cifar100",
            shape=(32, 32, 3),
            classes=100,
            examples=60_000,
            licence="none stated; cite A. Krizhevsky (2009)",
            source_url="https://www.cs.toronto.edu/~kriz/cifar.html",
            layouts=(
                (
                    Remote(
                        "cifar-100-binary.tar.gz",
                        _TORONTO + "cifar-100-binary.tar.gz",
                        "md5:03b5dce01913d631647c71ecec9e9cb8",
                    ),
                ),
            ),
            read=read_cifar100,
        ),
        DataSet(
            name="higgs",
            shape=(28,),
            classes=2,
            examples=11_000_000,
            licence="CC BY 4.0, D. Whiteson",
            source_url="https://archive.ics.uci.edu/dataset/280/higgs",
            layouts=(
                (
                    Remote(
                        "HIGGS.csv.gz",
                        "https://archive.ics.uci.edu/ml/machine-learning-databases/00280/HIGGS.csv.gz",
                    ),
                ),
            ),
            read=read_higgs,
            validate=parse,
        ),
    )
}


@dataclasses.dataclass(frozen=True)
class Listing:
    """One row of `available`.

    Args:
        name: what to pass to `load`.
        shape: shape of one example.
        classes: number of classes.
        examples: number of published examples, all splits together.
        licence: under which it is published, and by whom.
        source_url: where its authors describe it.
        status: "in the package", "on this machine" (see `where`) or "to be fetched".
    """

    name: str
    shape: tuple[int, ...]
    classes: int
    examples: int
    licence: str
    source_url: str
    status: str


def lookup(name: str) -> DataSet:
    """Return a data set by name; raise `ValueError` with the nearest names if there is none."""
    return DATASETS[choose("data set", name, DATASETS)]


def available() -> list[Listing]:
    """Return what `load` knows by name, and what of it is on this machine; no file is read."""
    return [
        Listing(
            dataset.name,
            dataset.shape,
            dataset.classes,
            dataset.examples,
            dataset.licence,
            dataset.source_url,
            "to be fetched"
            if _source.find(dataset) is None
            else "on this machine"
            if dataset.folder is None
            else "in the package",
        )
        for dataset in DATASETS.values()
    ]


def fetch(name: str) -> tuple[Path, ...]:
    """Download a data set into the user's cache, unless it is on this machine already.

    Every file is checked before it gets its name, so that a broken download leaves nothing behind.

    Args:
        name: of the data set.

    Returns:
        The checked files.

    Raises:
        ValueError: unknown data set, or a truncated or altered file.
        FileNotFoundError: it could not be downloaded; the message names every place that was looked at.
    """
    dataset = lookup(name)
    files = _source.obtain(dataset)
    if dataset.validate is not None:
        for path in files:
            dataset.validate(path)
    return files


def verify(name: str) -> list[FileReport]:
    """Check the files of a data set against their published checksums, or read them whole.

    Args:
        name: of the data set.

    Returns:
        One report a file of those that are on this machine; empty if there is none.

    Raises:
        ValueError: unknown data set.
    """
    dataset = lookup(name)
    reports = []
    for folder in _source.folders(dataset):
        for file in (file for layout in dataset.layouts for file in layout):
            path = folder / file.name
            if path.is_file():
                try:
                    _source.check(dataset, file, path)
                except ValueError as error:
                    reports.append(FileReport(path, False, str(error)))
                else:
                    reports.append(FileReport(path, True))
    return reports


def where(name: str) -> list[Place]:
    """Return every path where the files of a data set are looked for, in order, and which are there.

    Args:
        name: of the data set.

    Raises:
        ValueError: unknown data set.
    """
    return _source.places(lookup(name))
