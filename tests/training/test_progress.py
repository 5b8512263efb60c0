"""What the progress display tells of a run."""

import pytest

from anyprop.training._progress import _note

EPOCH = {"train_loss": 0.5, "train_error": 0.2, "test_loss": 0.6, "test_error": 0.25, "validation_error": 0.3}
NO_LABELS = {"train_loss": 17.5, "train_error": None, "test_loss": 20.0, "test_error": None}


@pytest.mark.parametrize(
    ("epoch", "note"),
    [
        (EPOCH, "validation error 30.00 %"),
        (EPOCH | {"validation_error": None}, "test error 25.00 %"),
        ({"train_loss": 0.5, "train_error": 0.2}, "train error 20.00 %"),
        (NO_LABELS, "test loss 20"),
        (NO_LABELS | {"validation_loss": 19.0}, "validation loss 19"),
        ({"train_loss": 17.5}, "train loss 17.5"),
        ({}, ""),
    ],
)
def test_it_tells_the_most_telling_score_there_is(epoch, note):
    assert _note([epoch]) == note


def test_it_tells_the_mean_over_seeds():
    assert _note([{"test_error": 0.1}, {"test_error": 0.2}]) == "test error 15.00 %"
