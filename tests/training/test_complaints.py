import dataclasses
import warnings
from functools import partial

import equinox as eqx
import jax
import numpy as np
import optax
import pytest

import anyprop as ap
from anyprop.training import RuleWarning
from anyprop.training._fit import _warn


class Grumbler(ap.Backprop):
    """Backprop that complains where its loss, told as a metric, has fallen."""

    def credit(self, learner, batch, *, key):
        credit = super().credit(learner, batch, key=key)
        return ap.Credit(credit.loss, credit.output, credit.grads, credit.memory, {"level": credit.loss})

    def complaint(self, metrics):
        return f"at {metrics['level']:.3g}" if metrics["level"] < 0.6 else None


def two_clouds():
    y = np.arange(40, dtype=np.int32) % 2
    x = (2.0 * y[:, None] - 1 + 0.1 * np.ones((40, 3))).astype(np.float32)
    return ap.data.load({"train": (x, y), "test": (x, y)})


def test_a_rules_first_complaint_is_passed_on_and_no_other():
    fit = partial(ap.fit, optimizer=optax.sgd(0.1), batch_size=20, progress=False, alignment=False)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        run = fit(Grumbler(), partial(ap.nets.mlp, 3, 2), two_clouds(), epochs=6, seeds=[4, 7])
    levels = {(r["epoch"], r["seed"]): r["metrics/level"] for r in run.records if r["epoch"]}
    epoch, seed = next(place for place in sorted(levels) if levels[place] < 0.6)
    (warning,) = seen
    assert warning.category is RuleWarning
    assert f"(seed {seed}), epoch {epoch}: at {levels[epoch, seed]:.3g}" in str(warning.message)
    assert epoch < 6  # there was more to complain of


def test_a_rule_complains_of_a_free_phase_that_does_not_settle():
    exact = ap.EquilibriumPropagation(free_steps=7, tolerance=1e-3)
    settled = {"free_converged": 1.0, "free_residual": 9e-4, "nudge_speed": 0.1}
    restless = settled | {"free_converged": 0.75, "free_residual": 0.02}
    assert exact.complaint(settled) is None
    complaint = exact.complaint(restless)
    for part in ("25.00%", "tolerance=0.001", "7 steps of 0.5", "0.02 per unit of time", "free_steps or a smaller"):
        assert part in complaint
    by_layer = {"free_residual_1": 0.01, "free_residual_2": 0.02, "free_residual_3": 0.0}
    assert "in layer 2, still" in exact.complaint(restless | by_layer)


@pytest.mark.parametrize(
    ("rule", "phase", "remedy"),
    [
        (ap.PredictiveCoding(steps=7, tolerance=1e-3), "inference", "pass more steps"),
        (ap.ContrastiveHebbian(tolerance=1e-3), "free", "more free_steps or a smaller step_size"),
        (
            ap.ContrastiveHebbian(clamped_steps=7, tolerance=1e-3),
            "clamped",
            "more clamped_steps or a smaller step_size",
        ),
    ],
)
def test_rules_with_phases_of_their_own_complain_of_them_alike(rule, phase, remedy):
    metrics = {f"{phase}_converged": 0.75, f"{phase}_residual": 0.02, f"{phase}_residual_1": 0.02}
    complaint = rule.complaint(metrics)
    for part in ("25.00%", f"the {phase} phases", "tolerance=0.001", "in layer 1, still moved at 0.02", remedy):
        assert part in complaint
    assert rule.complaint(metrics | {f"{phase}_converged": 1.0}) is None
    assert rule.complaint({}) is None
    assert dataclasses.replace(rule, tolerance=0.0).complaint(metrics) is None


def test_without_a_tolerance_it_complains_of_drift_that_hides_the_nudge():
    drifting = {"free_converged": 0.0, "free_residual": 0.2}
    for relaxation, remedy in (("gradient-flow", "free_steps or a smaller step_size"), ("fixed-point", "free_steps")):
        rule = ap.EquilibriumPropagation(relaxation=relaxation)
        assert rule.complaint(drifting | {"nudge_speed": 0.3}) is None
        assert rule.complaint(drifting | {"nudge_speed": 0.1}).endswith(f"pass more {remedy}")
        assert rule.complaint({}) is None


def test_contrastive_hebbian_learning_says_once_that_drift_hides_the_answer_and_nothing_by_default():
    def net(key, scale):
        net = ap.nets.mlp(3, 20, 20, 2, activation="tanh", key=key)
        return jax.tree.map(lambda w: scale * w if eqx.is_inexact_array(w) else w, net)

    fit = partial(ap.fit, data=two_clouds(), batch_size=20, epochs=2, progress=False, alignment=False)
    with pytest.warns(RuleWarning, match="within 15 steps of 1: in layer . .* the clamped outputs first move") as seen:
        fit(ap.ContrastiveHebbian(feedback=1.0), partial(net, scale=2))
    assert len(seen) == 1
    fit(ap.ContrastiveHebbian(), partial(net, scale=1))  # where a warning is an error


def test_a_layer_is_judged_by_how_fast_clamped_outputs_first_move_it():
    metrics = {"free_residual": 0.3, "free_residual_1": 0.02, "free_residual_2": 0.3, "clamp_speed_1": 0.05}
    assert ap.ContrastiveHebbian().complaint(metrics) is None
    complaint = ap.ContrastiveHebbian().complaint(metrics | {"clamp_speed_1": 0.01})
    assert "in layer 1 the fastest unit of a batch still moved at 0.02" in complaint
    assert complaint.endswith("faster than at 0.01; pass more free_steps or a smaller step_size")


def test_samples_that_drift_are_complained_of():
    rule = ap.StochasticEquilibriumPropagation(nudged_steps=7)
    metrics = {"free_residual": 0.1, "nudged_residual": 0.3, "nudge_speed": 0.2}
    assert rule.complaint(metrics | {"nudged_residual": 0.1}) is None
    complaint = rule.complaint(metrics)
    for part in ("the nudged phase did not settle within 7 steps of 0.2", "faster than at 0.2; pass more nudged_steps"):
        assert part in complaint


def test_signs_that_no_error_passes_are_complained_of_once():
    sign, step = (partial(ap.nets.mlp, 3, *hidden) for hidden in ((4, "sign", 4, 2), (4, 2)))
    step = partial(step, activation="step")
    fit = partial(ap.fit, data=two_clouds(), batch_size=20, epochs=2, progress=False, alignment=False)
    for rule, net in ((ap.Backprop(), sign), (ap.FeedbackAlignment(), step)):
        with pytest.warns(RuleWarning, match="zero.* learn nothing; StraightThrough and Alt.*DiscreteTarget") as seen:
            fit(rule, net)
        assert len(seen) == 1
    for rule, net in ((ap.StraightThrough(), step), (ap.Backprop(), partial(ap.nets.mlp, 3, 4, 2))):
        fit(rule, net)  # where a warning is an error


def test_rules_have_no_complaints_by_themselves():
    assert ap.Backprop().complaint({"anything": 1.0}) is None


def test_a_metric_that_is_no_number_is_not_judged():
    rule = ap.EquilibriumPropagation(tolerance=1e-3)
    assert not _warn(rule, [{"rule": "ep", "seed": 0, "epoch": 1, "metrics": {"free_residual": None}}])
