"""Rules built on exact derivatives: the gradient, forward estimates of it, and curvature-aware steps."""

from ._backprop import Backprop
from ._finite_differences import FiniteDifferences
from ._forward_accumulation import ForwardAccumulation
from ._forward_gradient import ForwardGradient
from ._natural_gradient import NaturalGradient
from ._newton import Newton
from ._real_time_recurrent_learning import RealTimeRecurrentLearning

__all__ = [
    "Backprop",
    "FiniteDifferences",
    "ForwardAccumulation",
    "ForwardGradient",
    "NaturalGradient",
    "Newton",
    "RealTimeRecurrentLearning",
]
