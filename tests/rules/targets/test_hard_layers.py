"""A layer learns along its own derivative, so it may hear signs and not be one."""

from functools import partial

import pytest

import anyprop as ap
from anyprop.nets import Activate, Chain, Dense, Residual, mlp

DESCENDING = (
    ap.TargetPropagation,
    ap.DifferenceTargetPropagation,
    ap.DiscreteTargetPropagation,
    ap.LocalDifferenceReconstruction,
)
RULES = (*DESCENDING, ap.SimplifiedTargetPropagation, ap.IterativeTargetPropagation, ap.TargetPropagationEM)


@pytest.mark.parametrize("kind", RULES)
def test_hard_layers_are_refused(kind, key):
    dense = partial(Dense, 4, 4, key=key)
    tanh = dense(activation="tanh")
    hard = (
        mlp(4, 4, 4, activation="sign", key=key),
        Chain([tanh, tanh, tanh, dense(), Activate("sign")]),
        Chain([tanh, Activate("sign"), Residual([dense()], activation="step"), dense(), dense()]),
        Chain([tanh, Activate("sign"), Residual([dense(activation="sign"), dense()]), dense(), dense()]),
    )
    for model in hard:
        with pytest.raises(TypeError, match=rf"{kind.__name__} .* layer . is hard itself.*StraightThrough"):
            kind().init(model, key=key)


@pytest.mark.parametrize("kind", RULES)
def test_signs_between_layers_are_heard(kind, key):
    tanh = Dense(4, 4, activation="tanh", key=key)
    kind().init(Chain([tanh, Activate("sign"), tanh, tanh, tanh]), key=key)
    before_the_output = Chain([tanh, tanh, tanh, Activate("sign"), tanh])
    if kind in DESCENDING:
        with pytest.raises(TypeError, match=rf"{kind.__name__} .* leave out the last Activate"):
            kind().init(before_the_output, key=key)
    else:
        kind().init(before_the_output, key=key)
