"""Where the files of a published data set are: finding, downloading and checking them."""

import dataclasses
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import platformdirs
import pooch
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

Arrays = dict[str, tuple[np.ndarray, np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Remote:
    """A published file.

    Args:
        name: path below the data set's folder, under its published name.
        url: where it is published; None for one that comes inside another.
        checksum: "md5:..." or "sha256:..."; None where none is published, and the data set's own
            `validate` reads the whole file instead.
    """

    name: str
    url: str | None = None
    checksum: str | None = None


@dataclasses.dataclass(frozen=True)
class DataSet:
    """A data set known by name.

    Args:
        name: what to pass to `load`.
        shape: shape of one example.
        classes: number of classes.
        examples: number of examples, all splits together.
        licence: under which it is published.
        source_url: where its authors describe it.
        layouts: sets of files that each hold it all; the first is the one to download.
        read: from verified files and a seed to raw arrays for each split.
        validate: reads a file without checksum whole and raises `ValueError` if anything is wrong.
        folder: where the files are, if they come with the package.
    """

    name: str
    shape: tuple[int, ...]
    classes: int
    examples: int
    licence: str
    source_url: str
    layouts: tuple[tuple[Remote, ...], ...]
    read: Callable[[tuple[Path, ...], int], Arrays]
    validate: Callable[[Path], object] | None = None
    folder: Path | None = None


@dataclasses.dataclass(frozen=True)
class Place:
    """One path where a file of a data set was looked for, and whether it is there."""

    path: Path
    found: bool


@dataclasses.dataclass(frozen=True)
class FileReport:
    """Whether a file is what was published; `problem` says what is wrong with it."""

    file: Path
    ok: bool
    problem: str = ""


def cache_folder(name: str) -> Path:
    """Return the user's cache folder of a data set; it may not exist yet."""
    return Path(platformdirs.user_cache_dir("anyprop")) / "data" / name


def folders(dataset: DataSet) -> list[Path]:
    """Return the folders where a data set is looked for, in this order."""
    if dataset.folder is not None:
        return [dataset.folder]
    chosen = os.environ.get("ANYPROP_DATA")
    return [*([Path(chosen).expanduser() / dataset.name] if chosen else []), cache_folder(dataset.name)]


def places(dataset: DataSet) -> list[Place]:
    """Return every path that `find` looks at."""
    paths = [folder / file.name for folder in folders(dataset) for layout in dataset.layouts for file in layout]
    return [Place(path, path.is_file()) for path in paths]


def find(dataset: DataSet) -> dict[Path, Remote] | None:
    """Return the first complete set of files, unchecked; None if there is none."""
    for folder in folders(dataset):
        for layout in dataset.layouts:
            files = {folder / file.name: file for file in layout}
            if all(path.is_file() for path in files):
                return files
    return None


def check(dataset: DataSet, file: Remote, path: Path) -> None:
    """Raise `ValueError` unless a file is whole and what was published."""
    if file.checksum is not None:
        algorithm, expected = file.checksum.split(":")
        actual = pooch.file_hash(str(path), alg=algorithm)
        if actual != expected:
            raise ValueError(
                f"{path} is truncated or altered ({algorithm} {actual}, published {expected}): delete it, "
                f"then fetch {dataset.name!r} again"
            )
    elif dataset.validate is not None:
        dataset.validate(path)


def obtain(dataset: DataSet) -> tuple[Path, ...]:
    """Return the files of a data set, downloaded first if they are nowhere to be found.

    Checksums are verified, and downloads read whole. A file that was found and has no checksum is left
    to `DataSet.read`, which is as strict as `DataSet.validate`: nothing is parsed twice.

    Args:
        dataset: the data set.

    Raises:
        ValueError: a file is truncated or altered.
        FileNotFoundError: the files are nowhere, and cannot be downloaded.
    """
    files = find(dataset)
    if files is None:
        files = {folders(dataset)[-1] / file.name: file for file in dataset.layouts[0]}
    for path, file in files.items():
        if not path.is_file():
            _download(dataset, file, path)
        elif file.checksum is not None:
            check(dataset, file, path)
    return tuple(files)


def _download(dataset: DataSet, file: Remote, path: Path) -> None:
    """Download to a temporary name, check, and only then give the file its own name."""
    if file.url is None:
        raise FileNotFoundError(_missing(dataset, "this installation of anyprop is not whole"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(handle)
    except OSError as error:
        raise FileNotFoundError(_missing(dataset, f"{path.parent} cannot be written: {error}")) from error
    partial = Path(name)
    try:
        _http(file.url, partial)
        check(dataset, file, partial)
        os.replace(partial, path)
    except OSError as error:  # every error of the network, and a full disk
        raise FileNotFoundError(_missing(dataset, f"downloading {file.url} failed: {error}")) from error
    except ValueError as error:
        raise ValueError(f"what {file.url} sent is broken, and was thrown away: {error}") from error
    finally:
        partial.unlink(missing_ok=True)


def _http(url: str, path: Path) -> None:
    with _Bar(url.rsplit("/", 1)[-1]) as bar:
        # pooch documents any object with these names as a progress bar, and annotates `bool`.
        fetch = pooch.HTTPDownloader(progressbar=bar, chunk_size=1 << 16)  # pyright: ignore[reportArgumentType]
        fetch(url, str(path), None)


class _Bar:
    """A Rich progress bar with the four names that pooch calls."""

    def __init__(self, title: str):
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self._task = self._progress.add_task(title, total=None)
        self.total = 0

    def __enter__(self) -> "_Bar":
        self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._progress.stop()

    def update(self, size: int) -> None:
        self._progress.update(self._task, advance=size, total=self.total or None)

    def reset(self) -> None:
        self._progress.update(self._task, completed=0)

    def close(self) -> None:
        self._progress.stop()


def _missing(dataset: DataSet, reason: str) -> str:
    looked = "\n".join(f"  {place.path}{' (there)' if place.found else ''}" for place in places(dataset))
    sets = "\n  or ".join(
        ", ".join(file.name + (f" (from {file.url})" if file.url else "") for file in layout)
        for layout in dataset.layouts
    )
    return (
        f"data set {dataset.name!r} was not found, and {reason}\nlooked at:\n{looked}\nput there, under the "
        f"published names:\n  {sets}\nor point the environment variable ANYPROP_DATA to a folder that holds "
        f"{dataset.name}/ with these files"
    )
