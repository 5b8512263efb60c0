"""Equilibrium propagation on MNIST: a Hopfield network with three hidden layers; see `_ep_mnist`."""

from ._ep_mnist import hopfield

REPRODUCTION = hopfield(
    "ep-mnist-3x500", 3, 1.0, free=500, nudged=8, rates=(0.128, 0.032, 0.008, 0.002), epochs=500, minutes=30_000.0
)
