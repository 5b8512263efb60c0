"""The command line in process: arguments in; exit status, output and errors out."""

import contextlib
import io
from typing import NamedTuple

import numpy as np
import pytest

from anyprop.cli import main


class Outcome(NamedTuple):
    status: int
    out: str
    err: str


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run `anyprop` with the words of a line, in a folder with 300 random images, without a compilation cache."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    arrays = {f"x_{split}": rng.integers(0, 256, (300, 28, 28, 1), "uint8") for split in ("train", "test")}
    np.savez(tmp_path / "small.npz", **arrays, y_train=np.arange(300) % 10, y_test=np.arange(300) % 10)
    monkeypatch.setenv("ANYPROP_CACHE", "off")
    monkeypatch.setenv("COLUMNS", "200")

    def run(line: str) -> Outcome:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                status = main(line.split())
            except SystemExit as exit:
                status = exit.code
        return Outcome(status, out.getvalue(), err.getvalue())

    return run
