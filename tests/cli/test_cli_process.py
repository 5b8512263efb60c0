"""What only whole processes show: a kill in the middle of a run, and what the next one need not compile."""

import json
import os
import subprocess
import sys
import time

import numpy as np
from safetensors.numpy import load_file

SMALL = "--data small.npz --batch-size 10 --net 784-8-10 --epochs 20 --seeds 2 --quiet"


def learned(folder):
    """All that a run found out, without what the clock says."""
    clock = ("seconds", "steps_per_second")
    runs = json.loads((folder / "results.json").read_text())["runs"]
    return [
        (run["rule"], run["seed"], [{k: v for k, v in e.items() if k not in clock} for e in run["epochs"]])
        for run in runs
    ]


def test_a_killed_run_resumes_bit_identical(run, tmp_path):
    del run  # only for the data that it lays out
    line = f"train node-perturbation {SMALL} --optimizer adam --learning-rate 0.001"
    command = [sys.executable, "-c", "from anyprop.cli import main; main()", *line.split(), "--out"]
    process = subprocess.Popen([*command, "killed"], cwd=tmp_path)
    lines = tmp_path / "killed/metrics.jsonl"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (lines.exists() and lines.read_text().count("\n") >= 10):
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert not (tmp_path / "killed/results.json").exists()

    subprocess.run([*command, "killed", "--resume"], cwd=tmp_path, check=True)
    subprocess.run([*command, "whole"], cwd=tmp_path, check=True)
    assert learned(tmp_path / "killed") == learned(tmp_path / "whole")
    killed, whole = (load_file(tmp_path / name / "checkpoint.safetensors") for name in ("killed", "whole"))
    assert set(killed) == set(whole)
    for name in whole:
        np.testing.assert_array_equal(killed[name], whole[name])


COUNTING = """
import collections, sys, jax.monitoring
from anyprop.cli import main
events = collections.Counter()
jax.monitoring.register_event_listener(lambda event, **_: events.update([event.rsplit("/", 1)[-1]]))
assert main(sys.argv[1:]) == 0
print(events["cache_hits"], events["cache_misses"])
"""


def test_the_second_run_compiles_nothing(run, tmp_path):
    del run  # only for the data that it lays out
    environment = {k: v for k, v in os.environ.items() if k not in ("ANYPROP_CACHE", "JAX_COMPILATION_CACHE_DIR")}
    environment["XDG_CACHE_HOME"] = str(tmp_path / "cache")
    line = "train feedback-alignment --data small.npz --epochs 1 --net 784-4-10 --quiet --out"
    counts = []
    for out in ("first", "second"):
        command = [sys.executable, "-c", COUNTING, *line.split(), out]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
        counts.append([int(word) for word in done.stdout.split()])
        assert done.stderr == ""
    (_, first_misses), (second_hits, second_misses) = counts
    assert first_misses > 0
    assert second_misses == 0
    assert second_hits >= first_misses
    assert any((tmp_path / "cache/anyprop/xla").iterdir())
