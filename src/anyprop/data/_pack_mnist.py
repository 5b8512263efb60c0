"""How the packaged `mnist.xz` was made: run once, kept so that anybody can make it again.

    python -m anyprop.data._pack_mnist FOLDER

`FOLDER` holds the four original `*-ubyte.gz` files. The result is written beside this file, and the
two constants that `_mnist.py` must carry are printed. Unpacked (`xz -dc mnist.xz`) it is the 70,000
images (training, then test), each 784 bytes, followed by the 70,000 labels, one byte each.

Measured on 2 cores, all 70,000 images, standard library only (the gzip originals take 11.6 MB):

====================================  ========  ==================
encoding                              size      decoding
====================================  ========  ==================
zlib, level 9                         11.2 MB   0.30 s
bz2                                   9.8 MB    0.99 s
xz, one stream, 4 literal bits        9.1 MB    0.62 s
xz, bit mask + non-zero bytes apart   8.8 MB    0.5 s and a scatter
xz, 4 streams in threads              9.4 MB    0.29 s
xz, 2 streams in threads (chosen)     9.3 MB    0.29 s
====================================  ========  ==================

Zip with LZMA members, readable by `numpy.load`, is 9.5 MB and 0.35 s. Transposing images costs 2 %.
"""

import hashlib
import lzma
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from ._idx import read_idx
from ._mnist import PACKAGED

# One byte a pixel: no alignment to exploit (pb = lp = 0), and the byte above predicts the next (lc = 4).
_FILTERS = [
    {
        "id": lzma.FILTER_LZMA2,
        "preset": 9 | lzma.PRESET_EXTREME,
        "dict_size": 1 << 25,
        "lc": 4,
        "lp": 0,
        "pb": 0,
    }
]


def _pack(folder: Path) -> None:
    train, test, train_labels, test_labels = (
        read_idx(folder / name)
        for name in (
            "train-images-idx3-ubyte.gz",
            "t10k-images-idx3-ubyte.gz",
            "train-labels-idx1-ubyte.gz",
            "t10k-labels-idx1-ubyte.gz",
        )
    )
    images = np.concatenate([train, test])
    half = len(images) // 2
    parts = (images[:half], images[half:], np.concatenate([train_labels, test_labels]))
    with ThreadPoolExecutor() as pool:
        streams = list(pool.map(lambda part: lzma.compress(part.tobytes(), filters=_FILTERS), parts))
    packed = b"".join(streams)
    PACKAGED.write_bytes(packed)
    print("_STREAMS =", tuple(len(stream) for stream in streams))
    print("SHA256 =", hashlib.sha256(packed).hexdigest())


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    _pack(Path(sys.argv[1]))
