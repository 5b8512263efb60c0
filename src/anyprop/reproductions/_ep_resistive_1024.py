"""Equilibrium propagation in a nonlinear resistive network of 1024 hidden nodes, on MNIST; see `_ep_resistive`."""

from ._ep_resistive import circuit

REPRODUCTION = circuit("ep-resistive-1024", 1024, gain=480.0, published=(1.57, 0.12), epochs=50, minutes=120.0)
