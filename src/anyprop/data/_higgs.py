"""HIGGS (Baldi, Sadowski and Whiteson, 2014): a gzipped CSV, a label and 28 features in each row.

No checksum of the file is published, so it is read strictly instead: every row must hold 29 finite
numbers, of which the first is 0 or 1, and the gzip stream must be whole. Parsing the published
11,000,000 rows takes minutes; the result is kept in the user's cache.
"""

import gzip
import itertools
import os
import tempfile
import zlib
from pathlib import Path

import numpy as np
import pooch
from jaxtyping import Float32

from . import _source
from ._source import Arrays

_COLUMNS = 29
_CHUNK = 50_000  # rows parsed at once: bounds the memory that text takes
_PUBLISHED_ROWS = 11_000_000
_PUBLISHED_TEST = 500_000  # the last rows of the published file are its test set
_TEST = 5_000  # held out of any other file


def read_higgs(files: tuple[Path, ...], seed: int) -> Arrays:
    """Read HIGGS and split its rows.

    Args:
        files: the CSV file.
        seed: of the permutation of the rows. The published file keeps its own test rows, so there
            only the training rows are permuted.

    Returns:
        The training and test splits; the first label is the column before the features.
    """
    (path,) = files
    rows = parse(path)
    if len(rows) <= _TEST:
        raise ValueError(f"{path} holds {len(rows)} rows: more than {_TEST}, the size of the test split, are needed")
    order = np.random.default_rng(seed).permutation
    if len(rows) == _PUBLISHED_ROWS:
        train = order(len(rows) - _PUBLISHED_TEST)
        test = np.arange(len(rows) - _PUBLISHED_TEST, len(rows))
    else:
        train, test = np.split(order(len(rows)), [-_TEST])
    labels, features = rows[:, 0].astype(np.int32), rows[:, 1:]
    return {name: (features[index], labels[index]) for name, index in (("train", train), ("test", test))}


def parse(path: Path) -> Float32[np.ndarray, "rows 29"]:
    """Return the rows of a HIGGS file, from the cache if this very file was parsed before.

    Args:
        path: the gzipped CSV file.

    Raises:
        ValueError: the gzip stream is cut or broken, or a row is not a label and 28 finite numbers.
    """
    folder = _source.cache_folder("higgs")
    source = pooch.file_hash(str(path))[:32]
    # The name of a parsed file carries the checksums of what it was made from and of what it holds: a
    # broken one does not match its own name, and is made anew.
    for cached in folder.glob(f"parsed-{source}-*.npy"):
        if cached.name == _cache_name(source, cached):
            return np.load(cached, allow_pickle=False)
    rows = _parse(path)
    _keep(rows, source, folder)
    return rows


def _cache_name(source: str, parsed: Path) -> str:
    return f"parsed-{source}-{pooch.file_hash(str(parsed))[:32]}.npy"


def _keep(rows: np.ndarray, source: str, folder: Path) -> None:
    partial = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".parsed-", delete=False) as file:
            partial = Path(file.name)
            np.save(file, rows)
        os.replace(partial, folder / _cache_name(source, partial))
    except OSError:  # a full or read-only disk costs time at the next load, and nothing else
        if partial is not None:
            partial.unlink(missing_ok=True)


def _parse(path: Path) -> Float32[np.ndarray, "rows 29"]:
    blocks: list[np.ndarray] = []
    first = 1
    try:
        with gzip.open(path, "rt", encoding="ascii") as file:
            while lines := list(itertools.islice(file, _CHUNK)):
                blocks.append(_parse_rows(lines, first, path))
                first += len(lines)
    except (EOFError, gzip.BadGzipFile, zlib.error, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a whole gzipped text ({error}): delete it, then fetch it again") from error
    if not blocks:
        raise ValueError(f"{path} holds no rows: delete it, then fetch it again")
    return np.concatenate(blocks)


def _parse_rows(lines: list[str], first: int, path: Path) -> Float32[np.ndarray, "rows 29"]:
    where = f"{path}, rows {first} to {first + len(lines) - 1}"
    # `loadtxt` skips empty lines, which no whole file has.
    if any(not line.strip() for line in lines):
        raise ValueError(f"{where}: an empty row")
    try:
        rows = np.loadtxt(lines, np.float32, delimiter=",", comments=None, ndmin=2)
    except ValueError as error:
        raise ValueError(f"{where}: not rows of {_COLUMNS} numbers ({error})") from error
    if rows.shape[1] != _COLUMNS:
        raise ValueError(f"{where}: {rows.shape[1]} columns, not a label and 28 features")
    if not np.isfinite(rows).all():
        raise ValueError(f"{where}: a number that is not finite")
    if not np.isin(rows[:, 0], (0, 1)).all():
        raise ValueError(f"{where}: a label, the first column, that is neither 0 nor 1")
    return rows
