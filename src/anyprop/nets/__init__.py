"""Networks: stages, chains of them, and builders for the ones that papers use."""

from ._activations import ACTIVATIONS, HARD, Activation, activation
from ._builders import convnet, elman, lenet5, mlp, resnet20
from ._chain import Chain, Elman, Residual, Series
from ._convolution import Conv, for_loops
from ._equinox import from_equinox
from ._initialisers import INITIALISERS, Initialiser, initialiser
from ._layers import layers, links
from ._spiking import SpikingNetwork
from ._stage import (
    Activate,
    Affine,
    Dense,
    Flatten,
    GlobalMean,
    Norm,
    Pool,
    Reshape,
    Site,
    Stage,
    Trace,
    Upsample,
    Wiring,
    affines,
    affines_above_first,
    assemble,
    has_hard_units,
    local_update,
    replace_sites,
    sites,
    wire,
)

__all__ = [
    "ACTIVATIONS",
    "HARD",
    "INITIALISERS",
    "Activate",
    "Activation",
    "Affine",
    "Chain",
    "Conv",
    "Dense",
    "Elman",
    "Flatten",
    "GlobalMean",
    "Initialiser",
    "Norm",
    "Pool",
    "Reshape",
    "Residual",
    "Series",
    "Site",
    "SpikingNetwork",
    "Stage",
    "Trace",
    "Upsample",
    "Wiring",
    "activation",
    "affines",
    "affines_above_first",
    "assemble",
    "convnet",
    "elman",
    "for_loops",
    "from_equinox",
    "has_hard_units",
    "initialiser",
    "layers",
    "lenet5",
    "links",
    "local_update",
    "mlp",
    "replace_sites",
    "resnet20",
    "sites",
    "wire",
]
