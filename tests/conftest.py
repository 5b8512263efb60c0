"""Fixtures of the whole suite; several fake CPU devices, so that nothing relies on there being one.

The networks here are tiny, so nearly all the time goes into compiling them: LLVM is told to spend little, and where
XLA still has its older emitters of code for fused operations, which take less than half of the time, it uses them. What
is fused, and what else XLA does to a program, is as in production. Most of the rest is tracing, whose small objects
would set off the collector of garbage all the time.
"""

import gc
import itertools
import os

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

import jax
import pytest

TESTS_BETWEEN_CLEARANCES = 200
"""Few enough: the suite once came to its end after some 750 tests in one process."""

gc.set_threshold(200_000, 50, 50)

tests_run = itertools.count(1)


@pytest.fixture(autouse=True)
def room_for_programs():
    """Drop compiled programs now and then: Linux gives a process 65,530 memory maps, and the compiler aborts beyond."""
    yield
    if next(tests_run) % TESTS_BETWEEN_CLEARANCES == 0:
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
