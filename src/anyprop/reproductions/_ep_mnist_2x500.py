"""Equilibrium propagation on MNIST: a Hopfield network with two hidden layers; see `_ep_mnist`."""

from ._ep_mnist import hopfield

REPRODUCTION = hopfield("ep-mnist-2x500", 2, 1.0, free=100, nudged=6, rates=(0.4, 0.1, 0.01), epochs=60, minutes=330.0)
