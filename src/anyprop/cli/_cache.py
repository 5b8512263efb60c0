"""The compilation cache: what one run has compiled, the next one loads."""

import os

import jax
import platformdirs


def cache_compilations() -> None:
    """Keep compiled programs in the user's cache folder.

    `JAX_COMPILATION_CACHE_DIR` puts them elsewhere, `ANYPROP_CACHE=off` keeps none.
    """
    if os.environ.get("ANYPROP_CACHE", "").lower() == "off":
        return
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        folder = platformdirs.user_cache_path("anyprop") / "xla"
        jax.config.update("jax_compilation_cache_dir", str(folder))
    # By default JAX keeps only what took a second to compile; here many small programs add up.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
