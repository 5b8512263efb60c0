"""The course assignment's figures, from its committed result."""

import json
from pathlib import Path

import anyprop as ap
from anyprop.reproductions import _neur503

RESULT = Path(__file__).parents[2] / "results" / "neur503.json"


def test_the_curves_are_drawn_over_epochs_and_over_passes(tmp_path, monkeypatch):
    drawn = {}

    def plot(results, path, *, counted):
        drawn[path.name, counted] = {run["rule"]: run["epochs"] for run in results["runs"]}

    monkeypatch.setattr(ap.report, "plot_learning", plot)
    details = json.loads(RESULT.read_text())["details"]
    _neur503.draw(details, tmp_path)
    ends = {axis: {rule: curve[-1]["epoch"] for rule, curve in curves.items()} for axis, curves in drawn.items()}
    assert ends["epochs.png", "Epoch"] == dict.fromkeys(_neur503.RULES, 20)
    by_passes = ends["passes.png", "Passes over the network, in thousands"]
    assert by_passes == {rule: 20 * 500 * passes / 1000 for rule, passes in _neur503.PASSES.items()}
    assert all(len(curve) == 20 and curve[-1]["test_error"] for curves in drawn.values() for curve in curves.values())
