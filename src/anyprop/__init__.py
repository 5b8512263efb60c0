"""anyprop: train a neural network by any credit-assignment rule."""

from . import losses as losses
from . import nets as nets
from .contract import Batch, Card, Credit, DataInfo, Learner, Needs, Rule
from .rules.exact import Backprop
from .rules.feedback import FeedbackAlignment
