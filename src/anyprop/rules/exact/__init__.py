"""Rules that compute the exact gradient, or a curvature-corrected one."""

from ._backprop import Backprop

__all__ = ["Backprop"]
