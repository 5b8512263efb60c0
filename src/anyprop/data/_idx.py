"""The IDX format of MNIST and its kin: a big-endian header, then bytes."""

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
from jaxtyping import UInt8


def read_idx(path: Path) -> UInt8[np.ndarray, "n ..."]:
    """Read one gzipped IDX file of unsigned bytes, whole or not at all.

    Args:
        path: the `.gz` file.

    Returns:
        The array, with the shape that the header states.

    Raises:
        ValueError: the gzip stream is broken or cut, the header is not that of an IDX file of unsigned
            bytes, or the number of bytes is not what the header says.
    """
    try:
        with gzip.open(path) as file:
            raw = file.read()
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path} is not a whole gzip file ({error}): delete it and fetch it again") from error
    # Two zero bytes, the type (8 is unsigned byte), the number of axes, then each axis as a 32-bit integer.
    axes = raw[3] if len(raw) >= 4 and raw[:3] == b"\0\0\x08" else 0
    header = 4 + 4 * axes
    if axes == 0 or len(raw) < header:
        raise ValueError(f"{path} is not an IDX file of unsigned bytes: its header reads {raw[:4]!r}")
    shape = struct.unpack(f">{axes}I", raw[4:header])
    if len(raw) - header != math.prod(shape):
        raise ValueError(
            f"{path} holds {len(raw) - header} bytes where its header, shape {shape}, says "
            f"{math.prod(shape)}: delete it and fetch it again"
        )
    return np.frombuffer(raw, np.uint8, offset=header).reshape(shape)
