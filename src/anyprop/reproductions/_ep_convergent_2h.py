"""Equilibrium propagation on MNIST in nets with two hidden layers (Ernoult et al. 2019); see `_ep_convergent`."""

from ._ep_convergent import energy_based, nets_of, prototypical

REPRODUCTION = nets_of(
    "ep-convergent-2h",
    "two hidden layers",
    {"EB-2h": energy_based(400, 40, (0.4, 0.1, 0.01), 50), "P-2h": prototypical(100, 20, 0.5, (0.2, 0.05, 0.005), 50)},
    {"EB-2h": 2.01, "P-2h": 1.95},
    minutes=900.0,
)
