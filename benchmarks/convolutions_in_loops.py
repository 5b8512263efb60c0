"""What convolutions cost inside a compiled loop and outside it, by XLA's own kernel and as `nets.for_loops` has them.

    python benchmarks/convolutions_in_loops.py

A step convolves a batch of images and takes the derivatives with respect to the images and to the kernel. Milliseconds
a step, the least of three.
"""

import time

import jax
import jax.numpy as jnp

import anyprop as ap

STEPS = 5
CASES = {
    "20 x 12 x 12 x 32, 5 x 5 to 64": (20, 12, 32, 64, 5, "VALID"),
    "8 x 16 x 16 x 128, 3 x 3 to 256": (8, 16, 128, 256, 3, "SAME"),
    "128 x 8 x 8 x 64, 3 x 3 to 64": (128, 8, 64, 64, 3, "SAME"),
}


def milliseconds(layer: ap.nets.Conv, x: jax.Array, *, prepared: bool, looped: bool) -> float:
    """How long a step takes."""

    def cost(layer: ap.nets.Conv, x: jax.Array) -> jax.Array:
        return jnp.mean((ap.nets.for_loops(layer) if prepared else layer)(x) ** 2)

    def step(_: int, now: tuple) -> tuple:
        return jax.tree.map(lambda a, g: a - 1e-6 * g, now, jax.grad(cost, argnums=(0, 1))(*now))

    run = jax.jit(lambda now: jax.lax.fori_loop(0, STEPS, step, now) if looped else step(0, now))
    jax.block_until_ready(run((layer, x)))
    seconds = []
    for _ in range(3):
        begin = time.perf_counter()
        jax.block_until_ready(run((layer, x)))
        seconds.append(time.perf_counter() - begin)
    return 1e3 * min(seconds) / (STEPS if looped else 1)


def main() -> None:
    """Print a line for each convolution."""
    for name, (batch, side, channels, out, size, padding) in CASES.items():
        layer = ap.nets.Conv(channels, out, size, padding=padding, key=jax.random.key(0))
        x = jax.random.normal(jax.random.key(1), (batch, side, side, channels))
        for looped in (True, False):
            own, ours = (milliseconds(layer, x, prepared=prepared, looped=looped) for prepared in (False, True))
            where = "in a loop" if looped else "outside"
            print(f"{name:<34} {where:<10} XLA {own:8.1f} ms   for_loops {ours:8.1f} ms", flush=True)


if __name__ == "__main__":
    main()
