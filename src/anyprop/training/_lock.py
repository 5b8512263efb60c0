"""One run at a time in a folder, by a lock that the system takes back however a process ends."""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

if sys.platform == "win32":
    import msvcrt

    _TAKEN = PermissionError

    def _take(handle: int) -> None:
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    _TAKEN = BlockingIOError

    def _take(handle: int) -> None:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextlib.contextmanager
def alone(folder: Path | None) -> Iterator[None]:
    """Keep other runs out of `folder` for as long as the block lasts, by a lock on its file `.lock`.

    The file stays: it says nothing by being there. Where files cannot be locked, as on some network file systems,
    nobody is kept out.

    Args:
        folder: a folder that can be written to, or None, of which there is nothing to keep.

    Raises:
        BlockingIOError: another run has it.
    """
    if folder is None:
        yield
        return
    handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT)
    try:
        try:
            _take(handle)
        except _TAKEN as error:
            raise BlockingIOError(
                f"out={str(folder)!r} is in use by another run; wait for its end, or pass another out folder"
            ) from error
        except OSError:
            pass
        yield
    finally:
        os.close(handle)
