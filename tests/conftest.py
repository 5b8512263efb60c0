"""Fixtures of the whole suite; several fake CPU devices, so that nothing relies on there being one.

The networks here are tiny, so nearly all the time goes into compiling them: LLVM is told to spend little, and where
XLA still has its older emitters of code for fused operations, which take less than half of the time, it uses them. What
is fused, and what else XLA does to a program, is as in production. What one process has compiled, the others and the
tests after it take from a folder that is gone when the run ends.
"""

import gc
import itertools
import os
import tempfile
from pathlib import Path

from jaxlib import version

os.environ["XLA_FLAGS"] = " ".join(
    [
        os.environ.get("XLA_FLAGS", ""),
        "--xla_force_host_platform_device_count=4",
        "--xla_backend_optimization_level=0",
        "--xla_llvm_disable_expensive_passes=true",
        # A process ends at a flag that it does not know.
        "--xla_cpu_use_fusion_emitters=false" if version.__version_info__ < (0, 11) else "",
    ]
)

if "JAX_COMPILATION_CACHE_DIR" not in os.environ:  # else this is a worker, which has it from the process that began it
    programs = tempfile.TemporaryDirectory(prefix="anyprop-tests-")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = programs.name
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"

import jax
import pytest

MOST_MAPS = 30_000
"""Linux gives a process 65,530 memory maps, and the compiler aborts beyond."""

tests_run = itertools.count(1)


@pytest.fixture(autouse=True)
def room_for_programs():
    """Drop compiled programs, each of which takes several memory maps, before there are too many."""
    yield
    maps = Path("/proc/self/maps")
    if next(tests_run) % 20 == 0 and maps.exists() and maps.read_bytes().count(b"\n") > MOST_MAPS:
        jax.clear_caches()
        gc.collect()


@pytest.fixture
def key() -> jax.Array:
    return jax.random.key(0)


@pytest.fixture
def x64():
    """Double precision, for checks against analytic limits."""
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)
