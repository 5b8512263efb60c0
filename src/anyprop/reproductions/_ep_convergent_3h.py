"""Equilibrium propagation on MNIST in nets with three hidden layers (Ernoult et al. 2019); see `_ep_convergent`."""

from ._ep_convergent import nets_of, prototypical

REPRODUCTION = nets_of(
    "ep-convergent-3h",
    "three hidden layers",
    {"P-3h": prototypical(180, 20, 0.5, (0.2, 0.05, 0.01, 0.002), 100)},
    {"P-3h": 2.01},
    minutes=1000.0,
)
