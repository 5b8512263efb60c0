import json
from functools import partial

import jaxtyping
import optax
import pytest
from test_fit import blobs, build, contents, elman

import anyprop as ap

quick = partial(ap.compare, epochs=2, batch_size=20, seeds=2, progress=False)


def test_rules_start_from_the_same_networks_and_share_a_table(tmp_path):
    rules = [ap.Backprop(), ap.FeedbackAlignment()]
    comparison = quick(rules, build, blobs(), optimizer=optax.sgd(0.1), out=tmp_path)
    start = [run["start"]["test_loss"] for run in comparison.results["runs"]]
    assert start[:2] == start[2:]
    assert comparison.results["settings"]["optimizer"] == ["scale(step_size=-0.1)"]
    assert {run["rule"]: run["cost"]["ratio_to_backprop"] for run in comparison.results["runs"]}["backprop"] == 1
    assert len(comparison.to_pandas()) == len(comparison.records) == 2 * 2 * 3
    assert [row["rule"] for row in comparison.summary] == ["backprop", "feedback-alignment"]
    saved = json.loads((tmp_path / "results.json").read_text())
    assert [run["rule"] for run in saved["runs"]] == ["backprop"] * 2 + ["feedback-alignment"] * 2
    assert "feedback-alignment" in (tmp_path / "report.html").read_text()


def test_variants_of_one_rule_go_by_name():
    rules = {"slow": ap.Backprop(), "fast": ap.Backprop()}
    comparison = quick(rules, build, blobs(), optimizer={"slow": optax.sgd(0.001), "fast": optax.sgd(0.3)})
    errors = {row["rule"]: row["test_error_mean"] for row in comparison.summary}
    assert errors["fast"] < errors["slow"]
    steps = {"slow": ["scale(step_size=-0.001)"], "fast": ["scale(step_size=-0.3)"]}
    assert comparison.results["settings"]["optimizer"] == steps


def test_an_interrupted_comparison_is_finished_by_resume(tmp_path):
    rules = [ap.Backprop(), ap.FeedbackAlignment()]
    whole = quick(rules, build, blobs(), out=tmp_path / "a")

    def interrupt(end):
        if end.epoch == 1 and end.records[0]["rule"] == "feedback-alignment":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        quick(rules, build, blobs(), out=tmp_path / "b", callbacks=[interrupt])
    resumed = quick(rules, build, blobs(), out=tmp_path / "b", resume=True)
    losses = [[r.get("test_loss") for r in c.records] for c in (whole, resumed)]
    assert losses[0] == losses[1]


def test_resume_loses_no_other_rule_and_mixes_no_other_kind_of_run(tmp_path):
    options = {"epochs": 1, "seeds": 1, "alignment": False}
    quick([ap.Backprop(), ap.KolenPollack()], build, blobs(), out=tmp_path / "both", **options)
    fit = partial(ap.fit, ap.SignSymmetry(), build, blobs(), batch_size=20, progress=False)
    fit(epochs=1, alignment=False, out=tmp_path / "one")
    before = contents(tmp_path)

    def again(folder):
        quick([ap.Backprop()], build, blobs(), out=tmp_path / folder, resume=True, **options)

    with pytest.raises(ValueError, match="also holds the results of kolen-pollack; name them, too"):
        again("both")
    with pytest.raises(ValueError, match="holds a run of fit"):
        again("one")
    with pytest.raises(ValueError, match="and no checkpoint"):
        fit(out=tmp_path / "both", resume=True)
    assert contents(tmp_path) == before


def test_a_second_comparison_into_one_folder_is_refused_while_the_first_one_lasts(tmp_path):
    def second(end):
        with pytest.raises(BlockingIOError, match=f"^out='{tmp_path}' is in use"):
            quick([ap.FeedbackAlignment()], build, blobs(), out=tmp_path, resume=True)
        ends.append(end)

    ends = []
    quick([ap.Backprop()], build, blobs(), epochs=1, seeds=1, out=tmp_path, callbacks=[second])
    assert len(ends) == 1


def test_a_later_rule_s_old_results_are_seen_before_the_first_one_trains(tmp_path):
    (tmp_path / "feedback-alignment").mkdir()
    (tmp_path / "feedback-alignment/results.json").write_text("{}")
    for resume in (False, True):
        with pytest.raises((FileExistsError, ValueError), match="feedback-alignment"):
            quick([ap.Backprop(), ap.FeedbackAlignment()], build, blobs(), out=tmp_path, resume=resume)
        assert not (tmp_path / "backprop").exists()


@pytest.mark.parametrize("name", ["../x", "/x", "a/b", "..", ""])
def test_a_name_that_is_no_folder_is_refused(name, tmp_path):
    with pytest.raises(ValueError, match=f"^rules .* {name!r}"):
        quick({name: ap.Backprop()}, build, blobs(), out=tmp_path / "run")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("rules", "optimizer", "match"),
    [
        ([], None, "at least one rule"),
        ([ap.Backprop(), ap.Backprop()], None, "each only once"),
        ([ap.Backprop()], {}, "no entry for backprop"),
        ([ap.Backprop()], {"backprop": optax.sgd(0.1), "newton": optax.sgd(1.0)}, "^optimizer has an entry for newton"),
    ],
)
def test_bad_rules_and_optimizers_are_refused(rules, optimizer, match):
    with pytest.raises(ValueError, match=match):
        quick(rules, build, blobs(), optimizer=optimizer)


@pytest.mark.parametrize("rate", [0.0, -0.1, float("nan")])
def test_a_rate_that_the_last_rule_cannot_learn_at_is_refused_before_the_first_one_trains(rate, tmp_path):
    rates = {"backprop": optax.sgd(0.1), "kolen-pollack": optax.sgd(rate)}
    with pytest.raises(ValueError, match=r"^optimizer m.* learning rate"):
        quick([ap.Backprop(), ap.KolenPollack()], build, blobs(), optimizer=rates, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"rules": [ap.Backprop(), ap.DirectFeedbackAlignment()], "net": elman, "data": blobs(shape=(4, 3))}, "recurr"),
        ({"rules": "backprop"}, r"^rules must be .*, not 'backprop'"),
        ({"rules": ap.Backprop()}, "^rules must be"),
        ({"rules": ["backprop", "kolen-pollack"]}, "^rule must be .*, not 'backprop'"),
        ({"rules": [ap.Backprop(), ap.KolenPollack]}, r"^rule must be .* KolenPollack\(\), not"),
        ({"optimizer": {"backprop": optax.sgd(0.1), "newton": "sgd"}}, "^optimizer must be .*, not 'sgd'"),
        ({"callbacks": print}, "^callbacks must be"),
    ],
)  # fmt: skip
def test_the_last_rule_is_refused_before_the_first_one_trains(change, match, tmp_path, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # users run without the type checker
    good = {"rules": [ap.Backprop(), ap.Newton()], "net": build, "data": blobs(), "out": tmp_path / "run"}
    with pytest.raises(TypeError, match=match):
        quick(**(good | change))
    assert not (tmp_path / "run").exists()
