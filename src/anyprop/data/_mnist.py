"""MNIST, which ships inside the package.

Y. LeCun, C. Cortes and C. J. C. Burges, CC BY-SA 3.0. `_pack_mnist.py` says how the file was made.
"""

import functools
import lzma
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from ._source import Arrays

PACKAGED = Path(__file__).parent / "mnist.xz"
SHA256 = "6d199c57e8b8d7c92d01353c9cd83dc4f448424f429a3f53b826e62227e2a21d"
_STREAMS = (
    4_602_080,
    4_630_904,
    29_060,
)  # bytes of each xz stream: half of the images, the other half, the labels
_TRAIN = 60_000


def read_mnist(files: tuple[Path, ...], seed: int) -> Arrays:
    """Decode the packaged file, whose checksum has been verified."""
    del seed
    images, labels = _decode(*files)
    return {"train": (images[:_TRAIN], labels[:_TRAIN]), "test": (images[_TRAIN:], labels[_TRAIN:])}


# Decoded once a process: comparisons and test suites load MNIST many times.
@functools.cache
def _decode(path: Path) -> tuple[UInt8[np.ndarray, "n 28 28 1"], UInt8[np.ndarray, " n"]]:
    packed = path.read_bytes()
    ends = np.cumsum(_STREAMS)
    streams = [packed[end - size : end] for end, size in zip(ends, _STREAMS, strict=True)]
    # lzma lets go of the interpreter lock, so two streams take the time of one.
    with ThreadPoolExecutor() as pool:
        *images, labels = pool.map(lzma.decompress, streams)
    return np.frombuffer(b"".join(images), np.uint8).reshape(-1, 28, 28, 1), np.frombuffer(labels, np.uint8)
