"""The binary versions of CIFAR-10 and CIFAR-100: records of label bytes and three colour planes."""

import tarfile
import zlib
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from ._source import Arrays

_PIXELS = 3 * 32 * 32


def read_cifar10(files: tuple[Path, ...], seed: int) -> Arrays:
    """Read CIFAR-10 from its six `.bin` files, the test batch last, or from the published archive."""
    del seed
    if len(files) == 1:
        names = [f"data_batch_{i}.bin" for i in range(1, 6)] + ["test_batch.bin"]
        raw = _members(files[0], names)
    else:
        raw = [path.read_bytes() for path in files]
    *train, test = (_records(part, label_bytes=1) for part in raw)
    images, labels = zip(*train, strict=True)
    return {"train": (np.concatenate(images), np.concatenate(labels)), "test": test}


def read_cifar100(files: tuple[Path, ...], seed: int) -> Arrays:
    """Read CIFAR-100 with its 100 fine labels from the published archive."""
    del seed
    train, test = _members(files[0], ["train.bin", "test.bin"])
    return {"train": _records(train, label_bytes=2), "test": _records(test, label_bytes=2)}


def _members(path: Path, names: list[str]) -> list[bytes]:
    """Read files out of a gzipped archive by their base names, without unpacking it."""
    found: dict[str, bytes] = {}
    try:
        # One pass: seeking back in a gzip stream would decompress it again.
        with tarfile.open(path, "r|gz") as archive:
            for member in archive:
                file = archive.extractfile(member) if member.isfile() else None
                if file is not None:
                    found[Path(member.name).name] = file.read()
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise ValueError(f"{path} is not a whole .tar.gz archive ({error}): delete it and fetch it again") from error
    missing = [name for name in names if name not in found]
    if missing:
        raise ValueError(f"{path} lacks {', '.join(missing)}: delete it and fetch it again")
    return [found[name] for name in names]


def _records(raw: bytes, label_bytes: int) -> tuple[UInt8[np.ndarray, "n 32 32 3"], UInt8[np.ndarray, " n"]]:
    size = label_bytes + _PIXELS
    if not raw or len(raw) % size:
        raise ValueError(f"a CIFAR file of {len(raw)} bytes is not whole: its records take {size} bytes each")
    records = np.frombuffer(raw, np.uint8).reshape(-1, size)
    # The file holds red, green and blue planes; nets take channels last. The fine label is the last one.
    planes = records[:, label_bytes:].reshape(-1, 3, 32, 32)
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), records[:, label_bytes - 1].copy()
