"""Rules that compare a system at rest with itself at rest under a nudge."""

from ._equilibrium_propagation import EquilibriumPropagation

__all__ = ["EquilibriumPropagation"]
