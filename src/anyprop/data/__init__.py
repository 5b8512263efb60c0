"""Data to learn from: MNIST in the package, other benchmarks found or fetched, and your own arrays.

    data = anyprop.data.load("mnist", validation=10_000)
    x = data.transform(data.train.x[:100])

Nothing here is random but what a key or a seed says, no pickle is ever loaded, and a file that is
truncated or altered is refused.
"""

from ._catalogue import Listing, available, fetch, verify, where
from ._data import Data, Split, Transform
from ._load import load
from ._source import FileReport, Place

__all__ = [
    "Data",
    "FileReport",
    "Listing",
    "Place",
    "Split",
    "Transform",
    "available",
    "fetch",
    "load",
    "verify",
    "where",
]
