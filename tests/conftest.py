"""Fixtures of the whole suite; several fake CPU devices, so that nothing relies on there being one.

The networks here are tiny, so nearly all the time goes into compiling them: LLVM is told to spend little.
What XLA itself does (fusion, common subexpressions) is as in production.
"""

import gc
import os
from pathlib import Path

os.environ["XLA_FLAGS"] = " ".join(
    [
        os.environ.get("XLA_FLAGS", ""),
        "--xla_force_host_platform_device_count=4",
        "--xla_backend_optimization_level=0",
        "--xla_llvm_disable_expensive_passes=true",
    ]
)

import jax
import pytest

MAPS = Path("/proc/self/maps")
MOST_MAPS = 30_000
"""Memory maps that a process may have before compiled programs are dropped: Linux stops it at 65,530."""


@pytest.fixture(autouse=True)
def room_for_programs():
    """Drop compiled programs when there are very many: each takes memory maps, of which a process gets so many."""
    yield
    if MAPS.exists() and MAPS.read_bytes().count(b"\n") > MOST_MAPS:
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
