"""Networks: stages, chains of them, and builders for the ones that papers use."""

from ._activations import ACTIVATIONS, activation
from ._builders import convnet, elman, lenet5, mlp, resnet20
from ._chain import Chain, Elman, Residual
from ._equinox import from_equinox
from ._initialisers import INITIALISERS, initialiser
from ._spiking import SpikingNetwork
from ._stage import (
    Activate,
    Affine,
    Conv,
    Dense,
    Flatten,
    GlobalMean,
    Norm,
    Pool,
    Site,
    Stage,
    Trace,
    Wiring,
    affines,
    affines_above_first,
    assemble,
    local_update,
    replace_sites,
    sites,
    wire,
)

__all__ = [
    "ACTIVATIONS",
    "INITIALISERS",
    "Activate",
    "Affine",
    "Chain",
    "Conv",
    "Dense",
    "Elman",
    "Flatten",
    "GlobalMean",
    "Norm",
    "Pool",
    "Residual",
    "Site",
    "SpikingNetwork",
    "Stage",
    "Trace",
    "Wiring",
    "activation",
    "affines",
    "affines_above_first",
    "assemble",
    "convnet",
    "elman",
    "from_equinox",
    "initialiser",
    "lenet5",
    "local_update",
    "mlp",
    "replace_sites",
    "resnet20",
    "sites",
    "wire",
]
